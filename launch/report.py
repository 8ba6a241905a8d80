"""Output of the commands: tables, pictures, progress bars and JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from gatort.runtime.durations import Percentiles
from gatort.runtime.facts import Fact
from gatort.runtime.outputs import whole_file
from gatort.runtime.packages import require_packages
from gatort.runtime.printable import printable
from gatort.runtime.telemetry import Passes, Telemetry
from gatort.sim.trials.journal import Journal

from .drawing import announced
from .outputs import append, is_standard_output, is_stream, real_path, spared
from .report_kinds import ReportKind, origin_record

LINE_S: Final = 30.0
"""Time between two lines of progress where no terminal redraws a bar."""


def percentile_table(
    rows: Sequence[tuple[str, Percentiles]], budget_ms: float, deadline_ms: float
) -> Table:
    """Lay out durations, one row per stage; a duration over the budget is red."""
    deadlines = f"budget {budget_ms:g} ms, action deadline {deadline_ms:g} ms"
    table = Table(caption=deadlines, caption_justify="left")
    table.add_column("ms")
    for column in ("p50", "p99", "p99.9", "max"):
        table.add_column(column, justify="right")
    for name, latency in rows:
        cells = (latency.p50_ms, latency.p99_ms, latency.p99_9_ms, latency.max_ms)
        table.add_row(name, *(alarming(f"{value:.2f}", value > budget_ms) for value in cells))
    return table


def passes_sentence(passes: Passes) -> str:
    """Say how many passes the ticks took."""
    return (
        f"mean {passes.mean:.2f}, p50 {passes.quantile(0.5)}, p99 {passes.quantile(0.99)}, "
        f"max {passes.most} of {len(passes.actuators)}"
    )


def passes_sentences(passes: Passes) -> list[str]:
    """Say how many passes the ticks took and how often a guess was right; nothing if greedy."""
    if not passes.saved:
        return []
    shares = (f"{name} {share:.0%}" for name, share in passes.right_shares.items())
    return [f"passes a tick: {passes_sentence(passes)}", f"guessed: {', '.join(shares)}"]


def passes_record(passes: Passes) -> dict[str, Any]:
    """Return the JSON form."""
    return {
        "mean": passes.mean,
        "p50": passes.quantile(0.5),
        "p99": passes.quantile(0.99),
        "max": passes.most,
        "guess_right": passes.right_shares,
    }


def counts(reasons: Mapping[str, int]) -> str:
    """Return counts by reason in brackets, after a blank; nothing without any."""
    named = ", ".join(f"{count}× {reason}" for reason, count in reasons.items())
    return f" ({named})" if named else ""


def alarming(text: str, alarm: bool) -> Text:
    """Return a table's cell, red if `alarm` is true."""
    return Text(text, style="red" if alarm else "")


class Screen(Console):
    """Console whose text is printable, wherever it came from: the one way to a terminal."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield segments as `Console.render` does. Only rich's own ones hold control codes."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


def screen(json: Path | None = None, *, stderr: bool = False) -> Screen:
    """Return the console of a command; it prints text as it is, since `gatort[sim]` is not
    markup.

    Args:
        json: path of the report. The console is standard error if the report goes to standard
            output.
        stderr: use standard error.
    """
    return Screen(stderr=stderr or is_standard_output(json), markup=False, highlight=False)


class Bars(Progress):
    """Progress bars on a terminal. Elsewhere a line every LINE_S, and one at the end."""

    def __init__(self, *columns: ProgressColumn, shown: bool = True, refresh: bool = True) -> None:
        console = screen(stderr=True)
        terminal = console.is_terminal
        super().__init__(
            *columns, console=console, disable=not (shown and terminal), auto_refresh=refresh
        )
        self._lines = shown and not terminal
        self._printed_s = self.get_time()
        self._line = ""

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Change a bar, and print it as a line when one is due."""
        super().update(task_id, **changes)
        if self._lines and self.get_time() - self._printed_s >= LINE_S:
            self._print()

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Move a bar on, and print it as a line when one is due."""
        self.update(task_id, advance=advance)

    def stop(self) -> None:
        """Take the bars off the screen, or print how far they have come."""
        super().stop()
        if self._lines:
            self._print()

    def _print(self) -> None:
        self._printed_s = self.get_time()
        for task in self.tasks:
            cells = [column(task) for column in self.columns if isinstance(column, ProgressColumn)]
            words = " ".join(str(cell) for cell in cells if isinstance(cell, Text)).split()
            if task.visible and (line := " ".join(words)) != self._line:
                self._line = line
                self.console.print(line, soft_wrap=True)


def progress_bar(noun: str, *, shown: bool = True, refresh: bool = True) -> Bars:
    """Return a bar on standard error with a count and the remaining time.

    Args:
        noun: name of the counted things.
        shown: draw the bar at all.
        refresh: draw ten times a second; otherwise only on request.
    """
    columns = (
        TextColumn(noun),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    return Bars(*columns, shown=shown, refresh=refresh)


def percentile_record(latency: Percentiles) -> dict[str, float]:
    """Return the JSON form, in milliseconds."""
    return {
        "p50": latency.p50_ms,
        "p99": latency.p99_ms,
        "p99.9": latency.p99_9_ms,
        "max": latency.max_ms,
    }


def latency_record(rows: Sequence[tuple[str, Percentiles]]) -> dict[str, dict[str, float]]:
    """Return the JSON form of a loop's stages: each name with its percentiles in milliseconds."""
    return {name: percentile_record(latency) for name, latency in rows}


@announced
def draw_latency(path: Path, title: str, telemetry: Telemetry, deadline_ms: float) -> None:
    """Draw the latency of at least one tick as a PNG.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    require_packages("a latency picture", "trials", "matplotlib")
    # A run needs no picture, and matplotlib takes half a second to import.
    from .latency_picture import latency_picture

    limits_ms = {"budget": telemetry.budget_ns * 1e-6, "action deadline": deadline_ms}
    durations_ns = telemetry.stage_durations_ns()
    latency_picture(path, title, telemetry.stages, durations_ns, limits_ms)


def write_json(
    path: Path | None, kind: ReportKind, record: dict[str, Any], journals: Sequence[Journal] = ()
) -> None:
    """Write a report with its origin, whole or not at all. Write nothing if the path is `None`.

    A device or a pipe is written to. It is never replaced by a file. A report that cannot be
    written costs a sentence on standard error, and the command goes on.

    Args:
        path: file, device or pipe.
        kind: kind of the report, which gives the version of its keys.
        record: content of the report.
        journals: files of trials, the last of which gives the report its date. Default: now.
    """
    if path is None:
        return
    printed = is_standard_output(path)
    content = {**record, "report": origin_record(kind, journals)}
    text = json.dumps(content, indent=2, ensure_ascii=printed, allow_nan=False)
    # Only parts of names that are no UTF-8 need the escape, which is JSON's own.
    data = f"{text}\n".encode(errors="backslashreplace")
    with spared("report"):
        if printed:
            sys.stdout.write(data.decode())
            sys.stdout.flush()
        elif is_stream(path):
            append(path, data)
        else:
            with whole_file(real_path(path)) as partial:
                partial.write_bytes(data)


def fact_table(facts: Iterable[Fact]) -> Table:
    """Lay out facts, one a row: `ok`, or `!` and the sentence that asks for attention."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for fact in facts:
        mark = Text("!", "bold yellow") if fact.attention else Text("ok", "green")
        cell = Text(fact.value)
        if fact.attention:
            cell += Text(f"\n{fact.attention}", "yellow")
        table.add_row(mark, fact.name, cell)
    return table
