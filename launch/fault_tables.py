"""Tables of the faults and of their verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from statistics import median

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from gatort.faults.fault_report import FaultReport
from gatort.faults.row_result import RowResult
from gatort.faults.rows import Row

from .report import alarming


def print_report(report: FaultReport, console: Console) -> None:
    """Print the table, a sentence for each deviation, and the counts."""
    console.print(_table(report.results))
    for sentence in _sentences(report):
        console.print(sentence, soft_wrap=not console.is_terminal)


def _sentences(report: FaultReport) -> Iterator[str]:
    for each in report.results:
        for sentence in each.broken:
            yield f"row {each.row.number}: broken: {sentence}"
        for sentence in each.inconclusive:
            machine = each.witness.sentence if each.witness is not None else ""
            yield f"row {each.row.number}: inconclusive: {machine} ({sentence})"
    for sentence in report.not_granted:
        yield sentence

    yield f"before the first row {report.witness.sentence}"
    total = len(report.results)
    summary = f"{report.count('held')} of {total} inside their bounds"
    if inconclusive := report.count("inconclusive"):
        summary += f", {inconclusive} inconclusive"
    yield summary


def catalogue(rows: Iterable[Row]) -> Table:
    """Return the table of all faults."""
    table = Table("row", "component", "type", "expected", "with --robot")
    for row in rows:
        for fault in row.faults:
            anywhere = "yes" if fault.anywhere else ""
            table.add_row(str(row.number), fault.component, fault.type, row.expected, anywhere)
    return table


def _table(results: Iterable[RowResult]) -> Table:
    """Lay out rows so that 80 columns show each verdict whole."""
    title = "p50 / max of the injections, in ms"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for column in ("fault", "expected"):
        table.add_column(column, overflow="fold")
    for column, width in (("detected", 8), ("safe torque", 7), ("bound", 5), ("pause", 5)):
        table.add_column(column, justify="right", max_width=width)
    for each in results:
        row, kinds = each.row, [fault for fault, _ in each.injections]
        bounds = [f"{bound:g}" for bound in (row.detection_ms, row.safe_ms) if bound is not None]
        expected = row.expected
        if row.measured != "detection":
            expected += f" ({row.measured})"
        table.add_row(
            str(row.number),
            alarming(each.verdict, each.verdict != "held"),
            f"{_distinct(each.component for each in kinds)} "
            f"({_distinct(each.type for each in kinds)})",
            expected,
            _cell(each.detections_ms),
            _cell(each.safes_ms),
            " / ".join(bounds) or "–",
            f"{each.witness.pause_ms:.0f}" if each.witness is not None else "–",
        )
    return table


def _distinct(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _cell(times_ms: list[float]) -> str:
    return f"{median(times_ms):.1f} / {max(times_ms):.1f}" if times_ms else "–"
