from __future__ import annotations

import mmap
import time
from threading import Thread

import numpy as np
import pytest

from gatort.runtime.clock import VirtualClock
from gatort.runtime.durations import Percentiles
from gatort.runtime.pacer import Wake
from gatort.runtime.spec import PolicySpec
from gatort.runtime.telemetry import LATENESS, TICK, Passes, Telemetry
from gatort.runtime.usage import NO_USE, Usage, UsageMeter

MS = 1_000_000
PERIOD_NS = 50 * MS


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(MS)


@pytest.fixture
def telemetry(spec: PolicySpec, clock: VirtualClock) -> Telemetry:
    return Telemetry(spec, capacity=8, clock=clock)


def tick(
    telemetry: Telemetry, clock: VirtualClock, index: int, stage_ms: float = 1.0, skipped: int = 0
) -> None:
    telemetry.begin(Wake(index, index * PERIOD_NS, index * PERIOD_NS + MS // 2, skipped))
    for _ in telemetry.stages:
        clock.advance_ns(int(stage_ms * MS))
        telemetry.mark()
    telemetry.record()


def test_the_stages_are_those_of_the_loop_with_each_decode_on_its_own(telemetry: Telemetry) -> None:
    expected = "observe tokenize prefill decode_1 decode_2 detokenize guard command"
    assert telemetry.stages == tuple(expected.split())


def test_a_tick_is_stamped_stage_by_stage(telemetry: Telemetry, clock: VirtualClock) -> None:
    tick(telemetry, clock, 0)
    assert telemetry.stamps[0].tolist() == [MS * column for column in range(1, 10)]
    assert telemetry.tick_durations_ns().tolist() == [8 * MS]


def test_percentiles_are_within_the_three_digits_that_the_histogram_keeps(
    telemetry: Telemetry, clock: VirtualClock
) -> None:
    for index in range(100):
        tick(telemetry, clock, index, stage_ms=1 + index / 100)
    found = telemetry.percentiles("prefill")
    assert found.count == 100
    assert found.p50_ms == pytest.approx(1.49, rel=2e-3)
    assert found.p99_ms == pytest.approx(1.98, rel=2e-3)
    assert found.max_ms == 1.99
    assert telemetry.percentiles(TICK).max_ms == 8 * 1.99
    assert telemetry.percentiles(LATENESS).p50_ms == pytest.approx(0.5, rel=2e-3)


@pytest.mark.parametrize("count", [1, 2, 60, 1_300])
def test_percentiles_are_durations_at_their_rank_and_never_above_the_longest(count: int) -> None:
    durations_ns = np.random.default_rng(count).integers(MS, 60 * MS, count)
    found, ordered_ms = Percentiles.of_ns(durations_ns), np.sort(durations_ns) * 1e-6
    for fraction, found_ms in [(0.5, found.p50_ms), (0.99, found.p99_ms), (0.999, found.p99_9_ms)]:
        # The smallest duration that at least this share does not exceed.
        within = np.count_nonzero(ordered_ms[:, None] >= ordered_ms[None, :], axis=1) / count
        assert found_ms == pytest.approx(ordered_ms[within >= fraction - 1e-12][0], abs=1e-4)
        assert found_ms <= found.max_ms == pytest.approx(ordered_ms[-1], abs=1e-4)


def test_of_nothing_the_percentiles_are_zeros(telemetry: Telemetry) -> None:
    assert telemetry.percentiles(TICK) == Percentiles.of_ns(telemetry.tick_durations_ns())
    assert telemetry.percentiles(TICK).count == 0
    assert telemetry.summary() == []


def test_the_ring_keeps_the_newest_ticks_in_order(
    telemetry: Telemetry, clock: VirtualClock
) -> None:
    for index in range(11):
        tick(telemetry, clock, index, stage_ms=index)
    assert telemetry.tick_durations_ns().tolist() == [8 * index * MS for index in range(3, 11)]
    assert telemetry.ticks == 11


def test_a_refused_tick_counts_as_far_as_it_came(telemetry: Telemetry, clock: VirtualClock) -> None:
    tick(telemetry, clock, 0)
    telemetry.begin(Wake(1, PERIOD_NS, PERIOD_NS, 0))
    clock.advance_ns(60 * MS)
    telemetry.mark()
    telemetry.record()
    assert (telemetry.refused, telemetry.misses) == (1, 1)
    assert telemetry.percentiles(TICK).max_ms == telemetry.percentiles("observe").max_ms == 60
    assert telemetry.percentiles("tokenize").count == 1
    assert telemetry.stage_durations_ns()[1].tolist() == [60 * MS, 0, 0, 0, 0, 0, 0, 0]


def test_the_summary_has_the_tick_and_the_stages_that_were_reached(telemetry: Telemetry) -> None:
    telemetry.begin(Wake(0, 0, 0, 0))
    telemetry.mark()
    telemetry.record()
    assert [name for name, _ in telemetry.summary()] == ["tick", "observe"]


def test_a_tick_over_the_budget_and_the_deadline_that_it_passed_are_one_miss(
    telemetry: Telemetry, clock: VirtualClock
) -> None:
    tick(telemetry, clock, 0)
    tick(telemetry, clock, 1, stage_ms=7)
    assert telemetry.misses == 1
    tick(telemetry, clock, 3, skipped=1)
    assert telemetry.misses == 1
    tick(telemetry, clock, 6, skipped=2)
    assert telemetry.misses == 3


def test_a_budget_below_the_period_is_held_too(spec: PolicySpec, clock: VirtualClock) -> None:
    telemetry = Telemetry(spec, clock=clock, budget_ns=7 * MS)
    tick(telemetry, clock, 0)
    assert telemetry.misses == 1


def test_the_rate_is_counted_by_deadlines_and_remembers_the_worst_second(
    telemetry: Telemetry, clock: VirtualClock
) -> None:
    skipped_ticks = {25, 26, 27}
    for index in range(61):
        if index not in skipped_ticks:
            tick(telemetry, clock, index)
    rate = telemetry.rate
    assert rate.now_hz == 20
    assert rate.worst_second_hz == 17
    assert rate.average_hz == pytest.approx(57 / 3.0)


def test_a_second_without_any_tick_is_the_worst(telemetry: Telemetry, clock: VirtualClock) -> None:
    for index in [*range(20), *range(60, 81)]:
        tick(telemetry, clock, index)
    assert telemetry.rate.worst_second_hz == 0


def test_before_the_first_second_is_over_the_average_stands_for_it(
    telemetry: Telemetry, clock: VirtualClock
) -> None:
    assert telemetry.rate.now_hz == 0
    for index in range(5):
        tick(telemetry, clock, index)
    assert telemetry.rate.now_hz == telemetry.rate.worst_second_hz == pytest.approx(20)


def test_its_memory_is_fixed_when_it_is_made(telemetry: Telemetry, clock: VirtualClock) -> None:
    before = telemetry.stamps.ctypes.data
    for index in range(50):
        tick(telemetry, clock, index)
    assert telemetry.stamps.ctypes.data == before
    assert telemetry.stamps.shape == (8, 9)
    assert telemetry.stamps.dtype == np.int64


def test_each_tick_has_the_use_of_the_machine_by_the_loops_thread(
    telemetry: Telemetry, clock: VirtualClock
) -> None:
    telemetry.begin(Wake(0, 0, 0, 0))
    with mmap.mmap(-1, 4 << 20) as fresh:  # Pages that were never touched before.
        fresh.write(b"\1" * len(fresh))
    began_ns = time.thread_time_ns()
    while time.thread_time_ns() < began_ns + 20 * MS:  # The kernel may count in steps of 4 ms.
        pass
    telemetry.mark()
    telemetry.record()
    assert telemetry.usage.page_faults > 0
    assert telemetry.usage.cpu_ns > 0
    assert telemetry.slack == NO_USE  # Before the first tick nothing was read.


def test_the_slack_between_two_ticks_is_counted_for_itself(
    telemetry: Telemetry, clock: VirtualClock
) -> None:
    tick(telemetry, clock, 0)
    began_ns = time.thread_time_ns()
    while time.thread_time_ns() < began_ns + 20 * MS:
        pass
    tick(telemetry, clock, 1)
    assert telemetry.slack.cpu_ns >= 10 * MS
    assert telemetry.usage.cpu_ns < 10 * MS


def test_the_counters_are_those_of_the_thread_that_reads_them() -> None:
    meter = UsageMeter()
    meter.read()
    found: list[Usage] = []

    def read() -> None:
        meter.read()
        found.append(meter.read())

    before = meter.read()
    thread = Thread(target=read)
    thread.start()
    thread.join()
    after = meter.read().since(before)
    assert after.slept > 0  # It waited for the other thread.
    assert found[0].cpu_ns < before.cpu_ns


def test_passes_are_counted_by_tick_and_right_guesses_by_actuator() -> None:
    passes = Passes(("shoulder", "elbow", "hand"), np.array([0, 0, 3, 1]), np.array([2, 0]))
    assert passes.saved
    assert passes.mean == 2.25
    assert [passes.quantile(share) for share in (0.5, 0.75, 0.76)] == [2, 2, 3]
    assert passes.most == 3
    assert passes.right_shares == {"shoulder": 0.5, "elbow": 0.0}


def test_a_loop_on_a_greedy_engine_saves_no_pass(telemetry: Telemetry) -> None:
    assert not telemetry.passes.saved
    telemetry.passes.ticks[len(telemetry.passes.actuators)] += 1
    assert not telemetry.passes.saved
    assert telemetry.passes.most == len(telemetry.passes.actuators)
