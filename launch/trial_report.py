"""Tables and JSON of `gatort trials`."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.table import Table

from gatort.runtime.wording import counted
from gatort.sim.trials.statistics import TrialSummary
from gatort.sim.trials.sweep import FIELDS, UNITS, Sweep

from .report import percentile_record

SHOWN_REFUSALS = 3
"""Number of different last refusals in the table."""


def trial_table(name: str, summary: TrialSummary) -> Table:
    """Return the figures of one series of trials, one row each."""
    table = Table(
        title=f"{name}, {counted(summary.episodes, 'trial')} in lockstep",
        title_justify="left",
        show_header=False,
    )
    success = f"{summary.successes} of {summary.episodes}, {summary.success_rate:.1%}"
    low, high = summary.wilson_95
    table.add_row("success", success)
    table.add_row("95 % Wilson interval", f"{low:.1%} to {high:.1%}")
    table.add_row("seconds a trial", f"{summary.seconds_per_episode:.1f}")
    table.add_row("policy, ms", _latency(summary))
    if summary.reached:
        stages = (f"{stage} {count}" for stage, count in summary.reached.items())
        table.add_row("stages", ", ".join(stages))
    if summary.sparc is not None:
        table.add_row("smoothness, SPARC", f"{summary.sparc:.2f}")
    table.add_row("failed seeds", ", ".join(map(str, summary.failures)) or "none")

    refusals = Counter(refusal for refusal in summary.failures.values() if refusal is not None)
    for refusal, count in refusals.most_common(SHOWN_REFUSALS):
        table.add_row("last refusal", f"{count}× {refusal}")
    return table


def _latency(summary: TrialSummary) -> str:
    latency = summary.latency
    if latency is None:
        return "–"
    return f"p50 {latency.p50_ms:.1f}, p99 {latency.p99_ms:.1f}, max {latency.max_ms:.1f}"


def trial_record(summary: TrialSummary) -> dict[str, Any]:
    """Return the JSON form of one series of trials."""
    return {
        "episodes": summary.episodes,
        "successes": summary.successes,
        "success_rate": summary.success_rate,
        "wilson_95": summary.wilson_95,
        "seconds_per_episode": summary.seconds_per_episode,
        "latency_ms": percentile_record(summary.latency) if summary.latency is not None else {},
        "ticks": summary.ticks,
        "refused": summary.refused,
        "dropped": summary.dropped,
        "lost": summary.lost,
        "reached": dict(summary.reached),
        "sparc": summary.sparc,
        "failed_seeds": list(summary.failures),
        "failures": dict(summary.failures),
    }


def sweep_table(sweep: Sweep) -> Table:
    """Return the figures of a sweep, one row for each value."""
    table = Table(
        title=f"{sweep.name}, {counted(sweep.episodes, 'trial')} each in lockstep",
        title_justify="left",
    )
    axis = f"{sweep.axis}, {UNITS[sweep.axis]}"
    for column in (axis, "success", "95 % Wilson", "refused", "lost", "late", "missing"):
        table.add_column(column, justify="right", no_wrap=True)

    for value, summary in zip(sweep.values, sweep.results, strict=True):
        low, high = summary.wilson_95
        table.add_row(
            f"{value:g}",
            f"{summary.successes} of {summary.episodes}",
            f"{low:.0%} to {high:.0%}",
            str(summary.refused),
            str(summary.lost),
            str(summary.dropped),
            f"{summary.missing:.1%}",
        )
    return table


def sweep_record(sweep: Sweep) -> dict[str, Any]:
    """Return the JSON form of a sweep."""
    field = FIELDS[sweep.axis]
    points = [
        {field: value, **trial_record(summary), "missing": summary.missing}
        for value, summary in zip(sweep.values, sweep.results, strict=True)
    ]
    link = sweep.links[0].model_dump(exclude={field})
    return {"sweep": sweep.axis, "link": link, "points": points}
