from __future__ import annotations

import gc

import pytest

from gatort.runtime.clock import VirtualClock
from gatort.runtime.errors import ConfigError
from gatort.runtime.pacer import Pacer

PERIOD_NS = 50_000_000


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(123)


@pytest.fixture
def pacer(clock: VirtualClock) -> Pacer:
    pacer = Pacer(clock, PERIOD_NS)
    pacer.start()
    return pacer


def test_deadlines_are_absolute_so_work_of_any_length_below_a_period_adds_no_drift(
    clock: VirtualClock, pacer: Pacer
) -> None:
    woke = []
    for work_ns in (0, 1, 49_999_999, 30_000_000, 50_000_000):
        woke.append(pacer.wait().woke_ns - 123)
        clock.advance_ns(work_ns)
    assert woke == [0, PERIOD_NS, 2 * PERIOD_NS, 3 * PERIOD_NS, 4 * PERIOD_NS]
    assert pacer.skipped == 0


@pytest.mark.parametrize(
    ("late_ns", "skipped"), [(1, 1), (PERIOD_NS, 1), (PERIOD_NS + 1, 2), (10 * PERIOD_NS, 10)]
)
def test_deadlines_that_have_passed_are_skipped_and_counted_without_a_burst(
    clock: VirtualClock, pacer: Pacer, late_ns: int, skipped: int
) -> None:
    pacer.wait()
    clock.advance_ns(PERIOD_NS + late_ns)
    wake = pacer.wait()
    assert (wake.skipped, wake.tick) == (skipped, 1 + skipped)
    assert wake.woke_ns == wake.deadline_ns == 123 + (1 + skipped) * PERIOD_NS
    after = pacer.wait()
    assert (after.skipped, after.woke_ns) == (0, wake.woke_ns + PERIOD_NS)


def test_the_first_tick_comes_at_once_even_when_starting_took_a_moment(
    clock: VirtualClock, pacer: Pacer
) -> None:
    clock.advance_ns(1_000)
    wake = pacer.wait()
    assert (wake.tick, wake.skipped, wake.lateness_ns) == (0, 0, 1_000)


def test_starting_again_forgets_the_past(clock: VirtualClock, pacer: Pacer) -> None:
    pacer.wait()
    clock.advance_ns(7 * PERIOD_NS)
    pacer.start()
    assert pacer.wait().skipped == 0
    assert pacer.skipped == 0


def test_a_period_of_zero_is_refused(clock: VirtualClock) -> None:
    with pytest.raises(ConfigError, match="above 0 ns, found 0"):
        Pacer(clock, 0)


class Node:
    def __init__(self) -> None:
        self.myself = self


def test_garbage_is_collected_in_the_slack_and_left_when_there_is_none(clock: VirtualClock) -> None:
    pacer = Pacer(clock, PERIOD_NS, collect_garbage=True)
    gc.collect()
    gc.disable()
    try:
        pacer.start()
        pacer.wait()
        Node()
        clock.advance_ns(PERIOD_NS - 1_000_000)
        pacer.wait()
        assert gc.get_count()[0] > 0
        assert gc.collect(0) == 1
        Node()
        pacer.wait()
        assert gc.collect(0) == 0
    finally:
        gc.enable()


class Collector:
    """Stand-in for `gc.collect`: notes the generation, and takes a given time."""

    def __init__(self, clock: VirtualClock) -> None:
        self.collected: list[int] = []
        self.takes_ns = {0: 0, 1: 0, 2: 0}
        self._clock = clock

    def collect(self, generation: int) -> int:
        self.collected.append(generation)
        self._clock.advance_ns(self.takes_ns[generation])
        return 0


@pytest.fixture
def collector(clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> Collector:
    collector = Collector(clock)
    monkeypatch.setattr("gatort.runtime.pacer.gc.collect", collector.collect)
    return collector


def wait_often(pacer: Pacer, ticks: int) -> None:
    pacer.start()
    for _ in range(ticks):
        pacer.wait()


def test_young_generations_are_collected_often_and_the_last_one_once_a_minute(
    clock: VirtualClock, collector: Collector
) -> None:
    wait_often(Pacer(clock, PERIOD_NS, collect_garbage=True), 2_401)
    # Tick 0 has no slack before it.
    assert [collector.collected.count(generation) for generation in range(3)] == [2_280, 118, 2]
    assert collector.collected[19] == 1
    assert collector.collected[1_199] == 2


def test_the_last_generation_is_left_where_twice_its_last_duration_does_not_fit(
    clock: VirtualClock, collector: Collector
) -> None:
    collector.takes_ns[2] = 23_000_000  # twice that and the margin of 5 ms are more than a period
    wait_often(Pacer(clock, PERIOD_NS, collect_garbage=True), 3_601)
    assert collector.collected.count(2) == 1
    assert collector.collected[2_399] == 1


def test_one_slow_collection_of_the_youngest_is_forgotten_when_an_older_one_was_fast(
    clock: VirtualClock, collector: Collector
) -> None:
    pacer = Pacer(clock, PERIOD_NS, collect_garbage=True)
    collector.takes_ns[0] = 30_000_000
    wait_often(pacer, 19)
    assert collector.collected == [0]
    collector.takes_ns[0] = 0
    pacer.wait()
    assert collector.collected == [0]
    pacer.wait()
    pacer.wait()
    assert collector.collected == [0, 1, 0]
