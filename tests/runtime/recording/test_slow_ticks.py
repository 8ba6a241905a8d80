"""Slow ticks: which are kept, with which neighbours, and which cause is named."""

from __future__ import annotations

from typing import Any

import pytest

from gatort.runtime.recording.causes import TimedTick, Typical, probable_cause
from gatort.runtime.recording.messages import TickMessage
from gatort.runtime.recording.slow_ticks import AROUND, SlowTick, SlowTicks

MS = 1_000_000
PERIOD_NS = 50 * MS
STAGES = ("see", "observe", "tokenize", "passes", "command")
USUAL_MS = (2, 1, 1, 6, 1)
TYPICAL = Typical(
    tick_ns=11 * MS,
    stages_ns={name: ms * MS for name, ms in zip(STAGES, USUAL_MS, strict=True)},
    passes=2,
)


def tick(number: int = 0, longer: dict[str, int] | None = None, **fields: Any) -> TickMessage:
    """A usual tick; some stages take longer by so many ms."""
    deadline_ns = number * PERIOD_NS
    stamps_ns = [deadline_ns]
    for name, usual_ms in zip(STAGES, USUAL_MS, strict=True):
        stamps_ns.append(stamps_ns[-1] + (usual_ms + (longer or {}).get(name, 0)) * MS)
    given: dict[str, Any] = {
        "deadline_ns": deadline_ns,
        "woke_ns": deadline_ns,
        "lateness_ns": 0,
        "skipped": 0,
        "cpu_ns": 11 * MS,
        **fields,
    }
    return TickMessage(tick=number, stamps_ns=stamps_ns, **given)


def cause(message: TickMessage, passes: int = 2, late_ms: int = 0) -> str:
    return probable_cause(TimedTick(0.0, message, passes, late_ms * MS, True), STAGES, TYPICAL)


@pytest.mark.parametrize(
    ("longer", "fields", "passes", "expected"),
    [
        ({}, {}, 2, "usual"),
        ({}, {"waited_ns": 8 * MS}, 2, "pre-empted"),
        ({"passes": 2}, {}, 2, "usual"),
        ({"passes": 40}, {"cpu_ns": 51 * MS}, 2, "slowed"),
        ({"passes": 40}, {}, 2, "machine paused"),
        ({"passes": 40}, {"waited_ns": MS, "preempted": 1}, 2, "machine paused"),
        ({"observe": 40}, {}, 2, "machine paused"),
        ({"passes": 40}, {"cpu_ns": 51 * MS}, 8, "computing"),
        ({"passes": 40}, {"waited_ns": 39 * MS}, 2, "pre-empted"),
        ({"passes": 40}, {"preempted": 1}, 2, "pre-empted"),
        ({"passes": 40}, {"preempted": 1, "cpu_ns": 50 * MS}, 2, "slowed"),
        ({"passes": 40}, {"cpu_ns": 51 * MS, "others_preempted": 3}, 2, "pre-empted"),
        ({"passes": 40}, {"slept": 2}, 2, "waiting"),
        ({"passes": 40}, {"cpu_ns": 51 * MS, "page_faults": 50_000}, 2, "page fault"),
        ({"passes": 40}, {"slept": 1, "page_faults": 1, "disk_faults": 1}, 2, "page fault"),
        ({"passes": 40}, {"cpu_ns": 51 * MS, "page_faults": 50}, 2, "slowed"),
        ({"see": 40}, {"slept": 4}, 2, "camera"),
        ({"observe": 40}, {"slept": 4}, 2, "robot"),
        ({"command": 40, "passes": 3}, {"slept": 4}, 2, "robot"),
        ({"see": 40}, {"waited_ns": 40 * MS}, 2, "pre-empted"),
        ({"passes": 40}, {"cpu_ns": 0}, 2, "unknown"),
    ],
)
def test_the_cause_is_the_first_that_explains_half_of_the_excess(
    longer: dict[str, int], fields: dict[str, int], passes: int, expected: str
) -> None:
    assert cause(tick(longer=longer, **fields), passes) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "machine paused"),
        ({"slack_waited_ns": 20 * MS}, "pre-empted"),
        ({"slack_cpu_ns": 20 * MS}, "slack"),
        ({"slack_cpu_ns": 2 * MS}, "machine paused"),
        ({"skipped": 1}, "slack"),
        ({"skipped": 1, "slack_waited_ns": 20 * MS}, "pre-empted"),
    ],
)
def test_a_tick_that_began_late_has_its_cause_in_the_slack_before_it(
    fields: dict[str, int], expected: str
) -> None:
    assert cause(tick(**fields), late_ms=30) == expected


def fed(*ticks: TickMessage, most: int = 3) -> list[SlowTick]:
    kept = SlowTicks(STAGES, PERIOD_NS, PERIOD_NS, most)
    for each in ticks:
        kept.add(each, 2)
    return kept.slowest(TYPICAL)


def numbers(slow: SlowTick) -> list[int]:
    return [each.timed.tick.tick for each in slow.around]


def test_misses_come_first_and_each_has_the_ticks_before_and_after() -> None:
    ticks = [tick(number) for number in range(20)]
    ticks[5] = tick(5, {"passes": 20})
    ticks[9] = tick(9, {"passes": 60})
    ticks[19] = tick(19, {"passes": 45})
    found = fed(*ticks)
    assert [each.slow.timed.tick.tick for each in found] == [9, 19, 5]
    assert [each.slow.timed.missed for each in found] == [True, True, False]
    assert [numbers(each) for each in found] == [[7, 8, 10, 11], [17, 18], [3, 4, 6, 7]]
    assert {each.cause for each in found[0].around} == {"usual"}
    assert found[0].slow.stages_ms["passes"] == pytest.approx(66)
    assert AROUND == 2


def test_a_skipped_deadline_is_a_miss_of_the_tick_after_it_unless_the_tick_before_was_running() -> (
    None
):
    idle = tick(3, skipped=2)
    (found, *_) = fed(tick(0), idle)
    assert (found.slow.timed.tick.tick, found.slow.timed.missed) == (3, True)
    assert found.slow.timed.late_ns == 2 * PERIOD_NS

    (found, *_) = fed(tick(0, {"passes": 130}), idle)
    assert found.slow.timed.tick.tick == 0
    after = found.around[-1].timed
    assert (after.tick.tick, after.missed, after.late_ns) == (3, False, 0)


def test_a_tick_that_sent_no_command_is_a_miss_within_the_budget_too() -> None:
    found = fed(tick(0, {"passes": 30}), tick(1, {"passes": 20}, reason="action late"), tick(2))
    assert [each.slow.timed.tick.tick for each in found] == [1, 0, 2]
    assert found[0].slow.timed.missed


def test_memory_is_bounded_by_the_number_of_ticks_to_keep() -> None:
    kept = SlowTicks(STAGES, PERIOD_NS, PERIOD_NS, 4)
    for number in range(500):
        kept.add(tick(number, {"passes": number}), 2)
    assert [each.slow.timed.tick.tick for each in kept.slowest(TYPICAL)] == [499, 498, 497, 496]
    assert len(kept._open) <= AROUND
    assert all(len(each.around) <= 2 * AROUND for each in kept._kept)
