"""The computing witness: shows when a machine pauses a process that computes.

The hypervisor of a shared machine may pause a computing process for up to 40 ms. The kernel then
reports no steal, and a thread that only sleeps wakes in time. A fixed piece of computing, done at
the rhythm of the control loop, shows these pauses. A measurement that misses a time bound on such
a machine says nothing about gatort. So every measurement has a witness and reports its pauses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from .clock import Clock
from .durations import Percentiles

PERIOD_NS = 50_000_000
"""The control loop's own rhythm, 20 Hz."""
WORK_NS = 4_000_000
"""Duration of the work without a pause; a tick of the control loop computes for about as long."""
CALIBRATIONS = 20


@dataclass(frozen=True, slots=True)
class WitnessReport:
    """Durations of the witness's work over a stretch of time."""

    periods: int
    """Number of times that the work was done."""
    work_ms: float
    """Shortest duration: the work without a pause. ms"""
    p50_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def of_ns(cls, took_ns: NDArray[np.int64]) -> Self:
        """Summarise durations (N,) in ns, N ≥ 1."""
        found = Percentiles.of_ns(took_ns)
        shortest_ms = float(took_ns.min() * 1e-6)
        return cls(found.count, shortest_ms, found.p50_ms, found.p99_ms, found.max_ms)

    @property
    def pause_ms(self) -> float:
        """Longest pause: the longest duration less the shortest, in ms."""
        return self.max_ms - self.work_ms

    @property
    def sentence(self) -> str:
        """The longest pause in words, for tables and verdicts."""
        return f"this machine paused a {self.work_ms:.1f} ms computation for {self.pause_ms:.0f} ms"


class Witness:
    """Does one fixed piece of work in every period and times it."""

    def __init__(self, clock: Clock, work: Callable[[], None] | None = None) -> None:
        """Prepare the work.

        Args:
            clock: times the work and paces it.
            work: replaces the calibrated work of about `WORK_NS`.
        """
        self._clock, self._work = clock, work or calibrated_work(clock)
        self._deadline_ns = clock.now_ns()

    def period(self) -> tuple[int, int]:
        """Wait for the next period and do the work. Return its beginning and duration, in ns."""
        self._deadline_ns = max(self._deadline_ns + PERIOD_NS, self._clock.now_ns())
        self._clock.sleep_until_ns(self._deadline_ns)

        began_ns = self._clock.now_ns()
        self._work()
        return began_ns, self._clock.now_ns() - began_ns

    def observe(self, seconds: float) -> WitnessReport:
        """Do the work for so many seconds, in one period at least."""
        periods = max(1, round(seconds * 1e9 / PERIOD_NS))
        return WitnessReport.of_ns(np.array([self.period()[1] for _ in range(periods)]))


def calibrated_work(clock: Clock) -> Callable[[], None]:
    """Return a fixed amount of Python and NumPy work that takes about `WORK_NS` here."""
    values = np.linspace(0.0, 1.0, 256)
    sines = np.empty_like(values)

    def work(rounds: int) -> None:
        for _ in range(rounds):
            np.sin(values, out=sines)

    def took_ns(rounds: int) -> int:
        began_ns = clock.now_ns()
        work(rounds)
        return clock.now_ns() - began_ns

    tried = 100
    shortest_ns = max(1, min(took_ns(tried) for _ in range(CALIBRATIONS)))
    return lambda: work(max(1, tried * WORK_NS // shortest_ns))
