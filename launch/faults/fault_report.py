"""The table, the verdicts and the exit status of injected faults."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from gatort.launch.report import alarming
from gatort.runtime.machine import this_machine
from gatort.runtime.witness import WitnessReport

from .row_result import RowResult, Verdict
from .rows import Row

PAGE_COLUMNS = 160
"""Width of a file or a pipe, which has none of its own."""
BROKEN, INCONCLUSIVE = 1, 3


@dataclass(frozen=True, slots=True)
class FaultReport:
    """Results of all chosen rows, and the machine's pauses."""

    results: tuple[RowResult, ...]
    witness: WitnessReport
    """Witness alone on the machine, before the first row."""
    not_granted: tuple[str, ...] = ()
    """Requests for scheduling that the operating system refused."""

    def count(self, verdict: Verdict) -> int:
        """Return the number of rows with a verdict."""
        return sum(1 for each in self.results if each.verdict == verdict)

    @property
    def status(self) -> int:
        """Exit status: 0 all held, 1 a row is broken, 3 none broken but one inconclusive."""
        if self.count("broken"):
            return BROKEN
        return INCONCLUSIVE if self.count("inconclusive") else 0

    def print_to(self, console: Console) -> None:
        """Print the table, a sentence for each deviation, and the counts."""
        if not console.is_terminal:
            console.width = max(console.width, PAGE_COLUMNS)
        console.print(_table(self.results))
        for each in self.results:
            for sentence in each.broken:
                console.print(f"row {each.row.number}: broken: {sentence}")
            for sentence in each.inconclusive:
                machine = each.witness.sentence if each.witness is not None else ""
                console.print(f"row {each.row.number}: inconclusive: {machine} ({sentence})")
        for sentence in self.not_granted:
            console.print(sentence)

        console.print(f"before the first row {self.witness.sentence}")
        total = len(self.results)
        summary = f"{self.count('held')} of {total} inside their bounds"
        if inconclusive := self.count("inconclusive"):
            summary += f", {inconclusive} inconclusive"
        console.print(summary)

    def record(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "held": self.count("held"),
            "inconclusive": self.count("inconclusive"),
            "broken": self.count("broken"),
            "rows": [each.record() for each in self.results],
            "witness": asdict(self.witness),
            "not_granted": list(self.not_granted),
            "machine": asdict(this_machine()),
        }


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
