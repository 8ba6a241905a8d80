"""Stops by the operator (row 23): a signal at the controller, or the arm's own console."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from gatort.runtime.errors import RobotError
from gatort.runtime.robot import Robot
from gatort.runtime.safety import State

from .arm_process import ArmProcess
from .arms import DrivenArm
from .bench import Bench
from .judging import InjectionResult, must_stop, seeded
from .loop_bench import PERIOD_NS, LoopBench
from .run_process import running


def controller_signal(number: signal.Signals, bench: Bench, seed: int) -> InjectionResult:
    """Ctrl-C, or the loss of the console, at the controller."""
    arm = bench.arm
    with running(arm.endpoint, bench.new_folder()) as run:
        armed_ns = bench.wait_for_motion(arm, run)
        bench.wait_within_a_tick(seeded(seed))
        asked_ns = bench.clock.now_ns()
        run.process.send_signal(number)
        return must_stop(arm, armed_ns, asked_ns, _stopped_ns(arm, asked_ns))


interrupt = partial(controller_signal, signal.SIGINT)
console_lost = partial(controller_signal, signal.SIGHUP)


def stop_while_driving(
    bench: LoopBench, arm: DrivenArm, robot: Robot, press: Callable[[], None], seed: int
) -> InjectionResult:
    """Stop the arm on its own side, anywhere within a tick of a run."""
    asked: list[int] = []

    def ask() -> None:
        asked.append(bench.clock.now_ns())
        press()

    wait_s = 0.3 + seeded(seed).uniform(0, PERIOD_NS * 1e-9)
    with bench.after(wait_s, ask):
        drive = bench.drive(robot)
    drive.require_fault(bool(asked))
    return must_stop(arm, drive.began_ns, asked[0], _stopped_ns(arm, asked[0]))


def own_console(press: Callable[[ArmProcess], None], bench: Bench, seed: int) -> InjectionResult:
    """A key, or the button that sends SIGUSR1, on the arm's side; then no controller may arm it."""
    arm = bench.arm
    with bench.controller(arm) as robot:
        result = stop_while_driving(bench, arm, robot, lambda: press(arm), seed)
        answer = "nothing"
        try:
            robot.arm()
        except RobotError as error:
            answer = str(error)
        arm.allow_arming()
    if "own side" not in answer:
        wrong = f"expected an arm stopped on its own side to refuse arming, found {answer!r}"
        return replace(result, wrong=wrong)
    return result


key = partial(own_console, lambda arm: arm.press(b" "))
button = partial(own_console, lambda arm: arm.process.send_signal(signal.SIGUSR1))


def _stopped_ns(arm: DrivenArm, asked_ns: int) -> int | None:
    """Return when the arm began to stop, which counts as detection for an operator."""
    arm.rest()
    return arm.trace.since(asked_ns).first(State.SAFE, State.LATCHED)
