"""Output of a command when it is done: percentiles, tables and JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from gatort.runtime.errors import ConfigError
from gatort.runtime.telemetry import Percentiles


def percentile_table(rows: Sequence[tuple[str, Percentiles]], budget_ms: float) -> Table:
    """Lay out durations, one row per stage; what exceeds the budget is red."""
    table = Table()
    table.add_column("ms")
    for column in ("p50", "p99", "p99.9", "max"):
        table.add_column(column, justify="right")
    for name, latency in rows:
        cells = (latency.p50_ms, latency.p99_ms, latency.p99_9_ms, latency.max_ms)
        table.add_row(name, *(alarming(f"{value:.2f}", value > budget_ms) for value in cells))
    return table


def alarming(text: str, alarm: bool) -> Text:
    """A table's cell, red when there is something wrong with it."""
    return Text(text, style="red" if alarm else "")


def screen(*, stderr: bool = False) -> Console:
    """Where a command prints; text stands as it is, so that `gatort[sim]` is no markup."""
    return Console(stderr=stderr, markup=False, highlight=False)


def progress_bar(noun: str, *, shown: bool = True, refresh: bool = True) -> Progress:
    """A bar on standard error that counts things and says how long it will take; a task's description stands last.

    With `refresh` it draws itself ten times a second, else only when it is told to.
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
    """The JSON form, in ms."""
    return {
        "p50": latency.p50_ms,
        "p99": latency.p99_ms,
        "p99.9": latency.p99_9_ms,
        "max": latency.max_ms,
    }


def latency_record(rows: Sequence[tuple[str, Percentiles]]) -> dict[str, dict[str, float]]:
    """The JSON form of a loop's stages, each name to its percentiles in ms."""
    return {name: percentile_record(latency) for name, latency in rows}


def make_directory(directory: Path) -> None:
    """Make the directory of outputs that were given no place of their own; one that is there stays as it is.

    Raises:
        ConfigError: something else has its name, or it may not be made here.
    """
    try:
        directory.mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot write into {directory}: expected a directory, or to make one here ({error.strerror}); "
            "run in another directory or name the files yourself"
        ) from error


def require_writable(*paths: Path | None) -> None:
    """Refuse output files that could not be written, before anything is computed for them.

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
    """Write a report whole or not at all; a path of none writes nothing."""
    if path is None:
        return
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(
        json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )
    partial.replace(path)
