"""The live table shows the newest status and never holds the loop up."""

from __future__ import annotations

import io
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
from rich.console import Console

from gatort.launch.live import LiveTable, RunStatus
from gatort.runtime.durations import Percentiles
from gatort.runtime.safety import State
from gatort.runtime.telemetry import Passes, Rate

STATUS = RunStatus(
    title="stack_camera, native, mujoco, SCHED_FIFO 10, nice -10",
    elapsed_s=12.0,
    longest_s=20.0,
    rate=Rate(now_hz=20.0, average_hz=19.9, worst_second_hz=18.7),
    tick=Percentiles(count=1200, p50_ms=17.1, p99_ms=24.2, p99_9_ms=30.0, max_ms=61.5),
    passes=Passes(("shoulder", "elbow", "hand"), np.array([0, 0, 3, 1]), np.array([2, 0])),
    budget_ms=50.0,
    deadline_ms=25.0,
    misses=1,
    refused={"action late": 4},
    state=State.RUN,
    cause=None,
    recording_fault=None,
    succeeded=False,
)
STOPPED = replace(
    STATUS,
    state=State.LATCHED,
    cause="stopped in latched (by the robot: no command for 95 ms; 4× action late)",
    recording_fault="the recorder process ended",
    succeeded=True,
)


def drawn(status: RunStatus, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(status.table())
    return console.export_text()


def test_a_blind_table_leaves_out_durations_and_passes_by_which_policies_differ() -> None:
    text = drawn(replace(STATUS, title="KRTX", blind=True))

    assert "p50" not in text
    assert "passes" not in text
    assert "4 (4× action late)" in text


def test_the_table_says_rate_latency_limits_misses_refusals_and_time_left() -> None:
    text = drawn(STATUS)
    for word in (
        "stack_camera, native, mujoco, SCHED_FIFO 10",
        "RUN  12.0 s, 8 s left, no success yet",
        "20.0 Hz now, 19.9 average, 18.7 in the worst second",
        "p50 17.1, p99 24.2, max 61.5 ms; period 50, deadline 25 ms",
        "mean 2.25, p50 2, p99 3, max 3 of 3",
        "4 (4× action late)",
    ):
        assert word in text


@pytest.mark.parametrize("status", [STATUS, STOPPED], ids=["running", "stopped"])
def test_the_table_fits_a_terminal_of_80_columns_and_24_lines_and_cuts_no_word(
    status: RunStatus,
) -> None:
    lines = drawn(status).splitlines()
    assert len(lines) <= 24
    assert all(len(line) <= 80 for line in lines)
    assert "…" not in "".join(lines)


def test_a_run_that_was_stopped_shows_the_cause_and_a_fault_of_its_recording() -> None:
    text = " ".join(drawn(STOPPED).split())
    assert "LATCHED 12.0 s, 8 s left, success" in text
    assert "by the robot: no command for 95 ms" in text
    assert "DEGRADED: the recorder process ended" in text


def test_the_state_is_in_colour() -> None:
    styles = set()
    for state in (State.RUN, State.HOLD, State.SAFE):
        console = Console(file=io.StringIO(), width=80, force_terminal=True, record=True)
        console.print(replace(STATUS, state=state).table())
        text = console.export_text(styles=True)
        styles.add(text[: text.index(state.upper())].rpartition("\x1b")[2])
    assert len(styles) == 3


def test_the_newest_status_is_drawn_before_the_table_closes() -> None:
    screen = io.StringIO()
    with LiveTable(Console(file=screen, width=120, force_terminal=True)) as live:
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
    live = LiveTable(Console(file=terminal, width=120, force_terminal=True))
    with live:
        live.offer(STATUS)
        assert terminal.reached.wait(5.0)
        for _ in range(10_000):
            live.offer(STATUS)
        terminal.released.set()
    assert terminal.getvalue().count("18.7") <= 3
