"""Finished runs of a folder: reports, recordings and pictures, as the pages show them."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from gatort.runtime.errors import ConfigError, GatortError
from gatort.runtime.recording.messages import TickMessage
from gatort.runtime.recording.reader import Recording
from gatort.runtime.recording.summary import RecordingSummary, summarise
from gatort.runtime.regular_file import read_regular
from gatort.runtime.wording import counted

LARGEST_REPORT_BYTES: Final = 1 << 24
MOST_ROWS: Final = 1_000
"""Most files that a page lists, the newest first."""
MOST_POINTS: Final = 3_000
"""Most ticks of a recording that a page draws: the slowest of each group of neighbours."""
SHOWN: Final = 100
"""Most changes of state, and faults, of a recording that a page lists."""

FileKind = Literal["report", "recording", "picture"]
KINDS: Final[dict[str, FileKind]] = {".json": "report", ".mcap": "recording", ".png": "picture"}


class RunRow(msgspec.Struct, frozen=True):
    """One file in the list."""

    name: str
    """Name of the file in the folder."""
    kind: FileKind
    command: str
    """Command that wrote a report, such as `trials`; empty for another file."""
    date: str
    """Date of writing, in UTC."""
    bytes: int
    headline: str
    """Result in a few words."""


class TickPoint(msgspec.Struct, frozen=True, array_like=True):
    """A tick of a recording, for its plot."""

    s: float
    """Time since the first message."""
    took_ms: float
    is_refused: bool


class RecordedRun(msgspec.Struct, frozen=True):
    """Summary of a recording."""

    result: str
    incomplete: str
    """Reason why messages may be missing; empty if the recording is complete."""
    robot: str
    policy: str
    seconds: float
    ticks: int
    misses: int
    states: list[tuple[float, str]]
    faults: list[tuple[float, str]]
    budget_ms: float
    """Longest duration of a tick that is no miss; 0 for a robot's own recording."""
    deadline_ms: float
    points: list[TickPoint]


@dataclass(frozen=True, slots=True)
class RunsFolder:
    """A folder with finished runs."""

    path: Path

    def __post_init__(self) -> None:
        if not self.path.is_dir():
            raise ConfigError(f"{self.path}: expected a folder with finished runs, found none")

    def rows(self) -> list[RunRow]:
        """Return the files that gatort wrote, the newest first."""
        found = [path for path in self.path.iterdir() if path.suffix in KINDS and path.is_file()]
        newest = sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)[:MOST_ROWS]
        rows = [row for path in newest if (row := self._row(path)) is not None]
        return sorted(rows, key=lambda row: row.date, reverse=True)

    def file(self, name: str, kind: FileKind) -> Path | None:
        """Return a file of the folder by its name, or `None` if there is none of that kind."""
        path = self.path / name
        is_known = path.parent == self.path and KINDS.get(path.suffix) == kind
        return path if is_known and path.is_file() else None

    def _row(self, path: Path) -> RunRow | None:
        kind = KINDS[path.suffix]
        status = path.stat()
        date = datetime.fromtimestamp(status.st_mtime, UTC).isoformat(timespec="seconds")
        command = headline = ""
        if kind == "report":
            report = read_report(path)
            if report is None:
                return None
            command = command_of(report)
            date = str(report["report"].get("date", date))
            headline = headline_of(report)
        return RunRow(path.name, kind, command, date, status.st_size, headline)


def read_report(path: Path) -> dict[str, Any] | None:
    """Return a report of gatort, or `None` for another file."""
    try:
        found = json.loads(read_regular(path, "a report", ConfigError, LARGEST_REPORT_BYTES))
    except (GatortError, ValueError, RecursionError):
        return None
    is_report = isinstance(found, dict) and isinstance(found.get("report"), dict)
    return found if is_report else None


def command_of(report: dict[str, Any]) -> str:
    """Return the kind of a report, which is mostly the command that wrote it, such as `run`.

    Reports of older versions name no kind.
    """
    if isinstance(kind := report["report"].get("kind"), str):
        return kind
    try:
        words = shlex.split(str(report["report"].get("command", "")))
    except ValueError:
        return ""
    return words[1] if len(words) > 1 else ""


def headline_of(report: dict[str, Any]) -> str:
    """Return the result of a report in a few words; empty for a command without one."""
    match report:
        case {"successes": int(successes), "episodes": int(episodes)}:
            return f"{successes} of {counted(episodes, 'trial')} succeeded"
        case {"held": int(held), "inconclusive": int(inconclusive), "broken": int(broken)}:
            return f"{held} rows held, {inconclusive} inconclusive, {broken} broken"
        case {"succeeded": bool(succeeded), "ticks": int(ticks), "misses": int(misses)}:
            how = "success" if succeeded else "no success"
            stopped = ", stopped" if report.get("stopped") or report.get("interrupted") else ""
            return f"{how}{stopped}; {counted(ticks, 'tick')}, {counted(misses, 'miss', 'misses')}"
        case {"holds": bool(holds), "misses": int(misses)}:
            budget = "the budget holds" if holds else "the budget does not hold"
            return f"{budget}; {counted(misses, 'miss', 'misses')}"
    return ""


def read_recording(path: Path) -> RecordedRun:
    """Summarise a recording, and return its ticks for a plot.

    Raises:
        RecordingError: the file is no recording.
    """
    recording = Recording(path)
    summary = summarise(recording)
    spec = recording.policy.spec if recording.policy else None
    return RecordedRun(
        result=recording.outcome.result if recording.outcome else "",
        incomplete=recording.incomplete or "",
        robot=recording.run.robot,
        policy=f"{recording.policy.bundle}, {recording.policy.engine}" if recording.policy else "",
        seconds=summary.run_s,
        ticks=summary.ticks,
        misses=summary.misses.total,
        states=summary.states[:SHOWN],
        faults=summary.faults[:SHOWN],
        budget_ms=spec.period_ns * 1e-6 if spec else 0.0,
        deadline_ms=float(spec.action_delay_ms) if spec else 0.0,
        points=_points(recording, summary),
    )


def _points(recording: Recording, summary: RecordingSummary) -> list[TickPoint]:
    """Return at most `MOST_POINTS` ticks: of each group of neighbours the slowest."""
    group = -(-summary.ticks // MOST_POINTS) or 1
    first_ns = summary.first_ns or 0
    points: list[TickPoint] = []
    count = 0
    for at_ns, _, tick in recording.messages():
        if not isinstance(tick, TickMessage):
            continue
        point = TickPoint((at_ns - first_ns) * 1e-9, tick.took_ns * 1e-6, bool(tick.refusal))
        count += 1
        if (count - 1) % group == 0:
            points.append(point)
        elif point.took_ms > points[-1].took_ms:
            points[-1] = point
    return points
