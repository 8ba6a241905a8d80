"""The contract of every clock."""

from __future__ import annotations

import pytest

from gatort.runtime.clock import Clock, MonotonicClock, VirtualClock


@pytest.fixture(params=[MonotonicClock, VirtualClock])
def clock(request: pytest.FixtureRequest) -> Clock:
    made: Clock = request.param()
    return made


def test_now_is_whole_nanoseconds_that_never_go_back(clock: Clock) -> None:
    readings = [clock.now_ns() for _ in range(100)]
    assert all(isinstance(reading, int) for reading in readings)
    assert readings == sorted(readings)


def test_sleep_returns_at_or_after_the_deadline(clock: Clock) -> None:
    deadline_ns = clock.now_ns() + 1_000_000
    clock.sleep_until_ns(deadline_ns)
    assert clock.now_ns() >= deadline_ns


def test_a_deadline_that_has_passed_is_returned_from_and_time_does_not_go_back(
    clock: Clock,
) -> None:
    before_ns = clock.now_ns()
    clock.sleep_until_ns(before_ns - 3_600_000_000_000)
    assert before_ns <= clock.now_ns()


def test_a_virtual_clock_cannot_be_advanced_backwards() -> None:
    with pytest.raises(ValueError, match="0 ns or more, found -1"):
        VirtualClock().advance_ns(-1)
