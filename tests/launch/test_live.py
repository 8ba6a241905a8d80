"""The live table shows the newest status and never holds the loop up."""

from __future__ import annotations

import io
from threading import Event

from rich.console import Console

from gatort.launch.live import LiveTable, RunStatus
from gatort.runtime.durations import Percentiles
from gatort.runtime.safety import State
from gatort.runtime.telemetry import Rate

STATUS = RunStatus(
    elapsed_s=12.0,
    rate=Rate(now_hz=20.0, average_hz=19.9, worst_second_hz=18.7),
    tick=Percentiles(count=1200, p50_ms=17.1, p99_ms=24.2, p99_9_ms=30.0, max_ms=61.5),
    misses=1,
    state=State.RUN,
    succeeded=False,
)


def test_the_table_says_rate_latency_misses_state_and_success() -> None:
    console = Console(file=io.StringIO(), width=120, record=True)
    console.print(STATUS.table(budget_ms=50.0))
    text = console.export_text()
    for word in ("20.0", "19.9", "18.7", "17.1", "24.2", "61.5", "run", "not yet"):
        assert word in text


def test_the_newest_status_is_drawn_before_the_table_closes() -> None:
    screen = io.StringIO()
    with LiveTable(Console(file=screen, width=120, force_terminal=True), budget_ms=50.0) as live:
        live.offer(STATUS)
    assert "18.7" in screen.getvalue()


class BlockedTerminal(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.reached, self.released = Event(), Event()

    def write(self, text: str) -> int:
        self.reached.set()
        self.released.wait()
        return super().write(text)


def test_a_terminal_that_blocks_drops_statuses_and_never_blocks_the_offer() -> None:
    terminal = BlockedTerminal()
    live = LiveTable(Console(file=terminal, width=120, force_terminal=True), budget_ms=50.0)
    with live:
        live.offer(STATUS)
        assert terminal.reached.wait(5.0)
        for _ in range(10_000):
            live.offer(STATUS)
        terminal.released.set()
    assert terminal.getvalue().count("18.7") <= 3
