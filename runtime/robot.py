"""The loop's view of a robot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .safety import Command, State
from .spec import Interface


@dataclass(frozen=True, slots=True)
class Observation:
    """The robot's sensors at one instant."""

    sequence: int
    """Count of the observations of a session."""
    stamp_ns: int
    """Instant of the reading on the loop's clock; the oldest of several sensors counts."""
    values: tuple[NDArray[Any], ...]
    """One array per key, in the order of the robot's interface; copies that belong to the
    observation."""
    applied: NDArray[np.float64]
    """(A,) values in effect on the actuators at that instant, in each one's unit; a copy."""


class Robot(Protocol):
    """An arm on a desk, at the other end of a wire or in a simulator.

    Its own watchdog stands behind `command`.
    """

    @property
    def interface(self) -> Interface:
        """Keys that it offers, actuators that it takes, and its timing."""
        ...

    @property
    def state(self) -> State:
        """State of the watchdog as of the last `observe`, `arm` or `stop`."""
        ...

    @property
    def stop_reason(self) -> str | None:
        """Clause that says why the robot was stopped since it was last armed; `None` if it was not.

        It is as old as `state`.
        """
        ...

    @property
    def succeeded(self) -> bool:
        """True if the task is done. For a real arm, its operator tells so with a key."""
        ...

    def arm(self) -> None:
        """Take an operator's consent to move; clears LATCHED.

        In SAFE nothing happens: the fade comes first.

        Raises:
            RobotError: the robot refuses.
        """
        ...

    def look(self) -> tuple[NDArray[Any], ...] | None:
        """Take the pictures of the next `observe` ahead of the joints.

        A policy tokenizes them while the joints are not yet read. The next observation holds these
        very arrays. They are copies, and nobody writes to them. If no observation follows within a
        period, the next one has fresh pictures.

        Returns:
            One array per image key, in the interface's order; `None` if this robot gives its
            pictures with the joints, or has none.

        Raises:
            ObservationError: a camera has nothing fresh; the next call may succeed.
            RobotError: the robot failed.
        """
        ...

    def observe(self) -> Observation:
        """Read the sensors now.

        Raises:
            ObservationError: nothing was read in time; the next call may succeed.
            RobotError: the robot no longer answers.
        """
        ...

    def command(self, command: Command) -> None:
        """Hand over a command. The robot drops one that is late, repeated or not finite."""
        ...

    def stop(self) -> None:
        """Stop for the operator: SAFE, then LATCHED."""
        ...

    def close(self) -> None:
        """Release everything that the robot holds; a second call does nothing."""
        ...
