"""What a command says when it is done: percentiles, the Wilson interval, tables and JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from gatort.runtime import telemetry
from gatort.runtime.errors import ConfigError

Z_95 = 1.959963984540054
"""97.5th percentile of the standard normal distribution."""


@dataclass(frozen=True, slots=True)
class Percentiles:
    """A distribution of durations, in ms."""

    p50: float
    p99: float
    p99_9: float
    max: float

    @classmethod
    def of(cls, histogram: telemetry.Percentiles) -> Self:
        """What the loop's own histograms say."""
        parts = (histogram.p50_ns, histogram.p99_ns, histogram.p999_ns, histogram.max_ns)
        return cls(*(round(part * 1e-6, 4) for part in parts))

    @classmethod
    def of_ns(cls, durations_ns: NDArray[np.int64]) -> Self:
        """Summarise durations (N,), N ≥ 1; each percentile is a duration that occurred, never an interpolation."""
        return cls(
            *(round(float(q) * 1e-6, 4) for q in np.quantile(durations_ns, (0.5, 0.99, 0.999, 1), method="higher"))
        )


@dataclass(frozen=True, slots=True)
class LoopLatency:
    """What the ticks of a loop cost, refused ones included: they are often the slow ones."""

    stages: tuple[str, ...]
    durations_ns: NDArray[np.int64]
    """(N, S), one row a tick; 0 for a stage that a refused tick did not reach."""

    @classmethod
    def of(cls, measured: telemetry.Telemetry, newest: int | None = None) -> Self:
        """Read the ticks, or the newest ones, that a loop's telemetry still holds; a new array."""
        kept = min(measured.ticks, len(measured.stamps), newest or measured.ticks)
        stamps = measured.stamps[np.arange(measured.ticks - kept, measured.ticks) % len(measured.stamps)]
        durations_ns = np.where(stamps[:, 1:] > 0, np.diff(stamps, axis=1), 0)  # (N, S)
        return cls(measured.stages, durations_ns)

    @property
    def tick(self) -> Percentiles:
        """The whole tick."""
        return Percentiles.of_ns(self.durations_ns.sum(axis=1))

    def rows(self) -> list[tuple[str, Percentiles]]:
        """The whole tick, then each stage that was reached."""
        columns = zip(self.stages, self.durations_ns.T, strict=True)
        reached = [(stage, column[column > 0]) for stage, column in columns]
        return [("tick", self.tick), *((stage, Percentiles.of_ns(column)) for stage, column in reached if column.size)]

    def record(self) -> dict[str, dict[str, float]]:
        """The JSON form: stage to percentiles in ms."""
        return {stage: percentile_record(latency) for stage, latency in self.rows()}


def wilson_95(successes: int, episodes: int) -> tuple[float, float]:
    """95 % score interval of a rate (Wilson 1927, JASA 22:209); holds at 0 and 1 too, unlike the normal interval.

    Args:
        successes: in [0, episodes].
        episodes: at least 1.
    """
    rate, z2 = successes / episodes, Z_95**2
    centre = (rate + z2 / (2 * episodes)) / (1 + z2 / episodes)
    half = Z_95 / (1 + z2 / episodes) * sqrt(rate * (1 - rate) / episodes + z2 / (4 * episodes**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def percentile_table(rows: Sequence[tuple[str, Percentiles]], budget_ms: float) -> Table:
    """Lay out durations, one row per stage; what exceeds the budget is red."""
    table = Table()
    table.add_column("ms")
    for column in ("p50", "p99", "p99.9", "max"):
        table.add_column(column, justify="right")
    for name, latency in rows:
        cells = (latency.p50, latency.p99, latency.p99_9, latency.max)
        table.add_row(name, *(alarming(f"{value:.2f}", value > budget_ms) for value in cells))
    return table


def alarming(text: str, alarm: bool) -> Text:
    """A table's cell, red when there is something wrong with it."""
    return Text(text, style="red" if alarm else "")


def screen(*, stderr: bool = False) -> Console:
    """Where a command prints; text stands as it is, so that `gatort[sim]` is no markup."""
    return Console(stderr=stderr, markup=False, highlight=False)


def progress_bar(noun: str, *, shown: bool = True) -> Progress:
    """A bar on standard error that counts things and says how long it will take; a task's description stands last."""
    columns = (
        TextColumn(noun),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    return Progress(*columns, console=screen(stderr=True), disable=not shown)


def percentile_record(latency: Percentiles) -> dict[str, float]:
    """The JSON form, `{"p50", "p99", "p99.9", "max"}` in ms."""
    return {name.replace("_", "."): value for name, value in asdict(latency).items()}


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
    partial.write_text(json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)
