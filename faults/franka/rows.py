"""The faults of a Franka arm that gatort must survive, on franka-sim with its limits in force.

No row has a bound in time: franka-sim keeps no real time on a busy machine. A row asserts the order
of states, the torques of each cycle, the arm's errors, exit statuses and sentences.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Thread

import numpy as np

from gatort.faults.judging import InjectionResult, ms, words
from gatort.faults.loop_bench import MS, PERIOD_NS
from gatort.faults.machine_load import hogs
from gatort.faults.rows import Fault, Row
from gatort.runtime.errors import RobotError
from gatort.runtime.exit_status import ExitStatus
from gatort.runtime.remote.client import RemoteRobot
from gatort.runtime.robots.franka.fci import PORT, VERSION
from gatort.runtime.safety import STOPPED, Command, State

from .bench import LINK_LOST, LOOP_NAME, FrankaArm, FrankaBench

END_S = 20.0
PUSH_NM = 12.0
"""Torque of joint 1 while an operator stops the arm: twelve cycles' worth of its rate."""
REFLEX = "communication_constraints_violation"
MISSED_NS = 60 * MS
"""Time for which the arm gets no answer. It stops itself after 20 cycles."""
OTHER_ADDRESS = "127.0.0.3"


def must_be_let_go(
    arm: FrankaArm, fault_ns: int, *, reflex: str = "", reason: str | None = None
) -> InjectionResult:
    """Judge the cycles of an arm that had to fade, latch and be let go at no torque."""
    cycles = arm.cycles()
    wrong = cycles.fault(reflex)
    if cycles.sequence[-2:] != [State.SAFE, State.LATCHED]:
        wrong = wrong or (
            f"expected the arm to end in SAFE and LATCHED, found {words(cycles.sequence)}"
        )
    if not reflex and not cycles.is_let_go:
        wrong = wrong or "the arm was not let go at no torque"
    if reason is not None and reason not in arm.said:
        wrong = wrong or f"expected the arm's process to say {reason!r}, found {arm.said[-300:]!r}"
    after = arm.cycles(fault_ns)
    noticed_ns = after.first(State.HOLD, State.SAFE, State.LATCHED)
    latched_ns = after.first(State.LATCHED)
    return InjectionResult(ms(fault_ns, noticed_ns), ms(fault_ns, latched_ns), wrong)


def controller(number: signal.Signals, bench: FrankaBench, seed: int) -> InjectionResult:  # noqa: ARG001
    """A signal to the controller while it moves the arm; nothing moves once it goes on."""
    with bench.arm() as arm, bench.waving(arm) as run:
        fault_ns = bench.clock.now_ns()
        run.process.send_signal(number)
        bench.rest(arm)
        run.process.send_signal(signal.SIGCONT)
        bench.wait(400 * MS)
        return must_be_let_go(arm, fault_ns)


def robot(number: signal.Signals, bench: FrankaBench, seed: int) -> InjectionResult:  # noqa: ARG001
    """A signal to the arm's process: the inner loop's process fades the arm and lets it go."""
    with bench.arm() as arm, bench.waving(arm):
        loop = arm.pid_of(LOOP_NAME)
        fault_ns = bench.clock.now_ns()
        arm.process.send_signal(number)
        bench.rest(arm)
        result = must_be_let_go(arm, fault_ns)
        arm.process.send_signal(signal.SIGCONT)
        bench.wait(400 * MS)
        if arm.cycles(fault_ns).states[-1] is not State.LATCHED:
            return replace(result, wrong="something moved after SIGCONT without new consent")
        if number is signal.SIGKILL and _runs(loop):
            return replace(result, wrong="the inner loop's process did not end with its arm")
    return result


def _runs(pid: int) -> bool:
    try:
        return LOOP_NAME.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def operator_stop(bench: FrankaBench, seed: int) -> InjectionResult:
    """A key at the arm's console at a high torque; then no controller may arm it."""
    ticks = 30 + int(np.random.default_rng(seed).integers(10))
    with bench.arm() as arm, closing(RemoteRobot(arm.endpoint, bench.clock, None)) as robot:
        robot.observe()
        robot.arm()
        next_ns, pressed_ns = bench.clock.now_ns(), 0
        for tick in range(1, 200):
            observation = robot.observe()
            if pressed_ns and robot.state in STOPPED:
                break
            values = np.zeros(7)
            values[0] = PUSH_NM * (1 if tick // 4 % 2 else -1)
            apply_ns = observation.stamp_ns + 25 * MS
            robot.command(Command(tick, observation.sequence, apply_ns, 60 * MS, values))
            if tick == ticks:
                pressed_ns = bench.clock.now_ns()
                arm.press(b" ")
            next_ns += PERIOD_NS
            bench.clock.sleep_until_ns(next_ns)
        bench.rest(arm)
        result = must_be_let_go(arm, pressed_ns)
        answer = "nothing"
        try:
            robot.arm()
        except RobotError as error:
            answer = str(error)
    if np.abs(arm.cycles().torques_nm[:, 0]).max() < PUSH_NM / 2:
        return replace(result, late="the arm never got the torque at which it was to be stopped")
    if "own side" not in answer:
        wrong = f"expected an arm stopped on its own side to refuse arming, found {answer!r}"
        return replace(result, wrong=wrong)
    return result


def reflex(bench: FrankaBench, seed: int) -> InjectionResult:  # noqa: ARG001
    """No answer for 60 ms: the arm stops itself, its process stays up, its operator recovers it."""
    with bench.arm() as arm:
        with bench.waving(arm) as run:
            loop = arm.pid_of(LOOP_NAME)
            fault_ns = bench.clock.now_ns()
            os.kill(loop, signal.SIGSTOP)
            bench.wait(MISSED_NS)
            os.kill(loop, signal.SIGCONT)
            bench.rest(arm)
            run.process.wait(END_S)
        reason = f"the arm stopped itself: {REFLEX}"
        result = must_be_let_go(arm, fault_ns, reflex=REFLEX, reason=reason)
        if result.wrong:
            return result

        with closing(RemoteRobot(arm.endpoint, bench.clock, None)) as robot:
            robot.observe()
            try:
                robot.arm()
            except RobotError as error:
                refused = str(error)
            else:
                return replace(result, wrong="an arm that stopped itself was armed again")
            arm.allow_arming()
            recovered_ns = bench.clock.now_ns()
            robot.observe()
            robot.arm()
            bench.wait(100 * MS)
            robot.observe()
            armed = arm.cycles(recovered_ns).first(State.RUN)
        if armed is None:
            return replace(result, wrong="the arm could not be armed after its recovery")
        if reason not in refused:
            return replace(result, wrong=f"expected the refusal to say {reason!r}, found {refused}")
    return result


def other_protocol(bench: FrankaBench, seed: int) -> InjectionResult:  # noqa: ARG001
    """A control box of protocol 5, as a Panda has: refused in one sentence."""

    def answer(listener: socket.socket) -> None:
        client, _ = listener.accept()
        with client:
            client.recv(1_000)
            client.sendall(struct.pack("<IIIBH", 0, 1, 15, 1, 5))
            client.recv(1)

    with socket.create_server((OTHER_ADDRESS, PORT)) as listener:
        box = Thread(target=answer, args=(listener,))
        box.start()
        began_ns = bench.clock.now_ns()
        try:
            FrankaArm(bench.new_folder(), OTHER_ADDRESS, "none").close()
            said = "nothing"
        except RobotError as error:
            said = str(error)
        box.join()
    expected = f"speaks protocol 5, expected {VERSION}: this driver is for an FR3"
    wrong = None if expected in said else f"expected {expected!r}, found {said!r}"
    return InjectionResult(ms(began_ns, bench.clock.now_ns()), None, wrong)


def hand_killed(bench: FrankaBench, seed: int) -> InjectionResult:  # noqa: ARG001
    """SIGKILL of the hand's process: the arm is faded, and its process says why and ends."""
    with bench.arm(hand="franka") as arm, bench.waving(arm):
        fault_ns = bench.clock.now_ns()
        os.kill(arm.pid_of("franka.hand"), signal.SIGKILL)
        bench.rest(arm)
        return _must_end(arm, must_be_let_go(arm, fault_ns), "the hand failed")


def link_lost(bench: FrankaBench, seed: int) -> InjectionResult:  # noqa: ARG001
    """SIGKILL of the control box: the arm's process says that the link was lost, and ends."""
    with bench.arm() as arm, bench.waving(arm):
        fault_ns = bench.clock.now_ns()
        bench.end_arm()
        # Nobody can fade an arm that does not answer. It stops itself.
        wrong = arm.cycles().fault()
        noticed = InjectionResult(ms(fault_ns, bench.clock.now_ns()), None, wrong)
        return _must_end(arm, noticed, LINK_LOST)


def _must_end(arm: FrankaArm, result: InjectionResult, sentence: str) -> InjectionResult:
    """Check that the arm's process ends by itself with a sentence."""
    status = arm.process.wait(END_S)
    if result.wrong:
        return result
    if status != ExitStatus.REFUSED or sentence not in arm.said:
        expected = f"expected status {ExitStatus.REFUSED} and {sentence!r}"
        return replace(result, wrong=f"{expected}, found {status} and {arm.said.strip()[-300:]!r}")
    return result


def busy(bench: FrankaBench, seed: int) -> InjectionResult:  # noqa: ARG001
    """Both cores busy while the arm is waved: no torque jumps, and the arm does not stop itself."""
    with bench.arm() as arm, hogs(len(os.sched_getaffinity(0))), bench.waving(arm) as run:
        bench.wait(4_000 * MS)
        stopped_ns = bench.clock.now_ns()
        run.process.send_signal(signal.SIGINT)
        bench.rest(arm)
        # The operator ends the run: there is no reaction to time.
        return replace(must_be_let_go(arm, stopped_ns), detected_ms=None, safe_ms=None)


KILL, SUSPEND = signal.SIGKILL, signal.SIGSTOP
FRANKA_ROWS = (
    Row(
        1,
        "SAFE, and let go at no torque",
        (
            Fault("controller", "kill", partial(controller, KILL)),
            Fault("controller", "suspend", partial(controller, SUSPEND)),
        ),
    ),
    Row(
        2,
        "SAFE by the inner loop's process, and let go",
        (
            Fault("robot", "kill", partial(robot, KILL)),
            Fault("robot", "suspend", partial(robot, SUSPEND)),
        ),
    ),
    Row(3, "SAFE in steps of the arm's rate; latched", (Fault("operator", "key", operator_stop),)),
    Row(4, "named; stays up; only its operator recovers it", (Fault("arm", "reflex", reflex),)),
    Row(
        5,
        "refused in one sentence",
        (Fault("arm", "other_protocol", other_protocol),),
        measured="until refused",
    ),
    Row(6, "SAFE; its process says so and ends", (Fault("hand", "kill", hand_killed),)),
    Row(7, "its process says so and ends", (Fault("link", "lost", link_lost),)),
    Row(8, "no reflex, no jump of a torque", (Fault("cpu", "busy", busy),)),
)
