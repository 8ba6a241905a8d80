"""The interface of an arm to an injection, in a process or on a virtual clock."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from gatort.runtime.robot import Robot

from .sensor_memory import SensorMemory
from .trace import Trace


class DrivenArm(Protocol):
    """An arm that a fault's controller drives, and its trace."""

    @property
    def trace(self) -> Trace:
        """Trace of the inner loop."""
        ...

    def rest(self) -> None:
        """Wait until the arm takes no commands and the safe command is in effect."""
        ...

    def connect(self) -> AbstractContextManager[Robot]:
        """Connect a controller."""
        ...


class BenchArm(DrivenArm, Protocol):
    """A simulated arm that the bench started itself."""

    @property
    def sensors(self) -> SensorMemory:
        """Memory that makes the sensors fail on demand."""
        ...

    def counted(self, what: str) -> int:
        """Return a counter of the arm's side, such as `commands dropped`."""
        ...

    def press(self, key: bytes) -> None:
        """Press a key on the arm's console."""
        ...
