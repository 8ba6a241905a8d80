"""What a robot is to the loop, and a scripted one for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .clock import Clock
from .inner_loop import InnerLoop
from .safety import Command, State
from .spec import Actuator, ObservationKey, PolicySpec


@dataclass(frozen=True, slots=True)
class Observation:
    """What the robot read at one instant."""

    sequence: int
    """Counts the observations of a session."""
    stamp_ns: int
    """When it was read, on the robot's clock."""
    values: tuple[NDArray[Any], ...]
    """One array per key in the order of the robot's `observation_keys`; copies that belong to the observation."""


class Robot(Protocol):
    """An arm on a desk or in a simulator, with its own watchdog behind `command`.

    A robot in this process steps its physics and its inner loop up to the clock's now inside `observe`, so that one
    class serves the wall clock and a virtual one.
    """

    @property
    def observation_keys(self) -> Sequence[ObservationKey]:
        """Every key that an observation holds, in order."""
        ...

    @property
    def actuators(self) -> Sequence[Actuator]:
        """What a command's values mean, in order."""
        ...

    @property
    def state(self) -> State:
        """The watchdog's state as of the last `observe`, `arm` or `stop`."""
        ...

    def arm(self) -> None:
        """An operator's consent to move; clears SAFE and LATCHED.

        Raises:
            RobotError: the robot refuses.
        """
        ...

    def observe(self) -> Observation:
        """Read the sensors now.

        Raises:
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


_INNER_PERIOD_NS = 1_000_000


class ScriptedRobot:
    """A fake with a real inner loop: observations from a function, and no physics."""

    def __init__(
        self,
        spec: PolicySpec,
        clock: Clock,
        read: Callable[[int], Sequence[NDArray[Any]]] | None = None,
        trace: bool = False,
    ) -> None:
        """Stand in for a robot with the policy's own interface.

        Args:
            spec: keys and actuators.
            clock: when it is.
            read: values for an observation's sequence number; zeros when absent.
            trace: keep (time in ns, values in effect) of every inner step in `trace`.
        """
        self.observation_keys, self.actuators = spec.observations, spec.actuators
        self.inner_loop = InnerLoop(spec)
        self.trace: list[tuple[int, tuple[float, ...]]] = []
        self._clock, self._traced = clock, trace
        self._read = read or (lambda _: [np.zeros(key.shape, key.dtype) for key in spec.observations])
        self._sequence = 0
        self._stepped_ns = clock.now_ns()

    @property
    def state(self) -> State:
        """See `Robot.state`."""
        return self.inner_loop.state

    def arm(self) -> None:
        """See `Robot.arm`."""
        self._step()
        self.inner_loop.arm(self._clock.now_ns())

    def observe(self) -> Observation:
        """See `Robot.observe`."""
        self._step()
        self._sequence += 1
        return Observation(self._sequence, self._clock.now_ns(), tuple(self._read(self._sequence)))

    def command(self, command: Command) -> None:
        """See `Robot.command`."""
        self.inner_loop.accept(command, self._clock.now_ns())

    def stop(self) -> None:
        """See `Robot.stop`."""
        self.inner_loop.stop(self._clock.now_ns())

    def close(self) -> None:
        """See `Robot.close`."""

    def _step(self) -> None:
        """Run the inner loop at 1 kHz up to now."""
        now_ns = self._clock.now_ns()
        while self._stepped_ns + _INNER_PERIOD_NS <= now_ns:
            self._stepped_ns += _INNER_PERIOD_NS
            values = self.inner_loop.step(self._stepped_ns)
            if self._traced:
                self.trace.append((self._stepped_ns, tuple(values)))
