"""What a robot is to the loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .safety import (
    Command,
    State,
)
from .spec import Interface


@dataclass(frozen=True, slots=True)
class Observation:
    """What the robot read at one instant."""

    sequence: int
    """Counts the observations of a session."""
    stamp_ns: int
    """When it was read, on the loop's clock; of several sensors the oldest."""
    values: tuple[NDArray[Any], ...]
    """One array per key in the order of the robot's interface; copies that belong to the observation."""
    applied: NDArray[np.float64]
    """(A,) what was in effect on the actuators then, in each one's unit; a copy."""


class Robot(Protocol):
    """An arm on a desk, at the other end of a wire or in a simulator, with its own watchdog behind `command`."""

    @property
    def interface(self) -> Interface:
        """What it offers to observe and takes as a command."""
        ...

    @property
    def state(self) -> State:
        """The watchdog's state as of the last `observe`, `arm` or `stop`."""
        ...

    @property
    def succeeded(self) -> bool:
        """Whether the task is done, where the robot can tell; a real arm cannot."""
        ...

    def arm(self) -> None:
        """An operator's consent to move; clears LATCHED. In SAFE nothing happens: the fade comes first.

        Raises:
            RobotError: the robot refuses.
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
        """Hand over a command; the robot drops it when it is late, repeated or not finite."""
        ...

    def stop(self) -> None:
        """Operator stop: SAFE, then LATCHED."""
        ...

    def close(self) -> None:
        """Release what the robot holds; a second call does nothing."""
        ...
