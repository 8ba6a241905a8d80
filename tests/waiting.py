"""Waits of tests with threads and processes, for facts that must come true within whole seconds."""

from __future__ import annotations

from collections.abc import Callable

from gatort.runtime.clock import MonotonicClock

LONGEST_WAIT_S = 20
LOOK_NS = 1_000_000


def becomes(true: Callable[[], bool], within_s: float) -> bool:
    """Wait until another thread or process has made a condition true. Return whether it did."""
    clock = MonotonicClock()
    deadline_ns = clock.now_ns() + round(within_s * 1e9)
    while not true():
        if clock.now_ns() >= deadline_ns:
            return true()
        clock.sleep_until_ns(clock.now_ns() + LOOK_NS)
    return True


def eventually(true: Callable[[], bool]) -> None:
    """Wait, for at most 20 s, until another thread has made a condition true."""
    assert becomes(true, LONGEST_WAIT_S), "it never became true"
