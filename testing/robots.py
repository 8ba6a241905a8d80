"""Contract of robots: observations, the watchdog's states, and the commands that a robot drops."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from gatort.runtime.clock import VirtualClock
from gatort.runtime.robot import Observation, Robot
from gatort.runtime.safety import COMMAND_MARGIN_NS, Command, State

from .policies import scripted_policy

MS = 1_000_000
INNER_PERIOD_NS = MS
"""Period of the inner loop. A robot may read its sensors in steps of it."""


def safe_values(robot: Robot) -> NDArray[np.float64]:
    """Return the robot's safe command, (A,)."""
    return np.array([actuator.safe for actuator in robot.interface.actuators])


def answer(robot: Robot, observation: Observation, values: NDArray[np.float64]) -> Command:
    """Return a command that answers an observation in time."""
    interface = robot.interface
    return Command(
        sequence=observation.sequence,
        observation_sequence=observation.sequence,
        apply_at_ns=observation.stamp_ns + interface.action_delay_ns,
        valid_for_ns=interface.period_ns + COMMAND_MARGIN_NS,
        values=values,
    )


def drive(robot: Robot, clock: VirtualClock, ticks: int) -> None:
    """Answer each observation with the safe command, for `ticks` periods."""
    for _ in range(ticks):
        robot.command(answer(robot, robot.observe(), safe_values(robot)))
        clock.advance_ns(robot.interface.period_ns)
    robot.observe()


class RobotContract:
    """Tests that every robot passes. Inherit, and override `make_robot` or the fixture `robot`."""

    def make_robot(self, clock: VirtualClock) -> Robot:
        """Return the robot under test, which takes its time from `clock`.

        Raises:
            NotImplementedError: the class under test does not override this method.
        """
        raise NotImplementedError(f"{type(self).__name__}: expected a method make_robot(clock)")

    @pytest.fixture
    def clock(self) -> VirtualClock:
        """Return a clock that already shows five seconds."""
        return VirtualClock(5_000 * MS)

    @pytest.fixture
    def robot(self, clock: VirtualClock) -> Iterator[Robot]:
        """Make the robot, and close it after the test."""
        made = self.make_robot(clock)
        yield made
        made.close()

    def test_an_observation_holds_the_pictures_of_the_look_before_it(self, robot: Robot) -> None:
        """Look, observe, and compare the arrays themselves and their contents."""
        keys = robot.interface.observations
        pictures = robot.look()
        before = [each.copy() for each in pictures or ()]
        values = robot.observe().values
        own = [value for key, value in zip(keys, values, strict=True) if key.encoding == "image"]
        assert pictures is None or [id(each) for each in pictures] == [id(each) for each in own]
        robot.look()
        for picture, copied in zip(own, before, strict=False):
            np.testing.assert_array_equal(picture, copied)

    def test_an_observation_holds_every_key_in_order_with_its_shape_and_dtype(
        self, robot: Robot
    ) -> None:
        """Compare the values of an observation with the robot's interface."""
        observation = robot.observe()
        keys = robot.interface.observations
        assert [value.shape for value in observation.values] == [key.shape for key in keys]
        assert [value.dtype for value in observation.values] == [
            np.dtype(key.dtype) for key in keys
        ]

    def test_sequences_rise_and_stamps_follow_the_clock(
        self, robot: Robot, clock: VirtualClock
    ) -> None:
        """Read five times and compare sequences and stamps."""
        sequences = []
        for _ in range(5):
            observation = robot.observe()
            sequences.append(observation.sequence)
            # Physics moves in whole steps, so a stamp may lie less than one step behind the clock.
            assert clock.now_ns() - INNER_PERIOD_NS < observation.stamp_ns <= clock.now_ns()
            clock.advance_ns(7_300_000)
        assert sequences == sorted(set(sequences))

    def test_an_observation_keeps_its_values_when_the_next_is_read(
        self, robot: Robot, clock: VirtualClock
    ) -> None:
        """Read twice and compare the first observation with its copy."""
        first = robot.observe()
        copies = [value.copy() for value in first.values]
        clock.advance_ns(20 * MS)
        robot.observe()
        for value, copy in zip(first.values, copies, strict=True):
            np.testing.assert_array_equal(value, copy)

    def test_it_starts_disarmed_and_commands_do_not_arm_it(
        self, robot: Robot, clock: VirtualClock
    ) -> None:
        """Command without arming."""
        drive(robot, clock, 3)
        assert robot.state is State.DISARMED

    def test_commands_in_time_keep_it_running(self, robot: Robot, clock: VirtualClock) -> None:
        """Answer twenty observations in time."""
        robot.arm()
        drive(robot, clock, 20)
        assert robot.state is State.RUN

    def test_without_commands_it_holds_goes_to_safe_and_latches(
        self, robot: Robot, clock: VirtualClock
    ) -> None:
        """Stop commanding and record the states in order."""
        robot.arm()
        drive(robot, clock, 3)
        states = []
        for _ in range(40):
            clock.advance_ns(robot.interface.period_ns // 5)
            robot.observe()
            if robot.state not in states:
                states.append(robot.state)
        assert states == [State.RUN, State.HOLD, State.SAFE, State.LATCHED]

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_a_command_that_is_not_finite_is_dropped_so_that_the_watchdog_trips(
        self, robot: Robot, clock: VirtualClock, bad: float
    ) -> None:
        """Command values that are not finite."""
        robot.arm()
        for _ in range(6):
            observation = robot.observe()
            assert all(np.isfinite(value).all() for value in observation.values)
            values = np.full(len(robot.interface.actuators), bad)
            robot.command(answer(robot, observation, values))
            clock.advance_ns(robot.interface.period_ns)
        robot.observe()
        assert robot.state is State.LATCHED

    def test_a_late_command_is_dropped(self, robot: Robot, clock: VirtualClock) -> None:
        """Command one millisecond after each command should have taken effect."""
        robot.arm()
        late_ns = robot.interface.action_delay_ns + MS
        for _ in range(6):
            observation = robot.observe()
            clock.advance_ns(late_ns)
            robot.command(answer(robot, observation, safe_values(robot)))
            clock.advance_ns(max(0, robot.interface.period_ns - late_ns))
        robot.observe()
        assert robot.state is State.LATCHED

    def test_an_operators_stop_latches_and_only_arming_clears_it(
        self, robot: Robot, clock: VirtualClock
    ) -> None:
        """Stop while running, go on commanding, then arm again."""
        robot.arm()
        drive(robot, clock, 2)
        robot.stop()
        drive(robot, clock, 5)
        stopped = robot.state
        robot.arm()
        drive(robot, clock, 5)
        assert [stopped, robot.state] == [State.LATCHED, State.RUN]

    def test_the_control_loop_drives_it_and_stops_it(
        self, robot: Robot, clock: VirtualClock
    ) -> None:
        """Run ten ticks of a policy that commands the safe values."""
        policy = scripted_policy(robot.interface, [safe_values(robot)])
        loop = policy.control(robot, clock)
        assert loop.run(10) == 10, loop.refusal
        assert loop.refusal is None
        drive(robot, clock, 5)
        assert robot.state is State.LATCHED

    def test_a_second_close_changes_nothing(self, robot: Robot) -> None:
        """Close twice."""
        robot.close()
        robot.close()
