"""A dry run: a robot that is observed as in a real run, and that nothing ever arms or commands."""

from __future__ import annotations

from gatort.runtime.robot import Robot
from gatort.runtime.safety import Command, State

from .wrapped import WrappedRobot


class DryRunRobot(WrappedRobot):
    """Any robot, observed alone.

    The loop sees a robot that takes its consent and its commands. Neither goes any further.
    """

    def __init__(self, robot: Robot) -> None:
        """Take over a robot. `close` closes it."""
        super().__init__(robot)
        self._state = State.DISARMED

    @property
    def state(self) -> State:
        """State of a robot that takes all commands. The one below stays at rest."""
        return self._state

    @property
    def stop_reason(self) -> str | None:
        """See `Robot.stop_reason`. A robot that does not move is never stopped."""
        return None

    def arm(self) -> None:
        """See `Robot.arm`. The robot below hears nothing of it."""
        self._state = State.RUN

    def command(self, command: Command) -> None:
        """Drop a command."""

    def stop(self) -> None:
        """See `Robot.stop`. The robot below hears nothing of it, since it is at rest."""
        self._state = State.LATCHED
