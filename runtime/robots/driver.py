"""An arm that this process drives: the inner loop and its watchdog around an arm's own two methods.

A real arm is one file: a subclass that steps the arm and reads its sensors. A simulated one steps its physics up to
the clock's present, so that one class serves the wall clock and a virtual one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.clock import Clock
from gatort.runtime.inner_loop import InnerLoop
from gatort.runtime.robot import Observation
from gatort.runtime.safety import (
    Command,
    State,
)
from gatort.runtime.spec import (
    Interface,
)

INNER_PERIOD_NS = 1_000_000

OnStep = Callable[[int, State, NDArray[np.float64]], None]
"""What sees each inner step: its instant in ns, the watchdog's state, the values (A,) in effect; they change later."""


class Driver(ABC):
    """Implements `Robot`; an arm adds `_advance` and `_read`."""

    own_pace: ClassVar[bool] = False
    """Whether `advance` waits for the arm's own next cycle, so that nobody else has to."""

    def __init__(
        self, interface: Interface, clock: Clock, safe_after_ns: int | None = None
    ) -> None:
        """Start disarmed.

        Args:
            interface: what the arm offers and takes.
            clock: when it is.
            safe_after_ns: see `InnerLoop`.
        """
        self.interface = interface
        self.inner_loop = InnerLoop(interface, safe_after_ns)
        self.on_step: OnStep | None = None
        """Called after each inner step; must return at once."""
        self._clock = clock
        self._sequence = 0

    @abstractmethod
    def _advance(self, now_ns: int) -> None:
        """Bring the arm to now: an inner step a millisecond, each with what `_in_effect` gives for its instant.

        The commanded torque leaves out gravity and Coriolis forces: the arm adds them, and damping.

        Raises:
            RobotError: the arm failed.
        """

    @abstractmethod
    def _read(self) -> tuple[int, Sequence[NDArray[Any]]]:
        """When the oldest of the sensors was read, in ns on the clock, and an array of its own for each key.

        Raises:
            ObservationError: a sensor gives nothing; the next reading may succeed.
        """

    @property
    def state(self) -> State:
        """See `Robot.state`."""
        return self.inner_loop.state

    @property
    def succeeded(self) -> bool:
        """See `Robot.succeeded`."""
        return False

    def arm(self) -> None:
        """See `Robot.arm`."""
        self.advance()
        self.inner_loop.arm(self._clock.now_ns())

    def advance(self) -> None:
        """Bring the arm to the clock's present; what is called every millisecond on the wall clock.

        Raises:
            RobotError: the arm failed.
        """
        self._advance(self._clock.now_ns())

    def observe(self) -> Observation:
        """See `Robot.observe`."""
        self.advance()
        self._sequence += 1
        stamp_ns, values = self._read()
        return Observation(
            self._sequence, stamp_ns, tuple(values), self.inner_loop.in_effect.copy()
        )

    def command(self, command: Command) -> None:
        """See `Robot.command`."""
        self.inner_loop.accept(command, self._clock.now_ns())

    def stop(self) -> None:
        """See `Robot.stop`."""
        self.inner_loop.stop(self._clock.now_ns())

    @abstractmethod
    def close(self) -> None:
        """Release what the arm holds; a second call does nothing."""

    def _in_effect(self, at_ns: int) -> NDArray[np.float64]:
        """Values (A,) in effect at an inner step's instant; the array changes with the next step."""
        values = self.inner_loop.step(at_ns)
        if self.on_step is not None:
            self.on_step(at_ns, self.inner_loop.state, values)
        return values
