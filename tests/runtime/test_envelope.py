"""The envelope alone, and around a simulated Panda that is driven where it must not go."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from gatort.runtime.clock import VirtualClock
from gatort.runtime.envelope import (
    CONSISTENCY_CYCLES,
    KEEP_OFF_RAD,
    LIMIT_ZONE_RAD,
    REPEATED_CYCLES,
    Envelope,
    tool_place,
)
from gatort.runtime.errors import ConfigError
from gatort.runtime.robots.panda import PANDA_LIMITS, TORQUE_NM
from gatort.runtime.safety import Command, State
from gatort.sim.make import SimulatorName, make_robot
from gatort.sim.robot import SimulatedRobot

MS = 1_000_000
HOME = (0.0, -0.4, 0.0, -2.2, 0.0, 1.8, 0.8)
STILL = (0.0,) * 7
STEP_NM = 1.0
"""Largest change of a Panda's torque in a cycle: 1000 N·m/s for 1 ms."""


@pytest.fixture
def envelope() -> Envelope:
    return Envelope(PANDA_LIMITS)


def limited(
    envelope: Envelope,
    torque: float,
    position: tuple[float, ...] = HOME,
    velocity: tuple[float, ...] = STILL,
    *,
    cycles: int = 1,
    is_driven: bool = True,
) -> list[float]:
    written: list[float] = []
    for cycle in range(cycles):
        moved = [q + v * 1e-3 * cycle for q, v in zip(position, velocity, strict=True)]
        written = envelope.limit([torque] * 7, moved, velocity, is_driven=is_driven)
    return written


# -- Torque ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_no_sequence_of_torques_changes_the_written_ones_faster_than_the_arm_allows(
    envelope: Envelope, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    wild = np.array([87.0, math.inf, math.nan, 1e6, -1e6, 0.0])
    before = np.zeros(7)
    for _ in range(5_000):
        torque = draw.normal(0, 60, 7)
        torque[draw.integers(7)] = draw.choice(wild)
        position = draw.uniform(-3.2, 3.9, 7).tolist()
        velocity = draw.normal(0, 2, 7).tolist()
        written = np.array(
            envelope.limit(torque.tolist(), position, velocity, is_driven=bool(draw.integers(2)))
        )
        assert np.abs(written - before).max() <= STEP_NM
        assert (np.abs(written) <= PANDA_LIMITS.torque_nm).all()
        before = written


def test_torques_within_all_limits_are_written_as_they_are(envelope: Envelope) -> None:
    assert limited(envelope, 0.5) == [0.5] * 7
    assert envelope.reason is None


def test_torque_towards_a_joint_limit_fades_out_and_torque_away_from_it_stays(
    envelope: Envelope,
) -> None:
    near = (PANDA_LIMITS.high_rad[0] - KEEP_OFF_RAD - LIMIT_ZONE_RAD / 2, *HOME[1:])
    assert limited(envelope, 0.8, near)[0] == pytest.approx(0.4)
    envelope = Envelope(PANDA_LIMITS)
    assert limited(envelope, -0.8, near)[0] == pytest.approx(-0.8)


def test_a_fade_that_is_faster_than_the_arm_allows_is_refused(envelope: Envelope) -> None:
    envelope.require_fade(TORQUE_NM, 0.04)
    with pytest.raises(
        ConfigError, match=r"joint 1: a fade from 87 N·m in 40 ms changes 2175 N·m/s"
    ):
        envelope.require_fade([87.0] * 7, 0.04)


# -- Reasons to stop ---------------------------------------------------------------------------


def test_a_joint_beyond_its_speed_limit_stops_the_arm(envelope: Envelope) -> None:
    limited(envelope, 0.0, velocity=(0.0, 2.3, *STILL[2:]), cycles=20)
    assert envelope.reason == "joint 2 turned at 2.30 rad/s, above its limit of 2.175"


def test_a_jump_of_speed_of_ten_cycles_stops_nothing(envelope: Envelope) -> None:
    for _ in range(50):
        limited(envelope, 0.0, velocity=(0.0, 2.3, *STILL[2:]), cycles=10)
        limited(envelope, 0.0, velocity=(0.0, 2.0, *STILL[2:]), cycles=3)
    assert envelope.reason is None or "turned" not in envelope.reason


def test_a_joint_at_its_limit_stops_the_arm(envelope: Envelope) -> None:
    limited(envelope, 0.0, (*HOME[:3], -0.07, *HOME[4:]))
    assert envelope.reason == "joint 4 came to -0.070 rad, at its limit (-3.0718 to -0.0698)"


def test_a_joint_that_is_pressed_and_does_not_move_stops_the_arm(envelope: Envelope) -> None:
    noise = np.random.default_rng(0)
    for _ in range(600):
        position = [q + 1e-6 * noise.normal() for q in HOME]
        envelope.limit([9.0, *STILL[1:]], position, STILL, is_driven=True)
    assert envelope.reason == "joint 1 was pressed with 9 N·m for 0.5 s and did not move"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_reading_that_is_not_finite_stops_the_arm(envelope: Envelope, value: float) -> None:
    assert limited(envelope, 0.5, velocity=(value, *STILL[1:]))[0] == 0.0
    assert envelope.reason == "joint 1: its readings are not finite"


def test_positions_that_stand_while_velocities_say_motion_stop_the_arm(
    envelope: Envelope,
) -> None:
    noise = np.random.default_rng(0)
    for _ in range(CONSISTENCY_CYCLES + 2):
        velocity = [0.5 + 1e-3 * noise.normal(), *STILL[1:]]
        envelope.limit(STILL, HOME, velocity, is_driven=True)
    assert envelope.reason is not None
    assert envelope.reason.startswith("joint 1: its position and its velocity differ by 0.05")


def test_readings_that_repeat_to_the_last_bit_under_torque_stop_the_arm(
    envelope: Envelope,
) -> None:
    limited(envelope, 2.0, cycles=REPEATED_CYCLES + 3)
    assert envelope.reason == "the joints' readings were the same for 50 cycles under torque"


def test_an_arm_whose_readings_cannot_be_true_is_let_go_of_and_no_brake_trusts_them(
    envelope: Envelope,
) -> None:
    fast = (2.1, *STILL[1:])  # A brake that trusted this frozen speed would drive the arm.
    for _ in range(REPEATED_CYCLES + 5):
        written = envelope.limit([5.0] * 7, HOME, fast, is_driven=True)
    assert envelope.is_blind
    for _ in range(100):
        written = envelope.limit([5.0] * 7, HOME, fast, is_driven=False)
    assert written == [0.0] * 7
    envelope.reset()
    assert not envelope.is_blind


def test_a_wanted_torque_that_is_not_finite_stops_the_arm(envelope: Envelope) -> None:
    limited(envelope, math.nan)
    assert envelope.reason == "a wanted torque is not finite"


def test_consent_that_is_repeated_restarts_no_rule() -> None:
    robot = make_robot("mujoco", "reach", VirtualClock())
    robot.arm()
    assert robot.envelope is not None
    robot.envelope.reason = "a reason of before"
    robot.arm()
    assert robot.envelope.reason == "a reason of before"


def test_the_tool_outside_its_box_stops_the_arm() -> None:
    low = dataclasses.replace(PANDA_LIMITS, box_low_m=(-1.0, -1.0, 0.9))
    envelope = Envelope(low)
    limited(envelope, 0.0, cycles=20)
    assert envelope.reason is not None
    assert envelope.reason.startswith("the tool came to z = ")


def test_more_power_than_the_limit_stops_the_arm() -> None:
    envelope = Envelope(dataclasses.replace(PANDA_LIMITS, power_w=3.0))
    limited(envelope, 5.0, velocity=(1.0, *STILL[1:]), cycles=10)
    assert envelope.reason == "the joints got 4 W, above the limit of 3"


def test_an_arm_that_is_not_driven_may_be_moved_by_hand(envelope: Envelope) -> None:
    limited(envelope, 0.0, velocity=(2.9,) * 7, cycles=5, is_driven=False)
    assert envelope.reason is None


def test_the_tools_place_is_that_of_the_simulator() -> None:
    robot = make_robot("mujoco", "stacking", VirtualClock())
    for seed in range(5):
        robot.reset(seed)
        arm = robot.simulator.arm()
        place = tool_place(PANDA_LIMITS.frames, arm.joint_position.tolist())
        np.testing.assert_allclose(place, arm.tool_position, atol=1e-9)


# -- A simulated arm that is driven into its limits ---------------------------------------------


class Drive:
    """A simulated arm, driven at 20 Hz with one torque."""

    def __init__(self, simulator: SimulatorName) -> None:
        self.clock = VirtualClock()
        self.robot: SimulatedRobot = make_robot(simulator, "reach", self.clock)
        self.torques: list[np.ndarray] = []
        self.positions: list[np.ndarray] = []
        step = self.robot.simulator.step

        def watched(torque_nm: np.ndarray, width_m: float | None) -> None:
            self.torques.append(np.array(torque_nm))
            self.positions.append(np.array(self.robot.simulator.joints()[0]))
            step(torque_nm, width_m)

        self.robot.simulator.step = watched  # type: ignore[method-assign]  # of this one simulator

    def push(self, joint: int, torque_nm: float, seconds: float = 6.0) -> None:
        """Command a torque on one joint until the arm stops or the time is up."""
        self.robot.arm()
        values = np.zeros(len(self.robot.interface.actuators))
        values[joint] = torque_nm
        for sequence in range(1, round(seconds * 20)):
            observation = self.robot.observe()
            if self.robot.state in (State.SAFE, State.LATCHED):
                break
            apply_at_ns = observation.stamp_ns + 25 * MS
            self.robot.command(
                Command(sequence, observation.sequence, apply_at_ns, 60 * MS, values)
            )
            self.clock.advance_ns(50 * MS)
        for _ in range(1_000):
            self.clock.advance_ns(MS)
            self.robot.advance()


@pytest.fixture(params=["mujoco", "pybullet"])
def drive(request: pytest.FixtureRequest) -> Iterator[Callable[[], Drive]]:
    if request.param == "pybullet":
        pytest.importorskip("pybullet")
    made: list[Drive] = []

    def make() -> Drive:
        made.append(Drive(request.param))
        return made[-1]

    yield make
    for each in made:
        each.robot.close()


@pytest.mark.parametrize(("joint", "sign"), [*zip(range(7), [1, -1] * 4, strict=False)])
def test_a_joint_that_is_pushed_with_the_largest_torque_neither_hits_its_stop_nor_runs_away(
    drive: Callable[[], Drive], joint: int, sign: int
) -> None:
    run = drive()
    run.push(joint, sign * TORQUE_NM[joint])
    positions, torques = np.array(run.positions), np.array(run.torques)
    room = np.minimum(positions - PANDA_LIMITS.low_rad, PANDA_LIMITS.high_rad - positions)
    assert np.abs(np.diff(torques, axis=0)).max() <= STEP_NM
    assert room.min() > KEEP_OFF_RAD - 0.005
    speeds = np.abs(np.diff(positions, axis=0)) * 1e3  # (steps, 7) rad/s
    assert (np.percentile(speeds, 99.5, axis=0) < PANDA_LIMITS.speed_rad_s).all()
