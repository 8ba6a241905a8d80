"""Measure the round trip through the door, beside sockets in the arm's own process.

    python benchmarks/door_round_trip.py --json runs/door.json

Both arms run at once, each in a process of its own, and are asked in turns, so that the machine
treats them alike.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import numpy as np
from rich.progress import track

from gatort.runtime.clock import MonotonicClock
from gatort.runtime.errors import ObservationError
from gatort.runtime.realtime import RealtimeConfig, apply
from gatort.runtime.remote.client import RemoteRobot
from gatort.runtime.remote.door import Door
from gatort.runtime.remote.door_link import DoorSettings
from gatort.runtime.remote.robot_socket import RobotSocket
from gatort.runtime.remote.serve import REALTIME
from gatort.runtime.remote.server import RobotServer
from gatort.runtime.remote.transport import RobotTransport
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.sim.tasks import task_named

ADDRESS: Final = "tcp://127.0.0.1:0"
PAUSE_NS: Final = 2_000_000
"""Pause between two questions."""
CONTROLLER: Final = RealtimeConfig(fifo_priority=40, lock_memory=True)


def serve(kind: str) -> None:
    """Be an arm without physics, until the process is killed. Print its address."""
    clock = MonotonicClock()
    transport: RobotTransport
    if kind == "door":
        transport = Door(DoorSettings(ADDRESS), clock)
    with apply(REALTIME):
        if kind == "sockets":
            transport = RobotSocket(ADDRESS)
        print(transport.endpoint, flush=True)
        arm = ScriptedRobot(task_named("stacking").interface, clock)
        RobotServer(arm, clock, transport, name="scripted", simulated=True).serve()


def main() -> None:
    """Ask both arms in turns, and print percentiles."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--serve", choices=("door", "sockets"), help="be this arm")
    parser.add_argument("--questions", type=int, default=3_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve)
        return

    clock = MonotonicClock()
    took_ms: dict[str, list[float]] = {"sockets": [], "door": []}
    arms = {
        kind: subprocess.Popen([sys.executable, __file__, "--serve", kind], stdout=subprocess.PIPE)
        for kind in took_ms
    }
    try:
        with apply(CONTROLLER):
            robots = {
                kind: RemoteRobot(arm.stdout.readline().decode().strip(), clock)  # type: ignore[union-attr]  # a pipe
                for kind, arm in arms.items()
            }
            for _ in track(range(args.questions), "round trips"):
                for kind, robot in robots.items():
                    began_ns = clock.now_ns()
                    with suppress(ObservationError):
                        robot.observe()
                        took_ms[kind].append((clock.now_ns() - began_ns) * 1e-6)
                    clock.sleep_until_ns(clock.now_ns() + PAUSE_NS)
            for robot in robots.values():
                with closing(robot):
                    pass
    finally:
        for arm in arms.values():
            arm.kill()
            arm.wait()

    result = {
        kind: {
            "answered": len(times),
            **{f"p{p}_ms": float(np.percentile(times, p)) for p in (50, 99)},
            "max_ms": max(times),
        }
        for kind, times in took_ms.items()
    }
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
