"""A robot without physics: a real inner loop, and observations from a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.clock import Clock
from gatort.runtime.spec import PolicySpec

from .driver import INNER_PERIOD_NS, Driver


class ScriptedRobot(Driver):
    """A fake arm with a real inner loop and watchdog. Nothing moves."""

    def __init__(
        self,
        spec: PolicySpec,
        clock: Clock,
        read: Callable[[int], Sequence[NDArray[Any]]] | None = None,
    ) -> None:
        """Stand in for a robot with the policy's own interface.

        Args:
            spec: observation keys and actuators.
            clock: the clock that the inner loop follows.
            read: returns the values of the observation with a given sequence number. Zeros when
                absent.
        """
        super().__init__(spec, clock)
        self._script = read or (
            lambda _: [np.zeros(key.shape, key.dtype) for key in spec.observations]
        )
        self._stepped_ns = clock.now_ns()

    def _advance(self, now_ns: int) -> None:
        while self._stepped_ns + INNER_PERIOD_NS <= now_ns:
            self._stepped_ns += INNER_PERIOD_NS
            self._in_effect(self._stepped_ns)

    def _read(self) -> tuple[int, Sequence[NDArray[Any]]]:
        return self._clock.now_ns(), self._script(self._sequence)

    def close(self) -> None:
        """Do nothing: a scripted robot holds nothing."""
