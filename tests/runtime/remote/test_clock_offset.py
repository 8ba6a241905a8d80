"""The offset of two clocks from made-up exchanges."""

from __future__ import annotations

import pytest

from gatort.runtime.remote.clock_offset import EXCHANGES, ClockOffset

MS = 1_000_000
AN_HOUR_NS = 3_600_000 * MS


def exchange(offset: ClockOffset, sent_ns: int, there_ns: int, back_ns: int) -> None:
    """Add an exchange with a clock that is an hour ahead and takes 2 ms to answer."""
    received_ns = sent_ns + there_ns + AN_HOUR_NS
    answered_ns = received_ns + 2 * MS
    offset.measure(sent_ns, received_ns, answered_ns, answered_ns - AN_HOUR_NS + back_ns)


def test_before_any_exchange_the_clocks_count_as_equal() -> None:
    offset = ClockOffset()
    assert offset.ns == 0
    assert offset.round_trips.count == 0


def test_the_offset_is_exact_when_both_ways_take_as_long() -> None:
    offset = ClockOffset()
    exchange(offset, 0, there_ns=3 * MS, back_ns=3 * MS)
    assert offset.ns == AN_HOUR_NS


def test_the_offset_errs_by_half_the_difference_of_the_two_ways() -> None:
    offset = ClockOffset()
    exchange(offset, 0, there_ns=9 * MS, back_ns=MS)
    assert offset.ns == AN_HOUR_NS + 4 * MS


def test_the_shortest_of_the_newest_round_trips_decides() -> None:
    offset = ClockOffset()
    exchange(offset, 0, there_ns=9 * MS, back_ns=MS)
    exchange(offset, 20 * MS, there_ns=MS, back_ns=MS)
    exchange(offset, 40 * MS, there_ns=MS, back_ns=9 * MS)
    assert offset.ns == AN_HOUR_NS
    for tick in range(EXCHANGES):
        exchange(offset, 60 * MS + tick, there_ns=3 * MS, back_ns=5 * MS)
    assert offset.ns == AN_HOUR_NS - MS
    assert (offset.round_trips.count, round(offset.round_trips.max_ms)) == (EXCHANGES + 3, 10)


@pytest.mark.parametrize(
    "stamps", [(0, 10, 9, 20), (0, 10, 40, 20)], ids=["answered before received", "negative trip"]
)
def test_stamps_that_contradict_each_other_are_ignored(stamps: tuple[int, int, int, int]) -> None:
    offset = ClockOffset()
    offset.measure(*stamps)
    assert (offset.ns, offset.round_trips.count) == (0, 0)
