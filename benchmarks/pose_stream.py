"""`gatort poses` in real time: the age and rate of its poses, its CPU time, and a policy on them.

    python benchmarks/pose_stream.py --seconds 20 --cameras front side

MuJoCo draws tagged cubes at rest, 1280×720, ahead of time. Each camera serves its pictures as MJPEG
over HTTP on loopback, 30 a second. `gatort poses` reads them and publishes. `gatort run --sensor
--dry-run` drives a simulated arm that knows no block, in a process of its own, with these poses.
The age counts from the arrival of a picture: a real camera adds its latency.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import zmq
from numpy.typing import NDArray

from gatort.faults.mjpeg_server import MjpegServer
from gatort.launch.toml_text import toml_text
from gatort.runtime.clock import Clock, MonotonicClock
from gatort.runtime.robots.cameras.opencv import encode
from gatort.runtime.robots.panda import PANDA
from gatort.runtime.robots.sensors.readings import decode
from gatort.runtime.spec import PolicySpec
from gatort.sim.graphics import choose_gl
from gatort.sim.make import MujocoRobot
from gatort.sim.robot import SimulatedRobot
from gatort.sim.simulators.simulator import Array

SEED: Final = 5000
PICTURES: Final = 15
"""Number of different pictures of each camera, which repeat in turn."""
JOINTS_ONLY: Final = PolicySpec.model_validate(
    {name: getattr(PANDA, name) for name in type(PANDA).model_fields} | {"window_frames": 1}
)
WARM_S: Final = 3.0
"""Time before the measured stretch."""
STARTED_S: Final = 120.0
"""Longest time for a process to say its address."""


def joints_only(clock: Clock) -> SimulatedRobot:
    """Make a simulated arm that offers no key of the blocks."""
    return MujocoRobot(clock, SEED, "stacking", JOINTS_ONLY)


def pictures(cameras: Sequence[str], folder: Path) -> dict[str, list[bytes]]:
    """Draw JPEGs of each camera, and write its calibration."""
    choose_gl()  # Before MuJoCo is imported.
    from gatort.sim.tagged_scene import TaggedScene, tagged

    arm = joints_only(MonotonicClock())
    scene = TaggedScene(arm.task.scene, tagged(arm.layout.cubes))
    rows: list[Array] = []
    for number in range(PICTURES):
        row = arm.positions.copy()
        row[0] += 0.1 * np.sin(2 * np.pi * number / PICTURES)  # The first joint sways.
        rows.append(row)
    drawn = {}
    for name in cameras:
        views: list[NDArray[np.uint8]] = [scene.draw(name, row)[..., ::-1].copy() for row in rows]
        drawn[name] = [encode(view, ".jpg") for view in views]
        (folder / f"{name}.json").write_text(scene.calibration(name).text)
    scene.close()
    write_profile(cameras, tagged(arm.layout.cubes), folder)
    arm.close()
    return drawn


def write_profile(cameras: Sequence[str], cubes: Any, folder: Path) -> None:
    """Write all but the cameras' addresses."""
    tables = {
        "calibrations": {name: str(folder / f"{name}.json") for name in cameras},
        "cubes": {name: cube.model_dump() for name, cube in cubes.items()},
    }
    text = "\n".join(toml_text(table, name) for name, table in tables.items())
    (folder / "cell.toml").write_text(text)


@contextmanager
def command(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run a command of gatort's, which ends with the block. Yield it and its output."""
    output = folder / f"{words[0]}.txt"
    path = os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")))
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "gatort", *words],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": path},
        )
    try:
        yield process, output
    finally:
        process.terminate()
        process.wait()


def said(process: subprocess.Popen[bytes], output: Path, pattern: str, clock: Clock) -> str:
    """Wait until the output has a pattern. Return its first group."""
    until_ns = clock.now_ns() + round(STARTED_S * 1e9)
    while (found := re.search(pattern, output.read_text())) is None:
        if process.poll() is not None or clock.now_ns() > until_ns:
            raise SystemExit(f"expected {pattern!r}, found:\n{output.read_text()}")
        clock.sleep_until_ns(clock.now_ns() + 10_000_000)
    return found[1]


def cpu_s(process: subprocess.Popen[bytes]) -> float:
    """Return the CPU time of a process (proc(5))."""
    words = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def ages_ms(address: str, seconds: float, clock: Clock) -> list[float]:
    """Return the age of each message when it arrived, over a time."""
    ages = []
    until_ns = clock.now_ns() + round(seconds * 1e9)
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.connect(address)
        socket.subscribe(b"")
        while clock.now_ns() < until_ns:
            if socket.poll(100):
                stamp_ns = decode(socket.recv()).stamp_ns
                ages.append((clock.now_ns() - stamp_ns) * 1e-6)
    return ages


def main() -> None:
    """Measure one stretch and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--cameras", nargs="+", default=["front", "side"])
    args = parser.parse_args()
    clock = MonotonicClock()
    with TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        drawn = pictures(args.cameras, folder)
        for camera, frames in drawn.items():
            server = stack.enter_context(MjpegServer(frames, frames[0], clock))
            with (folder / "cell.toml").open("a") as profile:
                table = {camera: {"source": server.url, "latency_ms": 0.0}}
                profile.write("\n" + toml_text(table, "cameras"))
        poses = ["poses", "--profile", "cell.toml", "--address", "tcp://127.0.0.1:0"]
        process, output = stack.enter_context(command(folder, *poses))
        sensor = said(process, output, r"publishing at (\S+):", clock)
        robot = ["robot", "--driver", "pose_stream:joints_only", "--bind", "tcp://127.0.0.1:0"]
        arm = said(*stack.enter_context(command(folder, *robot)), r"(tcp://\S+:\d+)", clock)
        longest = f"{args.seconds + WARM_S:g}"
        run = ["run", "--robot", arm, "--sensor", sensor, "--task", "stacking", "--dry-run"]
        run += ["--seconds", longest, "--until", "time", "--json", "run.json"]
        driving, shown = stack.enter_context(command(folder, *run))
        said(driving, shown, r"ok +(observation)", clock)
        clock.sleep_until_ns(clock.now_ns() + round(WARM_S * 1e9))

        before_s = cpu_s(process)
        ages = ages_ms(sensor, args.seconds, clock)
        took_s = cpu_s(process) - before_s
        driving.wait()
        record = json.loads((folder / "run.json").read_text())
    p50, p99, worst = np.percentile(ages, (50, 99, 100))
    print(f"{len(ages)} messages in {args.seconds:g} s: {len(ages) / args.seconds:.1f} a second")
    print(f"age when received: p50 {p50:.1f}, p99 {p99:.1f}, max {worst:.1f} ms")
    print(f"CPU of gatort poses: {took_s / args.seconds:.0%} of one core")
    print(
        f"gatort run: {record['ticks']} ticks, {record['misses']} misses, refused "
        f"{record['refused']}, stopped {record['stopped']}, {record['last_refusal']}"
    )


if __name__ == "__main__":
    main()
