"""The contract of every robot. Add a new one to `ROBOTS`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from gatort.runtime.clock import VirtualClock
from gatort.runtime.remote.client import RemoteRobot
from gatort.runtime.remote.link import (
    LinkConditions,
    LinkedRobot,
)
from gatort.runtime.remote.memory import MemoryRobotTransport
from gatort.runtime.remote.server import RobotServer
from gatort.runtime.robot import (
    Observation,
    Robot,
)
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.safety import (
    COMMAND_MARGIN_NS,
    Command,
    State,
)
from gatort.runtime.spec import PolicySpec

MS = 1_000_000
PERIOD_NS = 50 * MS


def scripted(spec: PolicySpec, clock: VirtualClock) -> Robot:
    return ScriptedRobot(spec, clock)


def mujoco(_: PolicySpec, clock: VirtualClock) -> Robot:
    pytest.importorskip("mujoco")
    from gatort.sim.simulators.mujoco import MujocoRobot

    return MujocoRobot(clock, seed=0)


def pybullet(_: PolicySpec, clock: VirtualClock) -> Robot:
    pytest.importorskip("pybullet")
    from gatort.sim.simulators.bullet import BulletRobot

    return BulletRobot(clock, seed=0)


class WireRobot(RemoteRobot):
    """A scripted robot at the other end of a wire in memory."""

    def __init__(self, spec: PolicySpec, clock: VirtualClock) -> None:
        link = MemoryRobotTransport(clock)
        self._server = RobotServer(
            ScriptedRobot(spec, clock), clock, link, name="scripted", simulated=True
        )
        super().__init__("memory", clock, transport=link.connect(self._server.turn))

    def command(self, command: Command) -> None:
        super().command(command)
        self._server.turn()  # The command arrives before the test lets time pass.

    def close(self) -> None:
        super().close()
        self._server.close()


def linked(spec: PolicySpec, clock: VirtualClock) -> Robot:
    robot_clock = VirtualClock(clock.now_ns())
    return LinkedRobot(ScriptedRobot(spec, robot_clock), robot_clock, clock, LinkConditions())


ROBOTS = [scripted, linked, WireRobot, mujoco, pybullet]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(5_000 * MS)


@pytest.fixture(params=ROBOTS)
def robot(request: pytest.FixtureRequest, spec: PolicySpec, clock: VirtualClock) -> Iterator[Robot]:
    made: Robot = request.param(spec, clock)
    yield made
    made.close()


def safe_values(robot: Robot) -> np.ndarray:
    return np.array([actuator.safe for actuator in robot.interface.actuators])


def answer(observation: Observation, values: np.ndarray) -> Command:
    at_ns = observation.stamp_ns + 25 * MS
    return Command(
        observation.sequence, observation.sequence, at_ns, PERIOD_NS + COMMAND_MARGIN_NS, values
    )


def drive(robot: Robot, clock: VirtualClock, ticks: int) -> None:
    """Answer every observation with the safe command, one tick after another."""
    for _ in range(ticks):
        robot.command(answer(robot.observe(), safe_values(robot)))
        clock.advance_ns(PERIOD_NS)
    robot.observe()


def test_an_observation_holds_every_key_in_order_with_its_shape_and_dtype(robot: Robot) -> None:
    observation = robot.observe()
    assert [value.shape for value in observation.values] == [
        key.shape for key in robot.interface.observations
    ]
    assert [value.dtype for value in observation.values] == [
        np.dtype(key.dtype) for key in robot.interface.observations
    ]


def test_sequences_rise_and_stamps_follow_the_clock(robot: Robot, clock: VirtualClock) -> None:
    seen = []
    for _ in range(5):
        seen.append(robot.observe())
        # A robot may read in steps of its physics, 1 ms, but never ahead of the clock.
        assert clock.now_ns() - MS < seen[-1].stamp_ns <= clock.now_ns()
        clock.advance_ns(7_300_000)
    sequences = [observation.sequence for observation in seen]
    assert sequences == sorted(set(sequences))


def test_an_observation_keeps_its_values_when_the_next_is_read(
    robot: Robot, clock: VirtualClock
) -> None:
    first = robot.observe()
    copies = [value.copy() for value in first.values]
    clock.advance_ns(20 * MS)
    robot.observe()
    for value, copy in zip(first.values, copies, strict=True):
        np.testing.assert_array_equal(value, copy)


def test_it_starts_disarmed_and_commands_do_not_arm_it(robot: Robot, clock: VirtualClock) -> None:
    drive(robot, clock, 3)
    assert robot.state is State.DISARMED


def test_commands_in_time_keep_it_running(robot: Robot, clock: VirtualClock) -> None:
    robot.arm()
    drive(robot, clock, 20)
    assert robot.state is State.RUN


def test_without_commands_it_holds_goes_to_safe_and_latches(
    robot: Robot, clock: VirtualClock
) -> None:
    robot.arm()
    drive(robot, clock, 3)
    states = []
    for _ in range(40):
        clock.advance_ns(10 * MS)
        robot.observe()
        if robot.state not in states:
            states.append(robot.state)
    assert states == [State.RUN, State.HOLD, State.SAFE, State.LATCHED]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_command_that_is_not_finite_is_dropped_so_that_the_watchdog_trips(
    robot: Robot, clock: VirtualClock, bad: float
) -> None:
    robot.arm()
    for _ in range(6):
        observation = robot.observe()
        assert all(np.isfinite(value).all() for value in observation.values)
        robot.command(answer(observation, np.full(len(robot.interface.actuators), bad)))
        clock.advance_ns(PERIOD_NS)
    robot.observe()
    assert robot.state is State.LATCHED


def test_a_late_command_is_dropped(robot: Robot, clock: VirtualClock) -> None:
    robot.arm()
    for _ in range(6):
        observation = robot.observe()
        clock.advance_ns(26 * MS)
        robot.command(answer(observation, safe_values(robot)))
        clock.advance_ns(24 * MS)
    robot.observe()
    assert robot.state is State.LATCHED


def test_an_operators_stop_latches_and_only_arming_clears_it(
    robot: Robot, clock: VirtualClock
) -> None:
    robot.arm()
    drive(robot, clock, 2)
    robot.stop()
    drive(robot, clock, 5)
    assert robot.state is State.LATCHED
    robot.arm()
    drive(robot, clock, 5)
    assert robot.state is State.RUN


def test_closing_twice_does_nothing_more(robot: Robot) -> None:
    robot.close()
    robot.close()
