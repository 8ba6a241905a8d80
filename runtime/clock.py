"""Time, injected: integer monotonic nanoseconds. Only this file may call `time`."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Source of the time, and the only way to wait."""

    def now_ns(self) -> int:
        """Return the nanoseconds since an arbitrary origin; they never go backwards."""
        ...

    def sleep_until_ns(self, deadline_ns: int) -> None:
        """Return once `now_ns() >= deadline_ns`; at once for a deadline in the past."""
        ...


class MonotonicClock:
    """The machine's monotonic clock, which no change of the wall clock moves."""

    def now_ns(self) -> int:
        """See `Clock.now_ns`."""
        return time.monotonic_ns()

    def sleep_until_ns(self, deadline_ns: int) -> None:
        """See `Clock.sleep_until_ns`. On Linux, Python sleeps to an absolute time."""
        while (left_ns := deadline_ns - time.monotonic_ns()) > 0:
            time.sleep(left_ns * 1e-9)


class VirtualClock:
    """Time that moves only when someone sleeps or advances it.

    It serves tests, trials in lockstep and flat-out runs.
    """

    def __init__(self, now_ns: int = 0) -> None:
        self._now_ns = now_ns

    def now_ns(self) -> int:
        """See `Clock.now_ns`."""
        return self._now_ns

    def sleep_until_ns(self, deadline_ns: int) -> None:
        """Jump to the deadline."""
        self._now_ns = max(self._now_ns, deadline_ns)

    def advance_ns(self, duration_ns: int) -> None:
        """Let `duration_ns` ≥ 0 pass, as slow work would.

        Raises:
            ValueError: the duration is negative; monotonic time does not go back.
        """
        if duration_ns < 0:
            raise ValueError(f"expected a duration of 0 ns or more, found {duration_ns}")
        self._now_ns += duration_ns


def wall_clock_ns() -> int:
    """Return the nanoseconds since 1970 in UTC.

    Use them for names and dates alone: they jump whenever someone sets the clock.
    """
    return time.time_ns()


def monotonic_clock_info() -> tuple[str, float]:
    """Return the implementation of `MonotonicClock` and its resolution in seconds."""
    info = time.get_clock_info("monotonic")
    return info.implementation, info.resolution
