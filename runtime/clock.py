"""Time, injected: integer monotonic nanoseconds. The only file that may call `time`."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where everything in gatort reads the time and waits."""

    def now_ns(self) -> int:
        """Nanoseconds since an arbitrary origin; never goes backwards."""
        ...

    def sleep_until_ns(self, deadline_ns: int) -> None:
        """Return once `now_ns() >= deadline_ns`; at once when it has passed."""
        ...


class MonotonicClock:
    """The machine's monotonic clock, which no change of the wall clock moves."""

    def now_ns(self) -> int:
        """See `Clock.now_ns`."""
        return time.monotonic_ns()

    def sleep_until_ns(self, deadline_ns: int) -> None:
        """See `Clock.sleep_until_ns`; Python's sleep is `clock_nanosleep` to an absolute time on
        Linux.
        """
        while (left_ns := deadline_ns - time.monotonic_ns()) > 0:
            time.sleep(left_ns * 1e-9)


class VirtualClock:
    """Time that moves only when someone sleeps or advances it, for tests, lockstep trials and
    flat-out runs.
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
    """Nanoseconds since 1970 in UTC, for names and dates alone: it jumps whenever someone sets
    it.
    """
    return time.time_ns()


def monotonic_clock_info() -> tuple[str, float]:
    """Return the implementation of `MonotonicClock` and its resolution in seconds."""
    info = time.get_clock_info("monotonic")
    return info.implementation, info.resolution
