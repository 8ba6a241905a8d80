"""Flood a robot in every way open to a stranger, and measure the cost to the inner loop.

    python benchmarks/flood.py --json runs/flood.json

Each flood meets an arm of its own that a controller drives. The arm runs on one core and on all,
with keys and without, at several limits of descriptors. It asks for real-time scheduling, as it
would on a robot's computer. A second process computes meanwhile and tells for how long the machine
paused. A third, the sentry, wakes every millisecond on the arm's first core, at the highest
priority of all. While even the sentry does not wake, the machine delays the arm, and no process.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

import numpy as np
import zmq
from rich.console import Console
from rich.progress import track
from rich.table import Table

from gatort.faults.arm_process import ArmProcess
from gatort.faults.run_process import children
from gatort.runtime.clock import MonotonicClock
from gatort.runtime.errors import GatortError
from gatort.runtime.realtime import RealtimeConfig, apply
from gatort.runtime.remote import wire
from gatort.runtime.remote.keys import make_keys
from gatort.runtime.robot import Robot
from gatort.runtime.safety import Command, State
from gatort.runtime.witness_process import WitnessProcess

MS: Final = 1_000_000
FLOOD_S: Final = 3.0
"""Duration of a flood."""
ARM_CORE: Final = 0
"""The one core that an arm is kept on."""
CONTROLLER: Final = RealtimeConfig(fifo_priority=40, lock_memory=True)
"""Scheduling of the controller, below the arm's."""
SENTRY: Final = RealtimeConfig(fifo_priority=99, cpus=(ARM_CORE,))
"""Scheduling of the sentry, above everything else on the arm's core."""
LIMITS: Final = (64, 256, 4_096)
"""Limits of descriptors."""
GREETING: Final = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
"""First bytes of a ZeroMQ connection without keys (ZMTP 3.0)."""


# -- Floods ------------------------------------------------------------------------------------

Flood = Callable[[str, int], None]


def nothing(_: str, until_ns: int) -> None:
    """Only wait. The row to compare the others with."""
    MonotonicClock().sleep_until_ns(until_ns)


def connections(endpoint: str, until_ns: int) -> None:
    """Open connections until no descriptor is left, and keep them."""
    clock, kept = MonotonicClock(), []
    while clock.now_ns() < until_ns:
        try:
            kept.append(_connect(endpoint))
        except OSError:
            clock.sleep_until_ns(clock.now_ns() + 10 * MS)


def reconnections(endpoint: str, until_ns: int) -> None:
    """Connect and hang up, as fast as it goes."""
    clock = MonotonicClock()
    while clock.now_ns() < until_ns:
        with suppress(OSError):
            _connect(endpoint).close()


def half_handshakes(endpoint: str, until_ns: int) -> None:
    """Send half of a greeting over many connections, then hang up."""
    clock = MonotonicClock()
    while clock.now_ns() < until_ns:
        with suppress(OSError), _connect(endpoint) as half:
            half.send(GREETING[:20])


def endless(endpoint: str, until_ns: int) -> None:
    """Send one message that never ends: part after part, each with another to follow."""
    clock = MonotonicClock()
    size = wire.LARGEST_REQUEST_BYTES
    part = b"\x03" + size.to_bytes(8, "big") + bytes(size)
    while clock.now_ns() < until_ns:
        with suppress(OSError), _connect(endpoint) as peer:
            _greet(peer)
            while clock.now_ns() < until_ns:
                peer.sendall(part * 16)


def many_parts(endpoint: str, until_ns: int) -> None:
    """Send messages of very many empty parts, and hang up in the middle of one."""
    clock = MonotonicClock()
    parts = b"\x01\x00" * 50_000
    while clock.now_ns() < until_ns:
        with suppress(OSError), _connect(endpoint) as peer:
            _greet(peer)
            for _ in range(10):
                peer.sendall(parts + b"\x00\x00" + parts)


def greetings(endpoint: str, until_ns: int) -> None:
    """Ask for a session again and again, over connections that are well formed."""
    clock, context = MonotonicClock(), zmq.Context()
    hello = wire.encode(wire.Hello(wire.VERSION))
    sockets = []
    for _ in range(16):
        sockets.append(context.socket(zmq.DEALER))
        sockets[-1].set(zmq.LINGER, 0)
        sockets[-1].connect(endpoint)
    while clock.now_ns() < until_ns:
        for each in sockets:
            with suppress(zmq.Again):
                each.send(hello, zmq.NOBLOCK)
    context.destroy(0)


FLOODS: Final[dict[str, Flood]] = {
    each.__name__.replace("_", " "): each
    for each in (
        nothing,
        connections,
        reconnections,
        half_handshakes,
        many_parts,
        endless,
        greetings,
    )
}


def _connect(endpoint: str) -> socket.socket:
    address = urlsplit(endpoint)
    return socket.create_connection((address.hostname, address.port), timeout=1.0)


def _greet(peer: socket.socket) -> None:
    """Take the first two steps of a connection without keys (ZMTP 3.0)."""
    peer.sendall(GREETING)
    peer.recv(64)
    ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
    peer.sendall(b"\x04" + bytes([len(ready)]) + ready)
    peer.recv(256)


# -- The arm's core ------------------------------------------------------------------------------


class Sentry:
    """A process that wakes every millisecond on the arm's core and writes when it did."""

    def __enter__(self) -> Self:
        self._stamps = tempfile.TemporaryFile()
        command = [sys.executable, "-P", __file__, "--sentry", str(os.getpid())]
        self._process = subprocess.Popen(command, stdout=self._stamps)
        while not os.fstat(self._stamps.fileno()).st_size:
            if self._process.poll() is not None:
                raise GatortError("expected the sentry to run, found it ended")
            MonotonicClock().sleep_until_ns(MonotonicClock().now_ns() + 10 * MS)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._stamps.close()

    def longest_gap_ns(self, began_ns: int, ended_ns: int) -> int:
        """Return the longest time between two instants in which the sentry did not wake."""
        file = self._stamps.fileno()
        stamps = np.frombuffer(os.pread(file, os.fstat(file).st_size // 8 * 8, 0), np.int64)
        inside = stamps[(stamps > began_ns) & (stamps < ended_ns)]
        return int(np.diff([began_ns, *inside, ended_ns]).max())


def stand_sentry(parent: int) -> None:
    """Write every millisecond, until the parent ends, when this process woke."""
    clock = MonotonicClock()
    with apply(SENTRY):
        due_ns = clock.now_ns()
        while os.getppid() == parent:
            now_ns = clock.now_ns()
            os.write(1, now_ns.to_bytes(8, sys.byteorder))
            due_ns = max(due_ns + MS, now_ns)
            clock.sleep_until_ns(due_ns)


# -- One arm -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class FloodResult:
    """Effect of one flood on one arm."""

    flood: str
    keyed: bool
    cores: int
    descriptors: int
    """Limit of descriptors of the door's process and of the arm's."""
    longest_gap_ms: float
    """Longest time in which the inner loop took no step, from arming until the arm is at rest or
    the flood ends. An arm at rest has no torque, and starts another door."""
    core_gap_ms: float
    """Longest time in that gap in which the arm's core ran nothing, not even the sentry. Counts on
    one core only."""
    pause_ms: float
    """Longest pause of a computation on this machine at that time."""
    state: State
    """State of the arm at the end of the flood."""
    left_armed: bool
    """True if the arm was armed after its controller had left."""
    doors: int
    """Number of doors that were started."""
    arm_mb: float
    """Largest memory of the arm's process."""
    door_mb: float
    """Largest memory of a door seen."""


def flood_arm(
    flood: str, keyed: bool, cores: int, descriptors: int, witness: WitnessProcess, sentry: Sentry
) -> FloodResult:
    """Flood a new arm while a controller drives it."""
    clock = MonotonicClock()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keys = folder / "keys" if keyed else None
        if keys is not None:
            make_keys(keys)
        arm = ArmProcess(folder / "arm", keys=keys)
        try:
            _confine(arm.process.pid, cores, descriptors)
            with apply(CONTROLLER):
                began_ns, ended_ns, door_mb = _drive(arm, flood, clock)
            steps = arm.trace.since(began_ns)
            armed = steps.since(steps.first(State.RUN) or began_ns).until(ended_ns)
            state = armed.states[-1]
            at_rest_ns = armed.first(State.LATCHED) or ended_ns
            arm.rest()
            beside = witness.between(began_ns, ended_ns)
            moving = armed.until(at_rest_ns).taken_ns
            longest = int(np.diff(moving).argmax())
            gap_began_ns, gap_ended_ns = int(moving[longest]), int(moving[longest + 1])
            return FloodResult(
                flood=flood,
                keyed=keyed,
                cores=cores,
                descriptors=descriptors,
                longest_gap_ms=(gap_ended_ns - gap_began_ns) / MS,
                core_gap_ms=sentry.longest_gap_ns(gap_began_ns, gap_ended_ns) / MS,
                pause_ms=beside.pause_ms if beside is not None else 0.0,
                state=state,
                left_armed=arm.trace.newest not in (State.LATCHED, State.DISARMED),
                doors=1 + arm.said.count("another door starts"),
                arm_mb=_peak_mb(arm.process.pid),
                door_mb=door_mb,
            )
        finally:
            arm.close()


def _confine(pid: int, cores: int, descriptors: int) -> None:
    """Keep an arm's process and its door on some cores, with few descriptors."""
    for process in (pid, *children(pid)):
        resource.prlimit(process, resource.RLIMIT_NOFILE, (descriptors, descriptors))
        for thread in Path(f"/proc/{process}/task").iterdir():
            os.sched_setaffinity(int(thread.name), range(ARM_CORE, ARM_CORE + cores))


def _drive(arm: ArmProcess, flood: str, clock: MonotonicClock) -> tuple[int, int, float]:
    """Command no torque at 20 Hz during a flood. Return begin and end, and the door's memory."""
    command = [sys.executable, "-P", __file__, "--flood", flood, "--endpoint", arm.endpoint]
    door_mb = 0.0
    with arm.connect() as robot:
        robot.arm()
        began_ns = clock.now_ns()
        until_ns = began_ns + round(FLOOD_S * 1e9)
        with subprocess.Popen([*command, "--until-ns", str(until_ns)]) as flooding:
            for tick in itertools.count(1):
                with suppress(GatortError):
                    _command(robot, tick)
                door_mb = max([door_mb, *map(_memory_mb, children(arm.process.pid))])
                clock.sleep_until_ns(began_ns + tick * 50 * MS)
                if clock.now_ns() > until_ns:
                    break
            flooding.wait()
        return began_ns, until_ns, door_mb


def _command(robot: Robot, tick: int) -> None:
    observation = robot.observe()
    apply_at_ns = observation.stamp_ns + robot.interface.action_delay_ns
    safe = np.array([actuator.safe for actuator in robot.interface.actuators])
    robot.command(Command(tick, observation.sequence, apply_at_ns, 60 * MS, safe))


def _memory_mb(pid: int) -> float:
    with suppress(OSError):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6
    return 0.0


def _peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1_024 / 1e6


# -- All ---------------------------------------------------------------------------------------


def table_of(results: list[FloodResult]) -> Table:
    """Return the results as a table."""
    table = Table(
        "flood", "keys", "cores", "descriptors", "longest gap (core's, pause) ms", "state",
        "armed after", "doors", "arm MB", "door MB",
    )  # fmt: skip
    for each in results:
        table.add_row(
            each.flood,
            "yes" if each.keyed else "no",
            str(each.cores),
            str(each.descriptors),
            f"{each.longest_gap_ms:.1f} ({each.core_gap_ms:.1f}, {each.pause_ms:.1f})",
            each.state,
            "yes" if each.left_armed else "no",
            str(each.doors),
            f"{each.arm_mb:.0f}",
            f"{each.door_mb:.0f}",
        )
    return table


def main() -> None:
    """Flood arms in all ways, or be one flood."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--flood", choices=FLOODS, help="be this flood and nothing else")
    parser.add_argument("--sentry", type=int, help="stand sentry until this process ends")
    parser.add_argument("--endpoint")
    parser.add_argument("--until-ns", type=int)
    parser.add_argument("--only", choices=FLOODS, action="append")
    parser.add_argument("--limits", type=int, nargs="+", default=LIMITS)
    args = parser.parse_args()
    if args.flood:
        FLOODS[args.flood](args.endpoint, args.until_ns)
        return
    if args.sentry:
        stand_sentry(args.sentry)
        return

    settings = list(
        itertools.product(args.only or FLOODS, (False, True), (1, os.cpu_count() or 1), args.limits)
    )
    with WitnessProcess() as witness, Sentry() as sentry:
        results = [flood_arm(*setting, witness, sentry) for setting in track(settings, "floods")]
    Console().print(table_of(results))
    if args.json:
        args.json.write_text(json.dumps([asdict(each) for each in results], indent=2) + "\n")


if __name__ == "__main__":
    main()
