"""`gatort info`: what a recording holds, and whether all of it is there."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from gatort.launch.report import (
    alarming,
    require_writable,
    screen,
    write_json,
)
from gatort.runtime.recording.messages import FaultMessage, StateMessage, StepMessage, TickMessage
from gatort.runtime.recording.reader import Recording, Stamped
from gatort.runtime.telemetry import Misses

SHOWN = 12
"""Changes of state, and faults, that the table shows; JSON has all."""


def info(file: Path, *, json: Path | None = None) -> int:
    """Say what a recording holds: policy, robot, ticks, refusals, misses, states, and whether all of it is there.

    A file that was cut off is read as far as it goes. Exit status 1 when something is missing.

    Parameters
    ----------
    file
        What `gatort run` or `gatort robot` recorded.
    json
        Write what was found to this file as well.
    """
    require_writable(json)
    recording = Recording(file)
    contents = Contents(
        Misses(recording.policy.spec.period_ns if recording.policy else sys.maxsize)
    )
    for stamped in recording.messages():
        contents.take(stamped)
    record = _record(recording, contents)
    screen().print(_table(recording, record))
    write_json(json, record)
    return int(recording.incomplete is not None)


@dataclass(slots=True)
class Contents:
    """Counted from the messages, so that a file without an end has it too."""

    misses: Misses
    first_ns: int | None = None
    last_ns: int = 0
    ticks: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    states: list[tuple[float, str]] = field(default_factory=list)
    """Seconds since the first message, and the state that began."""
    faults: list[tuple[float, str]] = field(default_factory=list)

    def take(self, stamped: Stamped) -> None:
        """Count one message."""
        if self.first_ns is None:
            self.first_ns = stamped.at_ns
        self.last_ns = stamped.at_ns
        match stamped.message:
            case TickMessage() as tick:
                self._count(tick)
            case StateMessage(guard=guard, robot=robot):
                self._enter(f"guard {guard}, robot {robot}")
            case StepMessage(state=state):
                self._enter(f"robot {state}")
            case FaultMessage(component=component, sentence=sentence):
                self.faults.append((self.seconds, f"{component}: {sentence}"))

    def _count(self, tick: TickMessage) -> None:
        self.ticks += 1
        self.misses.woke(tick.skipped)
        self.misses.ended(tick.took_ns)
        if tick.reason:
            self.refused[tick.reason] += 1

    def _enter(self, state: str) -> None:
        if not self.states or self.states[-1][1] != state:
            self.states.append((self.seconds, state))

    @property
    def seconds(self) -> float:
        """From the first message to the last so far."""
        return (self.last_ns - self.first_ns) * 1e-9 if self.first_ns is not None else 0.0


def _record(recording: Recording, contents: Contents) -> dict[str, Any]:
    run, policy, outcome = recording.run, recording.policy, recording.outcome
    return {
        "file": str(recording.path),
        "bytes": recording.total_bytes,
        "complete": recording.incomplete is None,
        "incomplete_because": recording.incomplete,
        "result": outcome.result if outcome else None,
        "dropped": outcome.dropped if outcome else None,
        "begun": _utc(contents.first_ns + run.wall_clock_offset_ns)
        if contents.first_ns is not None
        else None,
        "seconds": contents.seconds,
        "robot": run.robot,
        "policy": policy.model_dump(mode="json", exclude={"spec"}) if policy else None,
        "ticks": contents.ticks,
        "refused": dict(contents.refused),
        "misses": contents.misses.total,
        "states": [{"s": seconds, "state": state} for seconds, state in contents.states],
        "faults": [{"s": seconds, "fault": fault} for seconds, fault in contents.faults],
        "channels": recording.counts,
        "gatort": run.gatort,
        "machine": run.machine,
    }


def _utc(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns * 1e-9, UTC).isoformat(timespec="milliseconds")


def _table(recording: Recording, record: dict[str, Any]) -> Table:
    table = Table(title=record["file"], title_justify="left", show_header=False)
    incomplete = record["incomplete_because"]
    table.add_row(
        "complete",
        alarming("yes" if incomplete is None else f"no: {incomplete}", incomplete is not None),
    )
    table.add_row("result", record["result"] or "unknown")
    table.add_row(
        "begun", f"{record['begun']}, {record['seconds']:.1f} s" if record["begun"] else "unknown"
    )
    table.add_row("robot", record["robot"])
    if (policy := recording.policy) is not None:
        drawn = f"temperature {policy.temperature:g}, seed {policy.seed}"
        table.add_row(
            "policy", f"{policy.bundle}, engine {policy.engine} {policy.precision}, {drawn}"
        )
        refused = ", ".join(f"{count}× {reason}" for reason, count in record["refused"].items())
        table.add_row(
            "ticks", f"{record['ticks']}, {record['misses']} misses, refused: {refused or 'none'}"
        )
    for name in ("states", "faults"):
        lines = [" ".join((f"{each['s']:8.3f} s ", each[name[:-1]])) for each in record[name]]
        table.add_row(
            name,
            "\n".join(
                [*lines[:SHOWN], *([f"… {len(lines)} in all"] if len(lines) > SHOWN else [])]
            ),
        )
    table.add_row(
        "messages",
        ", ".join(f"{topic} {count}" for topic, count in record["channels"].items()) or "none",
    )
    table.add_row("dropped", "unknown" if record["dropped"] is None else str(record["dropped"]))
    table.add_row("recorded by", f"gatort {record['gatort']} on {record['machine']}")
    return table
