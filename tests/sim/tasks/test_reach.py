"""Reach: the target's path, success by distance, and the expert's tracking."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from gatort.runtime.clock import VirtualClock
from gatort.runtime.robots.panda import HOME_RAD
from gatort.runtime.safety import Command
from gatort.sim.make import MujocoRobot
from gatort.sim.robot import SimulatedRobot
from gatort.sim.tasks.reach.task import FASTEST_M_S, NEAR_M, Reach
from gatort.sim.tasks.reach.wave import HIGHEST_M, HOME_TOOL_M, LOWEST_M, START_M
from gatort.sim.tasks.seeds import VALIDATION_SEEDS
from gatort.sim.tasks.task import Moment, Target

SEED = VALIDATION_SEEDS.start
TIMES_S = np.arange(0.0, 10.0, 0.05)


@pytest.fixture
def robot(clock: VirtualClock) -> Iterator[SimulatedRobot]:
    made = MujocoRobot(clock, SEED, task="reach")
    yield made
    made.close()


def target_of(seed: int) -> Target:
    (target,) = Reach().layout(seed).targets
    return target


def follow(robot: SimulatedRobot, clock: VirtualClock, ticks: int) -> list[float]:
    """Let the expert drive. Return the distance from tool to target at each tick."""
    distances_m = []
    for _ in range(ticks):
        observation = robot.observe()
        offset = robot.task.read("target/from_tool", robot.moment())
        distances_m.append(float(np.linalg.norm(offset)))
        at_ns = observation.stamp_ns + robot.spec.action_delay_ns
        number = observation.sequence
        robot.command(Command(number, number, at_ns, 60_000_000, robot.expert_action()))
        clock.advance_ns(robot.spec.period_ns)
    return distances_m


def test_the_target_stays_in_the_reachable_space_and_within_its_speed() -> None:
    for seed in range(100):
        target = target_of(seed)
        places = np.array([target.position_at(time_s) for time_s in TIMES_S])
        velocities = np.array([target.velocity_at(time_s) for time_s in TIMES_S])
        assert (places >= LOWEST_M).all()
        assert (places <= HIGHEST_M).all()
        assert (np.abs(velocities) <= FASTEST_M_S).all()


def test_the_velocity_is_the_derivative_of_the_position() -> None:
    target, step_s = target_of(SEED), 1e-4
    for time_s in TIMES_S:
        moved = target.position_at(time_s + step_s) - target.position_at(time_s - step_s)
        np.testing.assert_allclose(
            target.velocity_at(time_s), moved / (2 * step_s), atol=1e-8
        )  # m/s; ω³·a·h²/6 of the central difference


def test_the_target_starts_away_from_the_tool(robot: SimulatedRobot) -> None:
    robot.simulator.place_arm(HOME_RAD)
    robot.simulator.place_cubes(())
    robot.simulator.settle()
    np.testing.assert_allclose(robot.moment().arm.tool_position, HOME_TOOL_M, atol=1e-3)  # m
    for seed in range(100):
        assert np.linalg.norm(target_of(seed).position_at(0.0) - HOME_TOOL_M) >= START_M


def test_the_target_moves_with_the_clock(robot: SimulatedRobot, clock: VirtualClock) -> None:
    clock.advance_ns(1_500_000_000)
    robot.advance()
    expected = target_of(SEED).position_at(1.5)
    np.testing.assert_allclose(robot.moment().bodies["target"].position, expected, atol=1e-12)
    np.testing.assert_allclose(robot.positions[9:12], expected, atol=1e-12)  # m; films show it


def test_the_tool_is_at_the_target_within_two_centimetres(robot: SimulatedRobot) -> None:
    def at(distance_m: float) -> Moment:
        moment = robot.moment()
        place = moment.bodies["target"].position + np.array([0.0, 0.0, distance_m])
        return replace(moment, arm=replace(moment.arm, tool_position=place))

    assert robot.task.holds(at(NEAR_M - 1e-6), robot.simulator.touching)
    assert not robot.task.holds(at(NEAR_M + 1e-6), robot.simulator.touching)


def test_the_expert_tracks_the_target_once_it_is_there(
    robot: SimulatedRobot, clock: VirtualClock
) -> None:
    robot.arm()
    distances_m = follow(robot, clock, ticks=200)
    assert distances_m[0] > 0.1
    assert max(distances_m[60:]) < 0.015  # m; 12 mm was the largest of 100 trials
    assert robot.succeeded


def test_success_needs_two_seconds_without_a_break(
    robot: SimulatedRobot, clock: VirtualClock
) -> None:
    robot.arm()
    distances_m = follow(robot, clock, ticks=20)
    arrived = next(tick for tick, distance_m in enumerate(distances_m) if distance_m < NEAR_M)
    rest = follow(robot, clock, ticks=round(1.9 * 20) - (20 - arrived))
    assert max(rest) < NEAR_M
    assert not robot.succeeded
    follow(robot, clock, ticks=4)
    assert robot.succeeded
