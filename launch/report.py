"""Output of the commands: tables, pictures, progress bars and JSON."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from gatort.runtime.errors import ConfigError
from gatort.runtime.packages import require_packages
from gatort.runtime.printable import printable
from gatort.runtime.telemetry import Percentiles, Telemetry

from .drawing import announced

SCHEMA: Final = 1
"""Version of the reports' keys (docs/reports.md)."""


def percentile_table(rows: Sequence[tuple[str, Percentiles]], budget_ms: float) -> Table:
    """Lay out durations, one row per stage; a duration over the budget is red."""
    table = Table()
    table.add_column("ms")
    for column in ("p50", "p99", "p99.9", "max"):
        table.add_column(column, justify="right")
    for name, latency in rows:
        cells = (latency.p50_ms, latency.p99_ms, latency.p99_9_ms, latency.max_ms)
        table.add_row(name, *(alarming(f"{value:.2f}", value > budget_ms) for value in cells))
    return table


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


def screen(*, stderr: bool = False) -> Screen:
    """Return the console of a command; it prints text as it is, since `gatort[sim]` is not
    markup.
    """
    return Screen(stderr=stderr, markup=False, highlight=False)


def progress_bar(noun: str, *, shown: bool = True, refresh: bool = True) -> Progress:
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
    return Progress(*columns, console=screen(stderr=True), disable=not shown, auto_refresh=refresh)


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
def draw_latency(path: Path, title: str, telemetry: Telemetry, budget_ms: float) -> None:
    """Draw the latency of at least one tick as a PNG.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    require_packages("a latency picture", "trials", "matplotlib")
    # A run needs no picture, and matplotlib takes half a second to import.
    from .latency_picture import latency_picture

    latency_picture(path, title, telemetry.stages, telemetry.stage_durations_ns(), budget_ms)


def make_directory(directory: Path) -> None:
    """Make the default directory of outputs, unless it exists.

    Raises:
        ConfigError: a file has that name, or the directory cannot be made here.
    """
    try:
        directory.mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot write into {directory}: expected a directory, or to make one here "
            f"({error.strerror}); run in another directory or name the files yourself"
        ) from error


def require_writable(*paths: Path | None) -> None:
    """Check before any computation that output files can be written; `None` is skipped.

    Raises:
        ConfigError: a path is a directory, or its directory is missing or not writable.
    """
    for path in paths:
        if path is None:
            continue
        if path.is_dir():
            raise ConfigError(f"cannot write {path}: expected a file, found a directory")
        if not path.parent.is_dir():
            raise ConfigError(f"cannot write {path}: there is no directory {path.parent}")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise ConfigError(f"cannot write {path}: permission denied")


def write_json(path: Path | None, record: dict[str, Any]) -> None:
    """Write a report with its origin, whole or not at all. Write nothing if the path is `None`.

    A device or a pipe is written to. It is never replaced by a file.
    """
    if path is None:
        return
    text = json.dumps(
        {**record, "report": _origin()}, indent=2, ensure_ascii=False, allow_nan=False
    )
    # A file's name that is no UTF-8 becomes JSON's own escape.
    content = f"{text}\n".encode(errors="backslashreplace")
    if is_stream(path):
        path.write_bytes(content)
        return
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def is_stream(path: Path) -> bool:
    """Check if a path is a device or a pipe, beside which no other file belongs."""
    return path.exists() and not path.is_file()


def _origin() -> dict[str, Any]:
    """Return who wrote a report, when, and by which command."""
    return {
        "schema": SCHEMA,
        "gatort": version("gatort"),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["gatort", *sys.argv[1:]]),
    }
