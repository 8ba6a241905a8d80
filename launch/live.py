"""The live table: the newest status of a run, drawn by a thread that the loop never waits for.

The loop offers a status in its slack, right after a command went out, so drawing has the rest of
the period. A terminal that blocks stops only the thread. Statuses that the thread misses are
dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table

from gatort.runtime.durations import Percentiles
from gatort.runtime.onlooker import Onlooker
from gatort.runtime.safety import State
from gatort.runtime.telemetry import Rate

from .report import alarming

PERIOD_NS = 250_000_000
"""Shortest time between two drawings."""
COLUMNS = (
    "Hz now", "average", "worst second", "p50 ms", "p99", "max", "misses", "state", "success",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunStatus:
    """Status of a run at one instant."""

    elapsed_s: float
    """Time since the first tick."""
    rate: Rate
    """Ticks per second."""
    tick: Percentiles
    """Percentiles of every tick so far."""
    misses: int
    """Number of ticks over the budget and of skipped deadlines."""
    state: State
    """State of guard or robot, whichever is further from RUN."""
    succeeded: bool
    """True if the robot has reported the task's success."""

    def table(self, budget_ms: float) -> Table:
        """Return the status as a table of one row."""
        table = Table(title=f"{self.elapsed_s:5.1f} s", title_justify="left")
        for column in COLUMNS:
            table.add_column(column, justify="right")

        rates = (self.rate.now_hz, self.rate.average_hz, self.rate.worst_second_hz)
        latencies = (self.tick.p50_ms, self.tick.p99_ms, self.tick.max_ms)
        table.add_row(
            *(f"{hz:.1f}" for hz in rates),
            *(alarming(f"{ms:.1f}", ms > budget_ms) for ms in latencies),
            alarming(str(self.misses), self.misses > 0),
            alarming(self.state, self.state != State.RUN),
            "yes" if self.succeeded else "not yet",
        )
        return table


class LiveTable(Onlooker):
    """Table of the newest offered status."""

    def __init__(self, console: Console, budget_ms: float) -> None:
        super().__init__("live table")
        self._console = console
        self._budget_ms = budget_ms
        self._newest: RunStatus | None = None

    def offer(self, status: RunStatus) -> None:
        """Hand over a status without waiting."""
        self._newest = status
        self._offered.set()

    def _show(self) -> None:
        with Live(console=self._console, auto_refresh=False) as live:
            for _ in self._offers():
                if (status := self._newest) is not None:
                    live.update(status.table(self._budget_ms), refresh=True)
        if not self._console.is_terminal:
            # A file gets only the last table, without the end of its last line.
            self._console.print()
