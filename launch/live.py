"""The live table: the newest status of a run, drawn by a thread that the loop never waits for.

The loop offers a status in its slack, right after a command went out, so drawing has the rest of
the period. A terminal that blocks stops only the thread. Statuses that the thread misses are
dropped. The table fits 80 columns and 24 lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gatort.runtime.durations import Percentiles
from gatort.runtime.onlooker import Onlooker
from gatort.runtime.safety import State
from gatort.runtime.telemetry import Passes, Rate

from .report import alarming, counts, passes_sentence

PERIOD_NS = 250_000_000
"""Shortest time between two drawings."""
STYLES = {
    State.RUN: "bold green",
    State.HOLD: "bold yellow",
    State.SAFE: "bold white on red",
    State.LATCHED: "bold white on red",
}
"""Style of each state; a disarmed robot has none."""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """Status of a run at one instant."""

    title: str
    """Bundle, engine, robot and scheduling."""
    elapsed_s: float
    """Time since the first tick."""
    longest_s: float
    """Longest duration of the run."""
    rate: Rate
    """Ticks per second."""
    tick: Percentiles
    """Percentiles of every tick so far."""
    passes: Passes
    """Forward passes of every tick so far."""
    budget_ms: float
    """Longest tick that is not a miss."""
    deadline_ms: float
    """Age of an observation at which the answer to it comes too late."""
    misses: int
    """Number of ticks over the budget and of skipped deadlines."""
    refused: Mapping[str, int]
    """Number of ticks without a command, by reason."""
    state: State
    """State of guard or robot, whichever is further from RUN."""
    cause: str | None
    """Sentence on the newest refusal or on the end of the run."""
    recording_fault: str | None
    """Reason why the recording is incomplete."""
    succeeded: bool | None
    """True if the robot has reported the task's success; `None` without a task."""
    blind: bool = False
    """True to leave out durations and passes, by which a person could tell policies apart."""
    has_arm: str | None = None
    """Sentence on who has the arm; `None` where nobody can take it over."""
    by_person: bool = False
    """True while a person has the arm."""

    def table(self) -> Table:
        """Return the status as a table of names and values."""
        table = Table(title=self.title, title_justify="left", show_header=False, box=None)
        table.add_column(style="dim")
        table.add_column(overflow="fold")
        for name, cell in self._rows():
            table.add_row(name, cell)
        return table

    def _rows(self) -> Iterator[tuple[str, Text]]:
        left_s = max(0.0, self.longest_s - self.elapsed_s)
        success = {None: "", True: ", success", False: ", no success yet"}[self.succeeded]
        state = Text(f" {self.state.upper()} ", STYLES.get(self.state, ""))
        yield "state", state + Text(f" {self.elapsed_s:.1f} s, {left_s:.0f} s left{success}")

        if self.has_arm is not None:
            yield "arm", Text(self.has_arm, "bold magenta" if self.by_person else "")

        rate = self.rate
        hertz = f"{rate.now_hz:.1f} Hz now, {rate.average_hz:.1f} average"
        yield "rate", Text(f"{hertz}, {rate.worst_second_hz:.1f} in the worst second")

        if not self.blind:
            yield from self._policy_rows()
        yield "misses", alarming(str(self.misses), self.misses > 0)
        refused = sum(self.refused.values())
        yield "refused", alarming(f"{refused}{counts(self.refused)}", refused > 0)
        if self.cause is not None:
            yield "cause", alarming(self.cause, self.state is not State.RUN)
        if self.recording_fault is not None:
            yield "recording", alarming(f"DEGRADED: {self.recording_fault}", True)

    def _policy_rows(self) -> Iterator[tuple[str, Text]]:
        tick = Text()
        named = (("p50", self.tick.p50_ms), ("p99", self.tick.p99_ms), ("max", self.tick.max_ms))
        for name, value_ms in named:
            tick += Text(f"{name} ") + alarming(f"{value_ms:.1f}", value_ms > self.budget_ms)
            tick += Text(" ms" if name == "max" else ", ")
        yield "tick", tick + Text(f"; period {self.budget_ms:g}, deadline {self.deadline_ms:g} ms")

        if self.passes.saved:
            yield "passes", Text(passes_sentence(self.passes))


class LiveTable(Onlooker):
    """Table of the newest offered status."""

    def __init__(self, console: Console) -> None:
        super().__init__("live table")
        self._console = console
        self._newest: RunStatus | None = None

    def offer(self, status: RunStatus) -> None:
        """Hand over a status without waiting."""
        self._newest = status
        self._offered.set()

    def _show(self) -> None:
        with Live(console=self._console, auto_refresh=False) as live:
            for _ in self._offers():
                if (status := self._newest) is not None:
                    live.update(status.table(), refresh=True)
        if not self._console.is_terminal:
            # A file gets only the last table, without the end of its last line.
            self._console.print()
