"""Faults of messages (row 12): floods of frames that are not messages of the protocol.

`python -m gatort.faults.messages ENDPOINT KIND SEED` is the process that floods.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import Literal

import numpy as np
import zmq

from gatort.runtime.clock import MonotonicClock
from gatort.runtime.remote import wire
from gatort.runtime.wording import counted

from .bench import Bench
from .judging import Deviation, InjectionResult, driven_steps, must_go_on, seeded
from .loop_bench import MS, PERIOD_NS

FLOOD_NS = 2_000 * MS
HUGE_BYTES = 100_000_000
NESTING = 1_000
"""Largest nesting depth of a frame that is short enough to be decoded."""
MOST_PARTS = 2_000
"""Most parts of a message; reading so many takes the robot several turns."""
FLOOD_TICKS = 60

Flood = Literal["huge", "random", "nested", "parts"]


def flooded(kind: Flood, bench: Bench, seed: int) -> InjectionResult:
    """A process floods the robot while a controller drives it."""
    arm = bench.arm
    before = arm.counted("malformed")
    command = [sys.executable, "-P", "-m", "gatort.faults.messages", arm.endpoint, kind, str(seed)]
    with bench.controller(arm) as robot, subprocess.Popen(command) as flooding:
        drive = bench.drive(robot, FLOOD_TICKS)
        arrived = flooding.wait() == 0
    steps = driven_steps(arm, drive)

    telemetry = drive.loop.telemetry
    deviation = Deviation()
    if not arrived:
        deviation = Deviation(wrong="the flood ended early, or nothing of it arrived")
    elif kind != "huge" and arm.counted("malformed") == before:
        deviation = Deviation(wrong="malformed messages were not counted")
    elif telemetry.misses:
        deviation = Deviation(late=counted(telemetry.misses, "miss", "misses"))
    elif steps.longest_gap_ns > PERIOD_NS:
        gap_ms = steps.longest_gap_ns * 1e-6
        deviation = Deviation(late=f"the inner loop took no step for {gap_ms:.0f} ms")
    slowest_ms = max(telemetry.tick_durations_ns().tolist()) * 1e-6
    return must_go_on(steps, detected_ms=slowest_ms, deviation=deviation)


huge, random = partial(flooded, "huge"), partial(flooded, "random")
nested, parts = partial(flooded, "nested"), partial(flooded, "parts")


def no_message(kind: Flood, draw: np.random.Generator) -> list[bytes]:
    """Return the parts of a message that the protocol does not define."""
    match kind:
        case "huge":
            return [bytes(HUGE_BYTES)]
        case "random":
            return [draw.bytes(int(draw.integers(1, 4000)))]
        case "nested":
            # Valid as far as the values of a command, into which a decoder descends.
            command = wire.encode(wire.WireCommand(1, 1 << 40, 1, 1, 60 * MS, []))
            return [command[:-1] + b"\x91" * int(draw.integers(2, NESTING)) + b"\x90"]
        case "parts":
            return [b""] * int(draw.integers(2, MOST_PARTS))


def _flood(endpoint: str, kind: Flood, seed: int) -> None:
    """Flood for a while over one connection."""
    draw, clock = seeded(seed), MonotonicClock()
    context = zmq.Context()
    socket = _connected(context, endpoint)
    deadline_ns = clock.now_ns() + FLOOD_NS
    while clock.now_ns() < deadline_ns:
        if socket.poll(10, zmq.POLLOUT):
            socket.send_multipart(no_message(kind, draw), copy=False)
    context.destroy(0)


def _flood_huge(endpoint: str) -> bool:
    """Send huge messages, each over a new connection; return true if the robot hung up once."""
    clock, message = MonotonicClock(), bytes(HUGE_BYTES)
    context = zmq.Context()
    has_hung_up = False
    deadline_ns = clock.now_ns() + FLOOD_NS
    while clock.now_ns() < deadline_ns:
        socket = _connected(context, endpoint)
        ending = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        if socket.poll(10, zmq.POLLOUT):
            socket.send(message, copy=False)
            has_hung_up |= ending.poll(200) != 0
        socket.disable_monitor()
        ending.close(0)
        socket.close(0)
    context.destroy(0)
    return has_hung_up


def _connected(context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.DEALER)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.SNDHWM, 1000)
    socket.connect(endpoint)
    return socket


def main() -> int:
    """Run the process that floods; exit with 0 when the robot received the flood."""
    endpoint, kind, seed = sys.argv[1:]
    if kind == "huge":
        return 0 if _flood_huge(endpoint) else 1
    _flood(endpoint, kind, int(seed))  # type: ignore[arg-type]  # started above
    return 0


if __name__ == "__main__":
    sys.exit(main())
