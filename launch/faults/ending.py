"""Faults of whole processes and of who watches over them (rows 13 to 16 and 22 to 24)."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from threading import Event, Timer

import numpy as np

from gatort.runtime.errors import RobotError
from gatort.runtime.loop import ControlLoop
from gatort.runtime.remote.client import RemoteRobot
from gatort.runtime.safety import (
    STOPPED,
    State,
)
from gatort.runtime.telemetry import LATENESS
from gatort.sim.tasks import task_named
from gatort.sim.viewer import Viewer

from .bench import (
    MS,
    PERIOD_NS,
    ArmProcess,
    Bench,
    Drive,
    Outcome,
    RunProcess,
    driven_steps,
    ms,
    must_go_on,
    must_stop,
    seeded,
)

HOGS = 4
HOGGED_TICKS = 60
GARBAGE = 100_000
"""Lists in cycles: collecting them takes about a tenth of a second."""
LONGEST_WAKE_MS = 5.0
AFTER_RESUME_NS = 400 * MS
AN_HOUR_S = 3600
UNREAD_NS = 3_000 * MS

# The wall clock alone is moved, for one process, once a file is there. The monotonic clock goes on as it was.
SHIM = """
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long moved(void) { const char *f = getenv("GATORT_JUMP"); return f && access(f, F_OK) == 0 ? %d : 0; }
int clock_gettime(clockid_t id, struct timespec *at) {
    int status = syscall(SYS_clock_gettime, id, at);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) at->tv_sec += moved();
    return status;
}
int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""


def random_wait(bench: Bench, seed: int) -> None:
    """Let a fault fall anywhere within a tick."""
    bench.clock.sleep_until_ns(bench.clock.now_ns() + int(seeded(seed).integers(PERIOD_NS)))


# -- 13: the wall clock --------------------------------------------------------------------------------------------


def wall_clock(bench: Bench, seed: int) -> Outcome:
    """The wall clock of both processes jumps by an hour; the machine's own is left alone."""
    if shutil.which("gcc") is None:
        return Outcome(wrong="not run: it needs gcc to build the clock that jumps")
    folder = bench.new_folder()
    folder.mkdir()
    source, library, jump = folder / "shim.c", folder / "shim.so", folder / "jump"
    source.write_text(SHIM % AN_HOUR_S)
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
    environment = {"LD_PRELOAD": str(library), "GATORT_JUMP": str(jump)}
    with (
        bench.own_arm(environment=environment) as arm,
        bench.run_process(arm, environment=environment) as run,
    ):
        armed_ns = bench.wait_for_motion(arm, run)
        random_wait(bench, seed)
        before_s = _wall_clock_s(environment)
        jump.touch()
        jumped_s = _wall_clock_s(environment) - before_s
        bench.clock.sleep_until_ns(bench.clock.now_ns() + 20 * PERIOD_NS)
        ended_ns = stop_run(bench, run)
        steps = arm.trace.since(armed_ns).until(ended_ns)
    wrong = misses(run)
    if not AN_HOUR_S <= jumped_s < AN_HOUR_S + 60:
        wrong = f"the clock did not jump: {jumped_s:.0f} s"
    return must_go_on(steps, wrong=wrong)


def _wall_clock_s(environment: dict[str, str]) -> float:
    """What a process under the shim takes for the time of day."""
    command = [sys.executable, "-c", "import time; print(time.time())"]
    return float(
        subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, check=True
        ).stdout
    )


def stop_run(bench: Bench, run: RunProcess) -> int:
    """Stop a run as its operator does and wait for its report; returns when it was asked to."""
    asked_ns = bench.clock.now_ns()
    run.process.send_signal(signal.SIGINT)
    run.process.wait(30)
    return asked_ns


def misses(run: RunProcess) -> str | None:
    """What a run that nothing may disturb lost, as a sentence; none when it lost nothing."""
    report = run.report()
    if report["misses"] or report["refused"]:
        return f"{report['misses']} misses and refused ticks {report['refused']}"
    return None


# -- 14 to 16: processes that die or stand still -------------------------------------------------------------------


def controller_killed(bench: Bench, seed: int) -> Outcome:
    """SIGKILL of `gatort run`; the next controller finds the arm disarmed."""
    arm = bench.arm
    with bench.run_process(arm) as run:
        armed_ns = bench.wait_for_motion(arm, run)
        random_wait(bench, seed)
        killed_ns = bench.clock.now_ns()
        run.process.kill()
        outcome = must_stop(arm, armed_ns, killed_ns)
    with bench.controller(arm, RemoteRobot) as robot:
        robot.observe()
        if robot.state not in STOPPED:
            return replace(outcome, wrong=f"the next controller found the arm in {robot.state}")
    return outcome


def controller_suspended(bench: Bench, seed: int) -> Outcome:
    """SIGSTOP of `gatort run`, and SIGCONT once the arm is at rest: nothing that it then sends moves anything."""
    arm = bench.arm
    with bench.run_process(arm) as run:
        armed_ns = bench.wait_for_motion(arm, run)
        random_wait(bench, seed)
        stopped_ns = bench.clock.now_ns()
        run.process.send_signal(signal.SIGSTOP)
        # What was sent before takes effect after it; commands age from there.
        outcome = must_stop(arm, armed_ns, max(stopped_ns, arm.sensors.last_effect_ns))
        resumed_ns = bench.clock.now_ns()
        run.process.send_signal(signal.SIGCONT)
        bench.clock.sleep_until_ns(resumed_ns + AFTER_RESUME_NS)
        after = arm.trace.since(resumed_ns)
        run.process.wait(30)
    if after.sequence != [State.LATCHED] or after.values.any() != after.values[:1].any():
        return replace(outcome, wrong="something moved after SIGCONT without new consent")
    return outcome


def robot_killed(bench: Bench, seed: int) -> Outcome:
    """SIGKILL of the arm's process: the controller says so and ends."""
    killed: list[int] = []
    with bench.own_arm() as arm:

        def kill() -> None:
            killed.append(bench.clock.now_ns())
            arm.process.kill()

        with bench.controller(arm, RemoteRobot) as robot:
            timer = Timer(0.5 + seeded(seed).uniform(0, PERIOD_NS * 1e-9), kill)
            timer.start()
            drive = bench.drive(robot)
            timer.join()
        steps = arm.trace.since(drive.began_ns)
    wrong = steps.fault()
    if not isinstance(drive.error, RobotError) or "hung up" not in str(drive.error):
        wrong = f"expected the controller to say that the robot hung up, found {drive.error}"
    # What a dead process holds is for the arm's own hardware; there is no torque to time.
    return Outcome(ms(killed[0], drive.ended_ns), None, wrong)


# -- 22: a machine that is busy ------------------------------------------------------------------------------------


@contextmanager
def _hogs() -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(HOGS)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def busy(bench: Bench, _: int) -> Outcome:
    """Four processes take the cores, and there is garbage that takes the controller long to collect."""
    arm = bench.arm
    # Made before the arm is armed: making it would hold the loop up for longer than collecting it.
    with _hogs(), bench.controller(arm, RemoteRobot) as robot:
        drive = bench.drive(robot, HOGGED_TICKS, prepare=_make_garbage)
    wakes = drive.loop.telemetry.percentiles(LATENESS)
    wrong = (
        None
        if wakes.p99_ms < LONGEST_WAKE_MS
        else f"the loop woke {wakes.p99_ms:.1f} ms late at p99"
    )
    if bench.not_granted and wrong:
        wrong += f" ({'; '.join(bench.not_granted)})"
    if len(drive.ticks) < HOGGED_TICKS:
        wrong = wrong or f"the run stopped after {len(drive.ticks)} ticks: {drive.loop.refusal}"
    if (counted := drive.loop.telemetry.misses) != (found := _misses(drive)):
        wrong = wrong or f"{counted} misses were counted, the ticks themselves show {found}"
    return must_go_on(driven_steps(arm, drive), (State.RUN, State.HOLD), wakes.p99_ms, wrong)


def _misses(drive: Drive) -> int:
    """What a run missed by each tick's wake and stamps; a long tick and the deadline that it skips are one miss."""
    telemetry = drive.loop.telemetry
    stamps = telemetry.stamps[
        : len(drive.ticks)
    ]  # A drive's telemetry has room for all of its ticks.
    over = stamps.max(axis=1) - stamps[:, 0] > PERIOD_NS
    skipped = np.array([tick.wake.skipped for _, tick in drive.ticks], np.int64)
    explained = np.concatenate(([False], over[:-1]))
    return int(over.sum() + np.maximum(0, skipped - explained).sum())


def _make_garbage(_loop: ControlLoop) -> None:
    for _ in range(GARBAGE):
        cycle: list[object] = []
        cycle.append(cycle)


# -- 23: the operator stops ----------------------------------------------------------------------------------------


def operator_signal(number: signal.Signals, bench: Bench, seed: int) -> Outcome:
    """Ctrl-C, or the loss of the console, at the controller."""
    arm = bench.arm
    with bench.run_process(arm) as run:
        armed_ns = bench.wait_for_motion(arm, run)
        random_wait(bench, seed)
        asked_ns = bench.clock.now_ns()
        run.process.send_signal(number)
        return must_stop(arm, armed_ns, asked_ns, _safe_since(arm, asked_ns))


def operator_console(press: Callable[[ArmProcess], None], bench: Bench, seed: int) -> Outcome:
    """A key, or the button that sends SIGUSR1, on the arm's own side; then no controller may arm it."""
    arm = bench.arm
    with bench.controller(arm, RemoteRobot) as robot:
        asked: list[int] = []

        def ask() -> None:
            asked.append(bench.clock.now_ns())
            press(arm)

        timer = Timer(0.3 + seeded(seed).uniform(0, PERIOD_NS * 1e-9), ask)
        timer.start()
        drive = bench.drive(robot)
        timer.join()
        outcome = must_stop(arm, drive.began_ns, asked[0], _safe_since(arm, asked[0]))
        answer = "nothing"
        try:
            robot.arm()
        except RobotError as error:
            answer = str(error)
        arm.press(b"a")
        arm.wait_until(lambda: "allows arming" not in arm.said.splitlines()[-1])
    if "own side" not in answer:
        return replace(
            outcome,
            wrong=f"expected no arming of what was stopped on its own side, found {answer!r}",
        )
    return outcome


def _safe_since(arm: ArmProcess, asked_ns: int) -> int | None:
    """When the arm began to stop, which for an operator is what counts."""
    arm.rest()
    return arm.trace.since(asked_ns).first(State.SAFE, State.LATCHED)


interrupt = partial(operator_signal, signal.SIGINT)
console_lost = partial(operator_signal, signal.SIGHUP)
key = partial(operator_console, lambda arm: arm.press(b" "))
button = partial(operator_console, lambda arm: arm.process.send_signal(signal.SIGUSR1))


# -- 24: who looks on ----------------------------------------------------------------------------------------------


def output_unread(bench: Bench, _: int) -> Outcome:
    """The terminal of `gatort run` takes nothing: what it would show is dropped."""
    arm = bench.arm
    terminal, inside = pty.openpty()
    _fill(inside)
    reader = Timer(0, _drain, (terminal,))
    reader.daemon = True
    try:
        with bench.run_process(arm, terminal=inside) as run:
            armed_ns = bench.wait_for_motion(arm, run)
            bench.clock.sleep_until_ns(bench.clock.now_ns() + UNREAD_NS)
            asked_ns = bench.clock.now_ns()
            run.process.send_signal(signal.SIGINT)
            arm.rest()
            reader.start()
            run.process.wait(30)
            steps = arm.trace.since(armed_ns).until(asked_ns)
            return must_go_on(steps, wrong=misses(run))
    finally:
        os.close(inside)  # Which ends the reader.
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


def viewer_hung(bench: Bench, seed: int) -> Outcome:
    """A window that hangs is offered every tick's positions."""
    arm = bench.arm
    positions = np.zeros(30)
    task = task_named("stacking")
    window = HungViewer(task.scene, task.layout(seed))
    with window as viewer, bench.controller(arm, RemoteRobot) as robot:
        drive = bench.drive(robot, on_tick=lambda _: viewer.offer(positions))
    telemetry = drive.loop.telemetry
    wrong = (
        f"{telemetry.misses} misses, {telemetry.refused} refused"
        if telemetry.misses + telemetry.refused
        else None
    )
    return must_go_on(driven_steps(arm, drive), wrong=wrong)
