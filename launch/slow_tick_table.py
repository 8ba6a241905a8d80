"""Slow ticks in a table and as JSON, with stages and probable cause."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from rich.table import Table

from gatort.runtime.recording.slow_ticks import ExplainedTick, SlowTick

LONGEST_STAGES: Final = 2
"""Number of stages of a slow tick in the table; JSON has all."""
CAPTION: Final = (
    "ms: from wake-up to command; late: lost before the wake-up; CPU: computed by the loop's "
    "thread; wait: ready to run, without a core"
)


def slow_tick_table(ticks: Sequence[SlowTick], title: str) -> Table:
    """Lay out slow ticks, the causes, and the stages that took most of each."""
    table = Table(
        title=title,
        title_justify="left",
        caption=CAPTION,
        caption_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
    )
    for column in ("tick", "at s", "ms", "late", "CPU", "wait"):
        table.add_column(column, justify="right")
    table.add_column("page faults", justify="right", max_width=6)
    table.add_column("cause", style="bold", no_wrap=True)
    table.add_column("longest stages, ms", overflow="fold")
    for each in ticks:
        timed = each.slow.timed
        tick = timed.tick
        stages = sorted(each.slow.stages_ms.items(), key=lambda stage: -stage[1])
        durations_ns = (tick.took_ns, timed.late_ns, tick.cpu_ns, tick.waited_ns)
        table.add_row(
            str(tick.tick),
            f"{timed.s:.2f}",
            *(f"{value_ns * 1e-6:.1f}" for value_ns in durations_ns),
            str(tick.page_faults),
            each.slow.cause,
            ", ".join(f"{name} {value_ms:.1f}" for name, value_ms in stages[:LONGEST_STAGES]),
        )
    return table


def slow_tick_records(ticks: Sequence[SlowTick]) -> list[dict[str, Any]]:
    """Return the JSON form, with the ticks around each."""
    return [
        {**_record(each.slow), "around": [_record(neighbour) for neighbour in each.around]}
        for each in ticks
    ]


def _record(explained: ExplainedTick) -> dict[str, Any]:
    timed = explained.timed
    tick = timed.tick
    return {
        "tick": tick.tick,
        "s": timed.s,
        "cause": explained.cause,
        "missed": timed.missed,
        "took_ms": tick.took_ns * 1e-6,
        "late_ms": timed.late_ns * 1e-6,
        "skipped": tick.skipped,
        "stages_ms": explained.stages_ms,
        "passes": timed.passes,
        "cpu_ms": tick.cpu_ns * 1e-6,
        "waited_ms": tick.waited_ns * 1e-6,
        "page_faults": tick.page_faults,
        "disk_faults": tick.disk_faults,
        "preempted": tick.preempted,
        "slept": tick.slept,
        "others_preempted": tick.others_preempted,
        "slack_cpu_ms": tick.slack_cpu_ns * 1e-6,
        "slack_waited_ms": tick.slack_waited_ns * 1e-6,
        "refusal": tick.refusal or None,
    }
