"""The base of a robot around another one, which passes every call on, and the layers of a robot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from gatort.runtime.robot import Observation, Robot
from gatort.runtime.safety import Command, State
from gatort.runtime.spec import Interface


class WrappedRobot:
    """Passes every call on to another robot. Implements `Robot`; a subclass overrides a part."""

    def __init__(self, robot: Robot) -> None:
        """Take over a robot. `close` closes it."""
        self.robot = robot

    @property
    def interface(self) -> Interface:
        """See `Robot.interface`."""
        return self.robot.interface

    @property
    def state(self) -> State:
        """See `Robot.state`."""
        return self.robot.state

    @property
    def stop_reason(self) -> str | None:
        """See `Robot.stop_reason`."""
        return self.robot.stop_reason

    @property
    def succeeded(self) -> bool:
        """See `Robot.succeeded`."""
        return self.robot.succeeded

    def arm(self) -> None:
        """See `Robot.arm`."""
        self.robot.arm()

    def look(self) -> tuple[NDArray[Any], ...] | None:
        """See `Robot.look`."""
        return self.robot.look()

    def observe(self) -> Observation:
        """See `Robot.observe`."""
        return self.robot.observe()

    def command(self, command: Command) -> None:
        """See `Robot.command`."""
        self.robot.command(command)

    def stop(self) -> None:
        """See `Robot.stop`."""
        self.robot.stop()

    def close(self) -> None:
        """See `Robot.close`."""
        self.robot.close()


def layers(robot: Robot) -> Iterator[Robot]:
    """Yield a robot, and each one that it wraps, from the outside in."""
    yield robot
    while isinstance(robot, WrappedRobot):
        robot = robot.robot
        yield robot
