"""`gatort info`: the contents of a recording."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import NonNegativeInt
from rich.table import Table
from rich.text import Text

from gatort.launch.outputs import require_writable
from gatort.launch.report import alarming, screen, write_json
from gatort.runtime.exit_status import verdict
from gatort.runtime.recording.reader import Recording
from gatort.runtime.recording.slowest import SlowTick, slowest_ticks
from gatort.runtime.recording.summary import RecordingSummary, summarise
from gatort.runtime.wording import counted

LONGEST_STAGES = 3
"""Number of stages of a slow tick in the table; JSON has all."""
SHOWN = 12
"""Number of changes of state, and of faults, in the table; JSON has all."""


def info(file: Path, *, slowest: NonNegativeInt = 0, json: Path | None = None) -> int:
    """Show the contents of a recording, and whether it is complete.

    The contents are policy, robot, ticks, refusals, misses, states and faults. A file that was cut
    off is read as far as it goes. Exit status 1 when something is missing.

    Parameters
    ----------
    file
        Recording (.mcap) of `gatort run` or `gatort robot`.
    slowest
        Number of the slowest ticks to list, with stages, CPU time, page faults and lost cores.
    json
        Write the contents to this file as well.
    """
    require_writable(json=json)
    recording = Recording(file)
    record = _record(recording, summarise(recording))
    console = screen(json)
    console.print(_table(recording, record))
    if slowest:
        ticks = slowest_ticks(recording, slowest)
        console.print(_slowest_table(ticks))
        record["slowest"] = [_slow_record(each) for each in ticks]
    write_json(json, "info", record)
    return verdict(recording.incomplete is None)


def _record(recording: Recording, summary: RecordingSummary) -> dict[str, Any]:
    """Return the JSON form."""
    run = recording.run
    policy = recording.policy
    outcome = recording.outcome
    begun = None
    if summary.first_ns is not None:
        begun = _utc(summary.first_ns + run.wall_clock_offset_ns)
    return {
        "file": str(recording.path),
        "bytes": recording.total_bytes,
        "complete": recording.incomplete is None,
        "incomplete_because": recording.incomplete,
        "result": outcome.result if outcome else None,
        "dropped": outcome.dropped if outcome else None,
        "begun": begun,
        "seconds": summary.run_s,
        "robot": run.robot,
        "policy": policy.model_dump(mode="json", exclude={"spec"}) if policy else None,
        "ticks": summary.ticks,
        "refused": dict(summary.refused),
        "misses": summary.misses.total,
        "states": [{"s": seconds, "state": state} for seconds, state in summary.states],
        "faults": [{"s": seconds, "fault": fault} for seconds, fault in summary.faults],
        "channels": recording.counts,
        "gatort": run.gatort,
        "machine": run.machine,
    }


def _slow_record(slow: SlowTick) -> dict[str, Any]:
    tick = slow.tick
    return {
        "tick": tick.tick,
        "s": slow.at_s,
        "took_ms": tick.took_ns * 1e-6,
        "lateness_ms": tick.lateness_ns * 1e-6,
        "cpu_ms": tick.cpu_ns * 1e-6,
        "page_faults": tick.page_faults,
        "preempted": tick.preempted,
        "stages_ms": slow.stages_ms,
        "refusal": tick.refusal or None,
    }


def _slowest_table(ticks: list[SlowTick]) -> Table:
    """Lay out ticks, and the stages that took most of each."""
    caption = (
        "ms from wake-up to command; CPU: ms that the loop's thread computed; lost: times that it "
        "lost its core"
    )
    table = Table(
        title="slowest ticks", title_justify="left", caption=caption, caption_justify="left"
    )
    for column in ("tick", "at s", "ms", "CPU", "late", "page faults", "lost"):
        table.add_column(column, justify="right")
    table.add_column("longest stages, ms", overflow="fold")
    for slow in ticks:
        tick = slow.tick
        longest = sorted(slow.stages_ms.items(), key=lambda stage: -stage[1])[:LONGEST_STAGES]
        figures = (tick.took_ns * 1e-6, tick.cpu_ns * 1e-6, tick.lateness_ns * 1e-6)
        table.add_row(
            str(tick.tick),
            f"{slow.at_s:.2f}",
            *(f"{value_ms:.1f}" for value_ms in figures),
            str(tick.page_faults),
            str(tick.preempted),
            ", ".join(f"{name} {value_ms:.1f}" for name, value_ms in longest),
        )
    return table


def _utc(at_ns: int) -> str:
    try:
        return datetime.fromtimestamp(at_ns * 1e-9, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):  # A damaged clock may say any year.
        return f"{at_ns} ns after 1970"


def _table(recording: Recording, record: dict[str, Any]) -> Table:
    table = Table(title=record["file"], title_justify="left", show_header=False)
    for name, cell in _rows(recording, record):
        table.add_row(name, cell)
    return table


def _rows(recording: Recording, record: dict[str, Any]) -> Iterator[tuple[str, str | Text]]:
    """Yield the names and cells of the table's rows."""
    incomplete = recording.incomplete
    complete = "yes" if incomplete is None else f"no: {incomplete}"
    yield "complete", alarming(complete, incomplete is not None)
    yield "result", record["result"] or "unknown"
    begun = record["begun"]
    yield "begun", f"{begun}, {record['seconds']:.1f} s" if begun else "unknown"
    yield "robot", record["robot"]

    if (policy := recording.policy) is not None:
        drawn = f"temperature {policy.temperature:g}, seed {policy.seed}"
        yield "policy", f"{policy.bundle}, engine {policy.engine} {policy.precision}, {drawn}"
        counts = ", ".join(f"{count}× {reason}" for reason, count in record["refused"].items())
        refused = f"refused: {counts or 'none'}"
        yield (
            "ticks",
            f"{record['ticks']}, {counted(record['misses'], 'miss', 'misses')}, {refused}",
        )

    for name in ("states", "faults"):
        lines = [f"{each['s']:8.3f} s  {each[name[:-1]]}" for each in record[name]]
        more = [f"… {len(lines)} in all"] if len(lines) > SHOWN else []
        yield name, "\n".join(lines[:SHOWN] + more)

    channels = (f"{topic} {count}" for topic, count in record["channels"].items())
    yield "messages", ", ".join(channels) or "none"
    yield "dropped", "unknown" if record["dropped"] is None else str(record["dropped"])
    yield "recorded by", f"gatort {record['gatort']} on {record['machine']}"
