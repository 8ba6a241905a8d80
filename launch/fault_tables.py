"""Tables of the faults and of their verdicts."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from rich.console import Console
from rich.table import Table

from gatort.faults.fault_report import FaultReport
from gatort.faults.row_result import RowResult
from gatort.faults.rows import Row

from .report import alarming

PAGE_COLUMNS = 160
"""Width of a file or a pipe, which has none of its own."""


def print_report(report: FaultReport, console: Console) -> None:
    """Print the table, a sentence for each deviation, and the counts."""
    if not console.is_terminal:
        console.width = max(console.width, PAGE_COLUMNS)
    console.print(_table(report.results))
    for each in report.results:
        for sentence in each.broken:
            console.print(f"row {each.row.number}: broken: {sentence}")
        for sentence in each.inconclusive:
            machine = each.witness.sentence if each.witness is not None else ""
            console.print(f"row {each.row.number}: inconclusive: {machine} ({sentence})")
    for sentence in report.not_granted:
        console.print(sentence)

    console.print(f"before the first row {report.witness.sentence}")
    total = len(report.results)
    summary = f"{report.count('held')} of {total} inside their bounds"
    if inconclusive := report.count("inconclusive"):
        summary += f", {inconclusive} inconclusive"
    console.print(summary)


def catalogue(rows: Iterable[Row]) -> Table:
    """Return the table of all faults."""
    table = Table("row", "component", "type", "expected", "with --robot")
    for row in rows:
        for fault in row.faults:
            anywhere = "yes" if fault.anywhere else ""
            table.add_row(str(row.number), fault.component, fault.type, row.expected, anywhere)
    return table


def _table(results: Iterable[RowResult]) -> Table:
    table = Table(title="p50 / max of the injections", title_justify="left")
    table.add_column("#", justify="right")
    for column in ("component", "type", "expected"):
        table.add_column(column)
    for column in ("detection, ms", "safe torque, ms", "bound, ms", "pause, ms"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    for each in results:
        row, kinds = each.row, [fault for fault, _ in each.injections]
        bounds = [f"{bound:g}" for bound in (row.detection_ms, row.safe_ms) if bound is not None]
        expected = row.expected
        if row.measured != "detection":
            expected += f" ({row.measured})"
        table.add_row(
            str(row.number),
            ", ".join(dict.fromkeys(fault.component for fault in kinds)),
            ", ".join(dict.fromkeys(fault.type for fault in kinds)),
            expected,
            _cell(each.detections_ms),
            _cell(each.safes_ms),
            " / ".join(bounds) or "–",
            f"{each.witness.pause_ms:.0f}" if each.witness is not None else "–",
            alarming(each.verdict, each.verdict != "held"),
        )
    return table


def _cell(times_ms: list[float]) -> str:
    return f"{median(times_ms):.1f} / {max(times_ms):.1f}" if times_ms else "–"
