"""The contract of a device with which a person drives: each tick it gives a wish."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from gatort.runtime.robot import Observation
from gatort.runtime.robots.kinematics import Array


def still() -> Array:
    """Return a velocity of zero, (3,)."""
    return np.zeros(3)


@dataclass(frozen=True, slots=True)
class Wish:
    """A person's wish at one instant. W is the frame of the arm's base."""

    stamp_ns: int
    """Last sign of life of the device, on the loop's clock. It need not be a motion of the
    person."""
    drives: bool = False
    """True from the person's request to take the arm over until they give it back."""
    linear_m_s: Array = field(default_factory=still)
    """Velocity of the tool in W, (3,)."""
    angular_rad_s: Array = field(default_factory=still)
    """Angular velocity of the tool in W, (3,)."""
    width_m: float | None = None
    """Wanted opening of the gripper; `None` leaves it as it is."""
    stops: bool = False
    """True if the person asks for the operator's stop."""


class TakeoverDevice(Protocol):
    """A keyboard, a gamepad, a SpaceMouse, or a script."""

    name: str
    """Name for tables, such as `keyboard`."""
    help: str
    """Keys or buttons of the device, in one line."""

    def wish(self, observation: Observation) -> Wish:
        """Return the newest wish. Never wait.

        Args:
            observation: the tick's observation, for a script.
        """
        ...

    def listening(self) -> AbstractContextManager[None]:
        """Return a context in which the device is heard."""
        ...
