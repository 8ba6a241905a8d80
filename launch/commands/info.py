"""`gatort info`: the contents of a recording."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from rich.table import Table
from rich.text import Text

from gatort.launch.outputs import require_writable
from gatort.launch.refusals import refuse_ignored
from gatort.launch.report import alarming, screen, write_json
from gatort.launch.slow_tick_table import slow_tick_records, slow_tick_table
from gatort.runtime.exit_status import verdict
from gatort.runtime.recording.reader import Recording
from gatort.runtime.recording.slow_ticks import MOST_SLOW, slow_ticks
from gatort.runtime.recording.summary import RecordingSummary, summarise
from gatort.runtime.wording import counted

SHOWN = 12
"""Number of changes of state, and of faults, in the table; JSON has all."""


def info(
    file: Path,
    *,
    ticks: Literal["slow"] | None = None,
    most: Annotated[int, Field(ge=1, le=10_000)] = MOST_SLOW,
    json: Path | None = None,
) -> int:
    """Show the contents of a recording, and whether it is complete.

    The contents are policy, robot, ticks, refusals, misses, states and faults. A file that was cut
    off is read as far as it goes. Exit status 1 when something is missing.

    Parameters
    ----------
    file
        Recording (.mcap) of `gatort run` or `gatort robot`.
    ticks
        List the slow ticks too: the misses first, then the slowest. Each has its stages, the
        processor's counters beside it, and the probable cause.
    most
        Largest number of ticks to list.
    json
        Write the contents to this file as well.
    """
    if ticks is None and most != MOST_SLOW:
        refuse_ignored("without --ticks", most=most)
    require_writable(json=json)
    recording = Recording(file)
    record = _record(recording, summarise(recording))
    console = screen(json)
    console.print(_table(recording, record))
    if ticks is not None:
        slow = slow_ticks(recording, most)
        console.print(slow_tick_table(slow, "slow ticks"))
        record["slow_ticks"] = slow_tick_records(slow)
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
        "person": {"ticks": summary.person_ticks, "takeovers_s": summary.takeovers},
        "states": [{"s": seconds, "state": state} for seconds, state in summary.states],
        "faults": [{"s": seconds, "fault": fault} for seconds, fault in summary.faults],
        "channels": recording.counts,
        "gatort": run.gatort,
        "machine": run.machine,
    }


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

    if (person := record["person"])["ticks"]:
        begun_s = ", ".join(f"{at_s:.1f}" for at_s in person["takeovers_s"])
        yield "person", f"{counted(person['ticks'], 'tick')}, taken over at {begun_s} s"

    for name in ("states", "faults"):
        lines = [f"{each['s']:8.3f} s  {each[name[:-1]]}" for each in record[name]]
        more = [f"… {len(lines)} in all"] if len(lines) > SHOWN else []
        yield name, "\n".join(lines[:SHOWN] + more)

    channels = (f"{topic} {count}" for topic, count in record["channels"].items())
    yield "messages", ", ".join(channels) or "none"
    yield "dropped", "unknown" if record["dropped"] is None else str(record["dropped"])
    yield "recorded by", f"gatort {record['gatort']} on {record['machine']}"
