"""A recording's summary counts its messages."""

from __future__ import annotations

from gatort.runtime.recording.messages import TickMessage
from gatort.runtime.recording.reader import Stamped
from gatort.runtime.recording.summary import RecordingSummary
from gatort.runtime.telemetry import Misses


def test_a_tick_over_the_budget_and_the_deadline_that_it_skips_are_one_miss() -> None:
    summary = RecordingSummary(Misses(budget_ns=50))
    for took_ns, skipped in ((50, 0), (51, 0), (10, 1), (10, 2), (99, 0)):
        tick = TickMessage(
            tick=0,
            deadline_ns=0,
            woke_ns=0,
            lateness_ns=0,
            skipped=skipped,
            stamps_ns=[1_000, 1_000 + took_ns],
        )
        summary.take(Stamped(0, 1, tick))
    assert summary.misses.total == 1 + 0 + 2 + 1
