"""`gatort compare`: is the second report better than the first?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from pydantic import Field
from rich.table import Table

from gatort.launch.comparison import AnyReport, Figure, compare_reports, notes_on, read_report
from gatort.launch.outputs import require_writable
from gatort.launch.report import screen, write_json
from gatort.runtime.exit_status import verdict


def compare(
    first: Path,
    second: Path,
    /,
    *,
    tolerance: Annotated[float, Field(ge=0, le=10)] = 0.1,
    json: Path | None = None,
) -> int:
    """Compare two reports of trials, profiles or faults, and say whether the second is worse.

    Trials must be of the same layouts. Their success is compared pair by pair, with McNemar's exact
    test. Durations of a profile's ticks are compared as ratios. Their intervals hold for these two
    runs alone: make both on one idle machine. Exit status 1 when a figure is worse.

    Parameters
    ----------
    first
        Report (.json) of `gatort trials`, `profile` or `faults`.
    second
        Report of the same command under the same conditions.
    tolerance
        Change of a duration, as a share, that is neither better nor worse.
    json
        Write the comparison to this file as well.
    """
    require_writable(json=json)
    one, other = read_report(first), read_report(second)
    rows = compare_reports(one, other, tolerance)
    notes = notes_on(one, other)
    subjects = [_subject(first, one), _subject(second, other)]
    console = screen(json)
    for name, subject in zip(("first", "second"), subjects, strict=True):
        console.print(f"{name}: {', '.join(subject.values())}", soft_wrap=True)
    console.print(_table(rows), *notes, sep="\n")
    record = {"first": subjects[0], "second": subjects[1], "notes": notes}
    write_json(json, "compare", {**record, "figures": [asdict(row) for row in rows]})
    return verdict(all(row.verdict != "worse" for row in rows))


def _subject(path: Path, report: AnyReport) -> dict[str, str]:
    """Return the subject, the date and the machine of a report."""
    return {
        "file": str(path),
        "subject": report.subject,
        "date": report.report.date,
        "machine": report.machine.hardware,
    }


def _table(rows: list[Figure]) -> Table:
    table = Table()
    for name in ("", "first", "second", "change", "the second is"):
        table.add_column(name)
    styles = {"better": "green", "worse": "red", "no difference shown": ""}
    for row in rows:
        cells = (row.name, row.first, row.second, row.change, row.verdict)
        table.add_row(*cells, style=styles[row.verdict])
    return table
