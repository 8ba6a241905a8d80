"""Faults of onlookers (row 24): a terminal that takes no output, and a viewer that hangs."""

from __future__ import annotations

import os
import pty
from threading import Event, Thread

import numpy as np

from gatort.runtime.wording import counted
from gatort.sim.tasks.stacking.task import Stacking
from gatort.sim.viewer import Viewer

from .bench import Bench
from .judging import Deviation, InjectionResult, driven_steps, must_go_on
from .loop_bench import MS
from .run_process import running

UNREAD_NS = 3_000 * MS


def output_unread(bench: Bench, _: int) -> InjectionResult:
    """The terminal of `gatort run` takes no output: the run drops its lines."""
    arm = bench.arm
    terminal, inside = pty.openpty()
    _fill(inside)
    reader = Thread(target=_drain, args=(terminal,), daemon=True)
    try:
        with running(arm.endpoint, bench.new_folder(), terminal=inside) as run:
            armed_ns = bench.wait_for_motion(arm, run)
            bench.wait(UNREAD_NS)
            steps = bench.stop_run(arm, run, armed_ns, at_rest=reader.start)
            return must_go_on(steps, deviation=run.losses())
    finally:
        os.close(inside)  # This ends the reader.
        if reader.is_alive():
            reader.join()
        os.close(terminal)


def _fill(terminal: int) -> None:
    """Write until a terminal takes no more."""
    os.set_blocking(terminal, False)
    try:
        while True:
            os.write(terminal, b" " * 1024)
    except BlockingIOError:
        os.set_blocking(terminal, True)


def _drain(terminal: int) -> None:
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:  # Its other end is closed.
        return


class HungViewer(Viewer):
    """A window that opens and never does anything again."""

    def _show(self) -> None:
        self._opened.set()
        Event().wait()


def viewer_hung(bench: Bench, seed: int) -> InjectionResult:
    """Offer every tick's positions to a window that hangs."""
    arm = bench.arm
    task = Stacking()
    window = HungViewer(task.scene, task.layout(seed))
    positions = np.zeros(30)
    with window as viewer, bench.controller(arm) as robot:
        drive = bench.drive(robot, on_tick=lambda _: viewer.offer(positions))
    telemetry = drive.loop.telemetry
    late = None
    if telemetry.misses or telemetry.refused:
        late = f"{counted(telemetry.misses, 'miss', 'misses')}, {telemetry.refused} refused"
    return must_go_on(driven_steps(arm, drive), deviation=Deviation(late=late))
