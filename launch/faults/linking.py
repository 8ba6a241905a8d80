"""Faults of the wire and of who speaks on it (rows 8 to 12)."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Literal

import numpy as np
import zmq

from gatort.runtime.clock import MonotonicClock
from gatort.runtime.errors import RobotError
from gatort.runtime.loop import TickRecord
from gatort.runtime.remote import wire
from gatort.runtime.remote.client import RemoteRobot
from gatort.runtime.remote.keys import ControllerKeys
from gatort.runtime.safety import (
    Command,
    State,
)

from .bench import (
    MS,
    PERIOD_NS,
    ArmProcess,
    Bench,
    Outcome,
    driven_steps,
    ms,
    must_go_on,
    must_stop,
    seeded,
)
from .deciding import (
    GOOD_TICKS,
    RUNNING,
)

FLOOD_S = 2.0
HUGE_BYTES = 100_000_000
NESTING = 1_000
"""Levels at most, in a frame that is short enough to be decoded."""
MOST_PARTS = 2_000
"""Of a message; to read it takes the robot several turns."""
FLOOD_TICKS = 60

Flood = Literal["huge", "random", "nested", "parts"]


# -- 8 and 9: commands that are lost, repeated or old --------------------------------------------------------------


class LosingRobot(RemoteRobot):
    """A link that loses commands after so many good ones, and is whole again after so many lost ones."""

    good, lost = GOOD_TICKS, 1
    last_ns = 0
    """When the last command before the loss took effect."""

    def command(self, command: Command) -> None:
        """See `Robot.command`."""
        self.good -= 1
        if self.good >= 0 or self.lost <= 0:
            if self.good >= 0:
                self.last_ns = command.apply_at_ns
            super().command(command)
        else:
            self.lost -= 1


def lost(commands: int, bench: Bench, seed: int) -> Outcome:
    """Commands do not arrive; counted from the instant at which the last one took effect."""
    arm = bench.arm
    with bench.controller(arm, LosingRobot) as robot:
        robot.good, robot.lost = GOOD_TICKS + int(seeded(seed).integers(10)), commands
        drive = bench.drive(robot)
    drive.require_fault(robot.lost < commands)
    if commands > 1:
        return must_stop(arm, drive.began_ns, robot.last_ns)
    steps = driven_steps(arm, drive)
    held_ns = steps.since(robot.last_ns).first(State.HOLD)
    wrong = None if held_ns else "the lost command left no trace"
    return must_go_on(steps, RUNNING, ms(robot.last_ns, held_ns), wrong)


class RepeatingRobot(RemoteRobot):
    """A link that hands over each command again, and the one before it after it."""

    before: Command | None = None
    sent = 0

    def command(self, command: Command) -> None:
        """See `Robot.command`."""
        super().command(command)
        if self.before is not None:
            super().command(self.before)
            super().command(command)
        self.before = command
        self.sent += 1


def repeated(bench: Bench, seed: int) -> Outcome:
    """Each command arrives four times and the one before it twice more: nothing but the counters changes."""
    arm = bench.arm
    before = arm.counted("commands dropped")
    with bench.controller(arm, RepeatingRobot) as robot:
        drive = bench.drive(robot, GOOD_TICKS + int(seeded(seed).integers(10)))
    outcome = must_go_on(driven_steps(arm, drive))
    # The counter is printed with the next change of state: stopping.
    if arm.counted("commands dropped") - before < robot.sent:
        return Outcome(None, None, outcome.wrong or "old commands were not counted")
    return outcome


# -- 10 and 11: keys -----------------------------------------------------------------------------------------------


def _refused_within(
    arm: ArmProcess, bench: Bench, keys: ControllerKeys | None
) -> tuple[float, str]:
    """How long until a connection was refused, in ms, and with what words; empty words when it was let in."""
    began_ns = bench.clock.now_ns()
    words = ""
    try:
        RemoteRobot(arm.endpoint, bench.clock, keys).close()
    except RobotError as error:
        words = str(error)
    return (bench.clock.now_ns() - began_ns) * 1e-6, words


def intruder(kind: Literal["unknown", "none"], bench: Bench, _: int) -> Outcome:
    """Someone with a key of his own, or with none, knocks while a keyed controller drives the arm."""
    arm, known = bench.keyed_arm
    arm.rest()
    counter = "unknown keys" if kind == "unknown" else "broken handshakes"
    before = arm.counted(counter)
    strange = None
    if kind == "unknown":
        secret = zmq.curve_keypair()[1]
        strange = ControllerKeys(secret, known.robot, known.directory)
    knocks: list[Future[tuple[float, str]]] = []
    with ThreadPoolExecutor(1) as hand, bench.controller(arm, RemoteRobot, known) as robot:

        def knock(tick: TickRecord) -> None:
            if not knocks and tick.wake.tick >= GOOD_TICKS:
                knocks.append(hand.submit(_refused_within, arm, bench, strange))

        drive = bench.drive(robot, on_tick=knock)
        drive.require_fault(bool(knocks))
        answered_in_drive = knocks[0].done()
    refused_ms, words = knocks[0].result()
    outcome = must_go_on(driven_steps(arm, drive), detected_ms=refused_ms)
    if not words:
        return Outcome(refused_ms, None, "a stranger was let in")
    if not answered_in_drive:
        return Outcome(
            refused_ms, None, outcome.wrong or "the stranger was refused only after the run"
        )
    if arm.counted(counter) <= before:
        return Outcome(refused_ms, None, f"{counter} were not counted")
    return outcome


def forged(bench: Bench, _: int) -> Outcome:
    """Someone on this machine sends commands and stops with a session that he guessed."""
    arm = bench.arm
    before = arm.counted("foreign")
    with (
        zmq.Context() as context,
        wire.bounded_socket(context, zmq.DEALER, wire.LARGEST_ANSWER_BYTES) as forger,
    ):
        forger.connect(arm.endpoint)

        def forge(_: object) -> None:
            now_ns = bench.clock.now_ns()
            forger.send(wire.encode(wire.Stop(1, 1 << 40)))
            forger.send(wire.encode(wire.Arm(1, 1 << 40)))
            forger.send(
                wire.encode(wire.Command(1, 1 << 40, 1, now_ns + 20 * MS, 60 * MS, [30.0] * 8))
            )

        with bench.controller(arm, RemoteRobot) as robot:
            drive = bench.drive(robot, GOOD_TICKS * 2, on_tick=forge)
    outcome = must_go_on(driven_steps(arm, drive))
    if arm.counted("foreign") - before < GOOD_TICKS:
        return Outcome(None, None, outcome.wrong or "forged messages were not counted")
    return outcome


def wrong_server(bench: Bench, _: int) -> Outcome:
    """The controller holds another robot's public key: it does not arm and names the file."""
    arm, known = bench.keyed_arm
    other = zmq.curve_keypair()[0]
    refused_ms, words = _refused_within(
        arm, bench, ControllerKeys(known.secret, other, known.directory)
    )
    wrong = (
        None
        if "robot.pub" in words
        else f"expected a refusal that names robot.pub, found {words!r}"
    )
    return Outcome(refused_ms, None, wrong)


# -- 12: messages that are none ------------------------------------------------------------------------------------


def flooded(kind: Flood, bench: Bench, seed: int) -> Outcome:
    """A process floods the robot with what is no message while a controller drives it."""
    arm = bench.arm
    before = arm.counted("malformed")
    command = [sys.executable, "-m", "gatort.launch.faults.linking", arm.endpoint, kind, str(seed)]
    with bench.controller(arm, RemoteRobot) as robot, subprocess.Popen(command) as flood:
        drive = bench.drive(robot, FLOOD_TICKS)
        arrived = flood.wait() == 0
    steps = driven_steps(arm, drive)
    slowest_ms = max(tick_ns for tick_ns in drive.loop.telemetry.tick_durations_ns()) * 1e-6
    gap_ns = steps.longest_gap_ns
    wrong = None if arrived else "the flood ended early, or nothing of it arrived"
    if drive.loop.telemetry.misses or slowest_ms > PERIOD_NS * 1e-6:
        wrong = f"a tick took {slowest_ms:.0f} ms, {drive.loop.telemetry.misses} misses"
    elif gap_ns > PERIOD_NS:
        wrong = f"the inner loop took no step for {gap_ns * 1e-6:.0f} ms"
    elif kind != "huge" and arm.counted("malformed") == before:
        wrong = "what is no message was not counted"
    return must_go_on(steps, detected_ms=slowest_ms, wrong=wrong)


def flood(endpoint: str, kind: Flood, seed: int) -> bool:
    """Be the process that floods; returns whether the robot hung up on what was too large, where it had to."""
    random, clock = seeded(seed), MonotonicClock()
    context = zmq.Context()
    deadline_ns = clock.now_ns() + round(FLOOD_S * 1e9)
    huge = bytes(HUGE_BYTES) if kind == "huge" else b""
    socket, hung_up = None, kind != "huge"
    while clock.now_ns() < deadline_ns:
        # A robot that hangs up on a message too large is called again.
        if socket is None or kind == "huge":
            socket = context.socket(zmq.DEALER)
            socket.set(zmq.LINGER, 0)
            socket.set(zmq.SNDHWM, 1000)
            ending = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            socket.connect(endpoint)
        if not socket.poll(10, zmq.POLLOUT):
            continue
        socket.send_multipart(_no_message(kind, random, huge), copy=False)
        if kind == "huge":
            clock.sleep_until_ns(clock.now_ns() + 200 * MS)
            hung_up |= ending.poll(0) != 0
            socket.disable_monitor()
            ending.close(0)
            socket.close(0)
    context.destroy(0)
    return hung_up


def _no_message(kind: Flood, random: np.random.Generator, huge: bytes) -> list[bytes]:
    match kind:
        case "huge":
            return [huge]
        case "random":
            return [random.bytes(int(random.integers(1, 4000)))]
        case "nested":
            # Valid as far as the values of a command, into which a decoder descends.
            command = wire.encode(wire.Command(1, 1 << 40, 1, 1, 60 * MS, []))
            return [command[:-1] + b"\x91" * int(random.integers(2, NESTING)) + b"\x90"]
        case "parts":
            return [b""] * int(random.integers(2, MOST_PARTS))


flood_huge, flood_random, flood_nested = (
    partial(flooded, kind) for kind in ("huge", "random", "nested")
)
flood_parts = partial(flooded, "parts")

if __name__ == "__main__":
    sys.exit(not flood(sys.argv[1], sys.argv[2], int(sys.argv[3])))  # type: ignore[arg-type]  # started above
