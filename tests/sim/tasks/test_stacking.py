"""The simulated arm, its task and its expert, the same in either simulator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gatort.runtime.clock import VirtualClock
from gatort.runtime.errors import RobotError
from gatort.runtime.safety import (
    Command,
    State,
)
from gatort.sim.robot import StackingRobot
from gatort.sim.rollout import (
    follow_expert,
    rollout,
)
from gatort.sim.simulators.bullet import BulletRobot
from gatort.sim.simulators.mujoco import MujocoRobot
from gatort.sim.tasks.stacking import task

Simulator = type[MujocoRobot] | type[BulletRobot]
VALIDATION_SEED = task.VALIDATION_SEEDS.start


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture(params=[MujocoRobot, BulletRobot])
def simulator(request: pytest.FixtureRequest) -> Simulator:
    return request.param


@pytest.fixture
def robot(simulator: Simulator, clock: VirtualClock) -> Iterator[StackingRobot]:
    made = simulator(clock, VALIDATION_SEED)
    yield made
    made.close()


def command(robot: StackingRobot, sequence: int, stamp_ns: int, values: np.ndarray) -> Command:
    return Command(
        sequence=sequence,
        observation_sequence=sequence,
        apply_at_ns=stamp_ns + robot.spec.action_delay_ns,
        valid_for_ns=60_000_000,
        values=values,
    )


@pytest.mark.parametrize("seed", range(VALIDATION_SEED, VALIDATION_SEED + 4))
def test_the_expert_stacks_within_the_trial(
    robot: StackingRobot, clock: VirtualClock, seed: int
) -> None:
    episode = rollout(robot, clock, seed, follow_expert(0.0, np.random.default_rng(0)))
    assert episode.succeeded
    assert episode.ticks < task.TRIAL_SECONDS * task.CONTROL_HZ


def test_the_expert_stacks_through_torque_noise(robot: StackingRobot, clock: VirtualClock) -> None:
    assert rollout(
        robot, clock, VALIDATION_SEED, follow_expert(2.0, np.random.default_rng(0))
    ).succeeded


def test_an_arm_that_does_nothing_never_succeeds(robot: StackingRobot, clock: VirtualClock) -> None:
    episode = rollout(robot, clock, VALIDATION_SEED, lambda *_: np.zeros(8), seconds=2.0)
    assert not episode.succeeded


def test_the_same_seed_gives_the_same_trial_bit_for_bit(
    simulator: Simulator, clock: VirtualClock
) -> None:
    first, second = simulator(clock), simulator(clock)
    rollout(
        second,
        clock,
        VALIDATION_SEED + 1,
        follow_expert(0.0, np.random.default_rng(0)),
        seconds=2.5,
    )
    second.lay_blocks(VALIDATION_SEED + 2)  # A past must leave no trace.
    one = rollout(
        first, clock, VALIDATION_SEED, follow_expert(0.0, np.random.default_rng(0)), seconds=2.5
    )
    other = rollout(
        second, clock, VALIDATION_SEED, follow_expert(0.0, np.random.default_rng(0)), seconds=2.5
    )
    for mine, theirs in zip(
        (*one.observations, one.actions), (*other.observations, other.actions), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    first.close()
    second.close()


def test_layouts_differ_between_seeds_and_keep_the_blocks_apart() -> None:
    layouts = [task.draw_layout(seed) for seed in range(100)]
    assert len(set(layouts)) == 100
    for layout in layouts:
        places = np.array([(block.x_m, block.y_m) for block in layout.blocks])
        gaps = np.linalg.norm(places[:, None] - places[None], axis=-1) + np.eye(3)
        assert gaps.min() > 0.12


def test_training_validation_and_trial_seeds_never_meet() -> None:
    ranges = (task.TRIAL_SEEDS, task.VALIDATION_SEEDS, task.TRAINING_SEEDS)
    for first in ranges:
        for second in ranges:
            assert first is second or first.stop <= second.start or second.stop <= first.start


def test_an_unarmed_arm_holds_still_against_gravity(
    robot: StackingRobot, clock: VirtualClock
) -> None:
    before = robot.observe().values[0].copy()
    clock.advance_ns(2_000_000_000)
    after = robot.observe()
    assert robot.state is State.DISARMED
    np.testing.assert_allclose(
        after.values[0], before, atol=0.02
    )  # rad; what damping lets through of the compensation


def test_nothing_moves_before_the_operators_consent(
    robot: StackingRobot, clock: VirtualClock
) -> None:
    width = [key.name for key in robot.interface.observations].index("gripper/width")
    before = robot.observe().values[width].copy()
    clock.advance_ns(500_000_000)
    np.testing.assert_allclose(
        robot.observe().values[width], before, atol=1e-4
    )  # m; the fingers settle


def test_a_command_takes_effect_at_its_time_and_not_before(
    robot: StackingRobot, clock: VirtualClock
) -> None:
    robot.arm()
    stamp_ns = robot.observe().stamp_ns
    robot.command(command(robot, 0, stamp_ns, np.array([10.0, 0, 0, 0, 0, 0, 0, 0.08])))
    clock.advance_ns(robot.spec.action_delay_ns)
    still = robot.observe().values[1][0]
    clock.advance_ns(20_000_000)
    moving = robot.observe().values[1][0]
    assert abs(still) < 1e-3 < moving


def test_silence_ends_in_latched_and_a_slow_arm(robot: StackingRobot, clock: VirtualClock) -> None:
    robot.arm()
    stamp_ns = robot.observe().stamp_ns
    robot.command(command(robot, 0, stamp_ns, np.array([20.0, 0, 0, 0, 0, 0, 0, 0.0])))
    clock.advance_ns(2_500_000_000)
    values = robot.observe().values
    assert robot.state is State.LATCHED
    assert np.abs(values[1]).max() < 0.05  # rad/s


def test_an_arm_that_is_stopped_in_full_motion_does_not_coast(
    robot: StackingRobot, clock: VirtualClock
) -> None:
    robot.arm()
    push = np.array([20.0, 0, 0, 0, 0, 0, 0, 0])
    for sequence in range(6):  # Turns the base for 0.3 s.
        observation = robot.observe()
        robot.command(command(robot, sequence, observation.stamp_ns, push))
        clock.advance_ns(robot.spec.period_ns)
    robot.stop()
    clock.advance_ns(60_000_000)
    robot.advance()
    assert robot.state is State.LATCHED
    latched = robot._poses().joint_position.copy()
    assert abs(robot._poses().joint_velocity[0]) > 0.5
    clock.advance_ns(1_000_000_000)
    robot.advance()
    assert abs(robot._poses().joint_velocity[0]) < 1e-3
    assert abs(robot._poses().joint_position[0] - latched[0]) < 0.12


def test_an_observation_does_not_change_when_the_robot_moves_on(
    robot: StackingRobot, clock: VirtualClock
) -> None:
    robot.arm()
    first = robot.observe()
    copies = [value.copy() for value in first.values]
    robot.command(command(robot, 0, first.stamp_ns, np.array([20.0, 0, 0, 0, 0, 0, 0, 0.0])))
    clock.advance_ns(60_000_000)
    robot.observe()
    for value, copy in zip(first.values, copies, strict=True):
        np.testing.assert_array_equal(value, copy)


def block_places(robot: StackingRobot) -> np.ndarray:
    return robot.positions[9:].reshape(3, 7)[:, :3]


def places_of(seed: int) -> np.ndarray:
    return np.array(
        [(block.x_m, block.y_m, block.edge_m / 2) for block in task.draw_layout(seed).blocks]
    )


def test_blocks_are_laid_anew_around_an_arm_that_stays_and_success_is_watched_again(
    robot: StackingRobot, clock: VirtualClock
) -> None:
    assert rollout(
        robot, clock, VALIDATION_SEED, follow_expert(0.0, np.random.default_rng(0))
    ).succeeded
    assert robot.succeeded
    before = robot.positions[:9]
    robot.lay_blocks(VALIDATION_SEED + 1)
    assert not robot.succeeded
    np.testing.assert_array_equal(robot.positions[:9], before)
    np.testing.assert_allclose(
        block_places(robot), places_of(VALIDATION_SEED + 1), atol=1e-9
    )  # m; rounding


@pytest.mark.parametrize("carried_s", [1.8, 2.0])
def test_blocks_that_are_laid_anew_in_the_middle_of_a_carry_lie_still(
    robot: StackingRobot, clock: VirtualClock, carried_s: float
) -> None:
    rollout(robot, clock, VALIDATION_SEED, follow_expert(0.0, np.random.default_rng(0)), carried_s)
    assert block_places(robot)[0, 2] > 0.04
    robot.stop()
    for _ in range(2):  # The second time where the first ones lie: none of those may be left.
        robot.lay_blocks(VALIDATION_SEED + 1)
    clock.advance_ns(300_000_000)
    robot.observe()
    np.testing.assert_allclose(
        block_places(robot), places_of(VALIDATION_SEED + 1), atol=1e-3
    )  # m; contact gives way


def test_diverged_physics_is_an_error_and_leaves_no_log_file(
    clock: VirtualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    robot = MujocoRobot(clock, VALIDATION_SEED)
    robot.data.qvel[0] = np.nan
    clock.advance_ns(5_000_000)
    with pytest.raises(RobotError, match="diverged"):
        robot.observe()
    assert not list(tmp_path.iterdir())
    robot.reset(VALIDATION_SEED)
    clock.advance_ns(5_000_000)
    robot.observe()  # The next trial is a healthy one.
