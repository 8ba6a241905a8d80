"""The live table: the newest state of a run, drawn by a thread that the loop never waits for.

The loop offers a status in its slack, right after a command went out, so that drawing has the rest of the period;
a terminal that blocks stops the thread alone, and the statuses it misses are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table

from gatort.runtime.onlooker import Onlooker
from gatort.runtime.safety import State
from gatort.runtime.telemetry import (
    Percentiles,
    Rate,
)

from .report import alarming

PERIOD_NS = 250_000_000
"""At most four drawings a second."""


@dataclass(frozen=True, slots=True)
class Status:
    """A run at one instant."""

    elapsed_s: float
    rate: Rate
    tick: Percentiles
    """Of every tick so far."""
    misses: int
    state: State
    succeeded: bool

    def table(self, budget_ms: float) -> Table:
        """Lay the status out in one row."""
        table = Table(title=f"{self.elapsed_s:5.1f} s", title_justify="left")
        for column in (
            "Hz now",
            "average",
            "worst second",
            "p50 ms",
            "p99",
            "max",
            "misses",
            "state",
            "success",
        ):
            table.add_column(column, justify="right")
        latencies = (self.tick.p50_ms, self.tick.p99_ms, self.tick.max_ms)
        table.add_row(
            *(
                f"{hz:.1f}"
                for hz in (self.rate.now_hz, self.rate.average_hz, self.rate.worst_second_hz)
            ),
            *(alarming(f"{ms:.1f}", ms > budget_ms) for ms in latencies),
            alarming(str(self.misses), self.misses > 0),
            alarming(self.state, self.state != State.RUN),
            "yes" if self.succeeded else "not yet",
        )
        return table


class LiveTable(Onlooker):
    """Draws the newest status that it was offered."""

    def __init__(self, console: Console, budget_ms: float) -> None:
        super().__init__("live table")
        self._console, self._budget_ms = console, budget_ms
        self._newest: Status | None = None

    def offer(self, status: Status) -> None:
        """Hand over a status; never waits."""
        self._newest = status
        self._offered.set()

    def _show(self) -> None:
        with Live(console=self._console, auto_refresh=False) as live:
            for _ in self._offers():
                if (status := self._newest) is not None:
                    live.update(status.table(self._budget_ms), refresh=True)
        if not self._console.is_terminal:
            self._console.print()  # a file gets the last table alone, and no end of line after it
