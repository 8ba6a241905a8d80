"""Randomised looks: reproducible, within their ranges, and without any effect on physics."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from gatort.runtime.clock import VirtualClock
from gatort.runtime.robot import Observation
from gatort.sim.lens import Lens, Outages, Shutter
from gatort.sim.make import make_robot
from gatort.sim.robot import SimulatedRobot
from gatort.sim.rollout import follow_expert, rollout
from gatort.sim.simulators.look import PLAIN
from gatort.sim.tasks.seeds import TRAINING_SEEDS
from gatort.sim.tasks.stacking.specifications import CAMERA_SPEC
from gatort.sim.view_randomisation import NOMINAL_VIEW, View, ViewRandomisation

SEED = TRAINING_SEEDS.start
TICK_NS = 50_000_000
CUBES = ("red", "blue", "green")
CAMERAS = ("front", "wrist")


def drawn(seed: int, ranges: ViewRandomisation) -> View:
    return ranges.draw(ranges.stream(seed), CUBES, CAMERAS)


def seeing_robot(clock: VirtualClock, ranges: ViewRandomisation | None) -> SimulatedRobot:
    return make_robot("mujoco", "stacking", clock, CAMERA_SPEC, SEED, view_randomisation=ranges)


def pictures(observation: Observation) -> np.ndarray:
    return np.stack(observation.values[:2])


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def plain(clock: VirtualClock) -> Iterator[SimulatedRobot]:
    robot = seeing_robot(clock, None)
    yield robot
    robot.close()


def test_a_seed_gives_one_look_and_another_seed_another() -> None:
    ranges = ViewRandomisation()
    one, again, other = drawn(SEED, ranges), drawn(SEED, ranges), drawn(SEED + 1, ranges)
    np.testing.assert_array_equal(one.look.table, again.look.table)
    assert one.lenses == again.lenses
    assert (one.look.table != other.look.table).any()
    assert one.lenses != other.lenses


def test_a_block_keeps_the_colour_that_names_it() -> None:
    for seed in range(SEED, SEED + 200):
        look = drawn(seed, ViewRandomisation()).look
        assert look.cubes is not None
        red, blue, green = look.cubes
        assert (red.argmax(), blue.argmax(), green.argmax()) == (0, 2, 1)


def test_a_randomised_look_changes_no_physics() -> None:
    ends = []
    for ranges in (None, ViewRandomisation()):
        clock = VirtualClock()
        robot = seeing_robot(clock, ranges)
        act = follow_expert(1.0, np.random.default_rng(0))
        episode = rollout(robot, clock, SEED + 3, act, seconds=1.5)
        ends.append((robot.positions.copy(), episode.expert_actions))
        robot.close()
    np.testing.assert_array_equal(ends[0][0], ends[1][0])
    np.testing.assert_array_equal(ends[0][1], ends[1][1])


def test_the_nominal_ranges_give_the_nominal_pictures(
    clock: VirtualClock, plain: SimulatedRobot
) -> None:
    robot = seeing_robot(clock, NOMINAL_VIEW)
    for _ in range(3):
        clock.advance_ns(TICK_NS)
        np.testing.assert_array_equal(pictures(robot.observe()), pictures(plain.observe()))
    robot.close()


def test_the_nominal_look_comes_back_after_a_randomised_one(
    clock: VirtualClock, plain: SimulatedRobot
) -> None:
    before = pictures(plain.observe())
    plain.simulator.use_look(drawn(SEED, ViewRandomisation()).look)
    assert (pictures(plain.observe()) != before).mean() > 0.5
    plain.simulator.use_look(PLAIN)
    np.testing.assert_array_equal(pictures(plain.observe()), before)


def test_a_picture_is_as_late_as_its_trial_says(clock: VirtualClock, plain: SimulatedRobot) -> None:
    late = seeing_robot(clock, NOMINAL_VIEW.model_copy(update={"latency_ms": (30.0, 30.0)}))
    for robot in (plain, late):
        robot.arm()
        robot.lay_out(SEED + 1)
    clock.advance_ns(20_000_000)
    before = pictures(plain.observe())
    clock.advance_ns(30_000_000)
    now = pictures(plain.observe())
    np.testing.assert_array_equal(pictures(late.observe()), before)
    assert (now != before).any()
    late.close()


def test_half_the_light_makes_the_table_half_as_bright(clock: VirtualClock) -> None:
    brightness = []
    for light in (0.5, 0.25):  # At more light, bright colours are cut off at white.
        robot = seeing_robot(clock, NOMINAL_VIEW.model_copy(update={"light": (light, light)}))
        # The lowest rows show the table. The background shines by itself.
        brightness.append(pictures(robot.observe())[:, -8:].mean())
        robot.close()
    assert brightness[1] / brightness[0] == pytest.approx(0.5, abs=0.02)


def numbered(value: int) -> np.ndarray:
    return np.full((16, 16, 3), value, np.uint8)


def test_a_shutter_returns_the_newest_picture_that_has_arrived() -> None:
    shutter = Shutter(Lens(), 60, Outages(), np.random.default_rng(0))
    seen = []
    for time in range(0, 300, 50):
        shutter.take(time, numbered(time % 251))
        seen.append(int(shutter.read(time)[0, 0, 0]))
    assert seen == [0, 0, 0, 50, 100, 150]


def test_a_frozen_camera_repeats_its_last_picture() -> None:
    shutter = Shutter(Lens(noise=4.0), 0, Outages(forever_from_ns=100), np.random.default_rng(0))
    read = []
    for time in range(0, 300, 50):
        shutter.take(time, numbered(time % 251))
        read.append(shutter.read(time))
    assert (read[0] != read[1]).any()
    for later in read[2:]:
        np.testing.assert_array_equal(later, read[1])


def test_an_outage_ends() -> None:
    outages = Outages(per_tick=0.2, most_ticks=3, black=1.0)
    shutter = Shutter(Lens(), 0, outages, np.random.default_rng(0))
    bright = []
    for time in range(200):
        shutter.take(time, numbered(200))
        bright.append(shutter.read(time).max() > 0)
    assert 0.4 < np.mean(bright) < 0.9


def test_a_clear_lens_changes_nothing_and_a_faulty_one_does() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (64, 64, 3), np.uint8)
    np.testing.assert_array_equal(Lens().expose(picture, rng), picture)
    assert Lens(gain=(0.5, 0.5, 0.5)).expose(picture, rng).max() <= 128
    blurred = Lens(blur_px=2.0).expose(picture, rng)
    assert blurred.std() < 0.3 * picture.std()
    assert blurred.mean() == pytest.approx(picture.mean(), abs=1.0)
    compressed = Lens(jpeg_quality=30).expose(picture, rng)
    assert compressed.shape == picture.shape
    assert (compressed != picture).any()


@pytest.mark.parametrize("ranges", [None, ViewRandomisation(latency_ms=(20.0, 40.0))])
def test_a_look_before_the_observation_changes_nothing_in_lockstep(
    ranges: ViewRandomisation | None,
) -> None:
    read = []
    for looks in (False, True):
        clock = VirtualClock()
        robot = seeing_robot(clock, ranges)
        for _ in range(3):
            looked = robot.look() if looks else None
            values = robot.observe().values
            assert looked is None or [id(each) for each in looked] == [
                id(each) for each in values[:2]
            ]
            clock.advance_ns(TICK_NS)
        read.append(values)
        robot.close()
    for alone, after_a_look in zip(*read, strict=True):
        np.testing.assert_array_equal(alone, after_a_look)


def test_pictures_of_an_old_look_are_drawn_again(
    clock: VirtualClock, plain: SimulatedRobot
) -> None:
    plain.look()
    plain.lay_out(SEED + 1)
    fresh = pictures(plain.observe())
    looked = plain.look()
    assert looked is not None
    np.testing.assert_array_equal(np.stack(looked), fresh)
    clock.advance_ns(2 * TICK_NS)
    values = plain.observe().values
    assert values[0] is not looked[0]
