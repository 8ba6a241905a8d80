"""Faults of keys and sessions (rows 10 and 11): strangers at the robot, or the wrong robot."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Literal

import zmq

from gatort.runtime.errors import RobotError
from gatort.runtime.loop import TickRecord
from gatort.runtime.remote import wire
from gatort.runtime.remote.client import RemoteRobot
from gatort.runtime.remote.keys import ControllerKeys
from gatort.runtime.remote.zmq_sockets import bounded_socket

from .arm_process import ArmProcess
from .bench import Bench
from .judging import Deviation, InjectionResult, driven_steps, must_go_on
from .loop_bench import MS
from .sensors import GOOD_TICKS


def _refused_within(
    arm: ArmProcess, bench: Bench, keys: ControllerKeys | None
) -> tuple[float, str]:
    """Return the time in ms until a connection was refused, and the words; empty if let in."""
    began_ns = bench.clock.now_ns()
    words = ""
    try:
        with closing(RemoteRobot(arm.endpoint, bench.clock, keys)):
            pass
    except RobotError as error:
        words = str(error)
    return (bench.clock.now_ns() - began_ns) * 1e-6, words


def _known_keys(arm: ArmProcess) -> ControllerKeys:
    if arm.keys is None:
        raise RobotError("expected an arm with keys, found one without")
    return arm.keys


# -- 10: strangers ---------------------------------------------------------------------------------


def intruder(kind: Literal["unknown", "none"], bench: Bench, _: int) -> InjectionResult:
    """A stranger with an unknown key, or without one, connects while a controller drives."""
    arm = bench.keyed_arm
    arm.rest()
    known = _known_keys(arm)
    strange = ControllerKeys(zmq.curve_keypair()[1], known.robot, known.directory)
    counter = "unknown keys" if kind == "unknown" else "broken handshakes"
    before = arm.counted(counter)
    knocks: list[Future[tuple[float, str]]] = []
    with ThreadPoolExecutor(1) as hand, bench.controller(arm) as robot:

        def knock(tick: TickRecord) -> None:
            if not knocks and tick.wake.tick >= GOOD_TICKS:
                keys = strange if kind == "unknown" else None
                knocks.append(hand.submit(_refused_within, arm, bench, keys))

        drive = bench.drive(robot, on_tick=knock)
        drive.require_fault(bool(knocks))
        was_answered = knocks[0].done()

    refused_ms, words = knocks[0].result()
    deviation = Deviation()
    if not words:
        deviation = Deviation(wrong="a stranger was let in")
    elif not was_answered:
        deviation = Deviation(late="the stranger was refused only after the run")
    elif arm.counted(counter) <= before:
        deviation = Deviation(wrong=f"{counter} were not counted")
    return must_go_on(driven_steps(arm, drive), detected_ms=refused_ms, deviation=deviation)


unknown_key, no_key = partial(intruder, "unknown"), partial(intruder, "none")


def forged(bench: Bench, _: int) -> InjectionResult:
    """A stranger on this machine sends commands and stops with a guessed session."""
    arm = bench.arm
    before = arm.counted("foreign")
    with (
        zmq.Context() as context,
        bounded_socket(context, zmq.DEALER, wire.LARGEST_ANSWER_BYTES) as forger,
    ):
        forger.connect(arm.endpoint)

        def forge(_: object) -> None:
            now_ns = bench.clock.now_ns()
            forger.send(wire.encode(wire.Stop(1, 1 << 40)))
            forger.send(wire.encode(wire.Arm(1, 1 << 40)))
            command = wire.WireCommand(1, 1 << 40, 1, now_ns + 20 * MS, 60 * MS, [30.0] * 8)
            forger.send(wire.encode(command))

        with bench.controller(arm) as robot:
            drive = bench.drive(robot, GOOD_TICKS * 2, on_tick=forge)
    result = must_go_on(driven_steps(arm, drive))
    if arm.counted("foreign") - before < GOOD_TICKS:
        return replace(result, wrong=result.wrong or "forged messages were not counted")
    return result


# -- 11: the wrong robot ---------------------------------------------------------------------------


def wrong_robot(bench: Bench, _: int) -> InjectionResult:
    """The controller holds another robot's public key: it does not arm and names the file."""
    arm = bench.keyed_arm
    known = _known_keys(arm)
    wrong_keys = ControllerKeys(known.secret, zmq.curve_keypair()[0], known.directory)
    refused_ms, words = _refused_within(arm, bench, wrong_keys)
    if "robot.pub" in words:
        return InjectionResult(refused_ms)
    return InjectionResult(
        refused_ms, wrong=f"expected a refusal that names robot.pub, found {words!r}"
    )
