"""Fault of the machine (row 22): four processes take the cores, and garbage is collected."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from gatort.runtime.loop import ControlLoop
from gatort.runtime.safety import State
from gatort.runtime.telemetry import LATENESS

from .bench import Bench
from .drive import Drive
from .judging import Deviation, InjectionResult, driven_steps, must_go_on
from .loop_bench import PERIOD_NS

HOGS = 4
HOGGED_TICKS = 60
GARBAGE = 100_000
"""Number of lists in cycles: collecting them takes about a tenth of a second."""


@contextmanager
def hogs(count: int) -> Iterator[None]:
    """Keep processes computing until the `with` block ends."""
    processes = [
        subprocess.Popen([sys.executable, "-P", "-c", "while True: pass"]) for _ in range(count)
    ]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def busy(bench: Bench, _: int) -> InjectionResult:
    """Drive while four processes take the cores; the wake-up lateness at p99 is the time."""
    arm = bench.arm
    # The garbage is made before the arm is armed: making it takes longer than collecting it.
    with hogs(HOGS), bench.controller(arm) as robot:
        drive = bench.drive(robot, HOGGED_TICKS, prepare=_make_garbage)
    lateness_ms = drive.loop.telemetry.percentiles(LATENESS).p99_ms
    counted, found = drive.loop.telemetry.misses, _misses(drive)
    deviation = Deviation()
    if counted != found:
        deviation = Deviation(wrong=f"counted misses: {counted}; the ticks themselves show {found}")
    return must_go_on(driven_steps(arm, drive), (State.RUN, State.HOLD), lateness_ms, deviation)


def _misses(drive: Drive) -> int:
    """Count the missed deadlines, from each tick's wake-up and stamps.

    A long tick and the deadline that it skips are one miss.
    """
    telemetry = drive.loop.telemetry
    # A drive's telemetry has room for all of its ticks.
    stamps = telemetry.stamps[: len(drive.ticks)]
    is_over = stamps.max(axis=1) - stamps[:, 0] > PERIOD_NS
    skipped = np.array([tick.wake.skipped for _, tick in drive.ticks], np.int64)
    explained = np.concatenate(([0], is_over[:-1].astype(np.int64)))
    return int(np.count_nonzero(is_over) + np.maximum(0, skipped - explained).sum())


def _make_garbage(_: ControlLoop) -> None:
    for _number in range(GARBAGE):
        cycle: list[object] = []
        cycle.append(cycle)
