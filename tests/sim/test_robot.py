"""The simulated robot: physics under the clock, the watchdog and the operator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gatort.runtime.clock import VirtualClock
from gatort.runtime.errors import RobotError
from gatort.runtime.safety import Command, State
from gatort.sim.make import MujocoRobot
from gatort.sim.robot import SimulatedRobot
from gatort.sim.tasks.seeds import VALIDATION_SEEDS

SEED = VALIDATION_SEEDS.start


def command(robot: SimulatedRobot, sequence: int, stamp_ns: int, values: np.ndarray) -> Command:
    return Command(
        sequence=sequence,
        observation_sequence=sequence,
        apply_at_ns=stamp_ns + robot.spec.action_delay_ns,
        valid_for_ns=60_000_000,
        values=values,
    )


def test_an_unarmed_arm_holds_still_against_gravity(
    robot: SimulatedRobot, clock: VirtualClock
) -> None:
    before = robot.observe().values[0].copy()
    clock.advance_ns(2_000_000_000)
    after = robot.observe()
    assert robot.state is State.DISARMED
    np.testing.assert_allclose(
        after.values[0], before, atol=0.02
    )  # rad; damping lets through a little of the compensation


def test_nothing_moves_before_the_operators_consent(
    robot: SimulatedRobot, clock: VirtualClock
) -> None:
    width = [key.name for key in robot.interface.observations].index("gripper/width")
    before = robot.observe().values[width].copy()
    clock.advance_ns(500_000_000)
    np.testing.assert_allclose(
        robot.observe().values[width], before, atol=1e-4
    )  # m; the fingers settle


def test_a_command_takes_effect_at_its_time_and_not_before(
    robot: SimulatedRobot, clock: VirtualClock
) -> None:
    robot.arm()
    stamp_ns = robot.observe().stamp_ns
    robot.command(command(robot, 0, stamp_ns, np.array([10.0, 0, 0, 0, 0, 0, 0, 0.08])))
    clock.advance_ns(robot.spec.action_delay_ns)
    still = robot.observe().values[1][0]
    clock.advance_ns(20_000_000)
    moving = robot.observe().values[1][0]
    assert abs(still) < 1e-3 < moving


def test_silence_ends_in_latched_and_a_slow_arm(robot: SimulatedRobot, clock: VirtualClock) -> None:
    robot.arm()
    stamp_ns = robot.observe().stamp_ns
    robot.command(command(robot, 0, stamp_ns, np.array([20.0, 0, 0, 0, 0, 0, 0, 0.0])))
    clock.advance_ns(2_500_000_000)
    values = robot.observe().values
    assert robot.state is State.LATCHED
    assert np.abs(values[1]).max() < 0.05  # rad/s


def test_an_arm_that_is_stopped_in_full_motion_does_not_coast(
    robot: SimulatedRobot, clock: VirtualClock
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
    latched = robot.moment().arm.joint_position.copy()
    assert abs(robot.moment().arm.joint_velocity[0]) > 0.3
    clock.advance_ns(1_000_000_000)
    robot.advance()
    assert abs(robot.moment().arm.joint_velocity[0]) < 1e-3
    assert abs(robot.moment().arm.joint_position[0] - latched[0]) < 0.12


def test_an_observation_does_not_change_when_the_robot_moves_on(
    robot: SimulatedRobot, clock: VirtualClock
) -> None:
    robot.arm()
    first = robot.observe()
    copies = [value.copy() for value in first.values]
    robot.command(command(robot, 0, first.stamp_ns, np.array([20.0, 0, 0, 0, 0, 0, 0, 0.0])))
    clock.advance_ns(60_000_000)
    robot.observe()
    for value, copy in zip(first.values, copies, strict=True):
        np.testing.assert_array_equal(value, copy)


def test_diverged_physics_is_an_error_and_leaves_no_log_file(
    clock: VirtualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    robot = MujocoRobot(clock, SEED)
    robot.simulator.data.qvel[0] = np.nan
    clock.advance_ns(5_000_000)
    with pytest.raises(RobotError, match="diverged"):
        robot.observe()
    assert not list(tmp_path.iterdir())
    robot.reset(SEED)
    clock.advance_ns(5_000_000)
    robot.observe()  # The next trial is a healthy one.
