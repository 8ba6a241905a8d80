"""Answer times of a Franka arm's inner loop on franka-sim, beside a bare C thread on this machine.

    python benchmarks/franka_cycles.py --seconds 10 --sessions 4

The inner loop's process works out Coriolis torques, watchdog, limits and envelope between a state
and its answer. The bare thread does nothing between them. Both have the same priority.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatort.faults.franka.cycles import CYCLES_FILE, Cycles
from gatort.faults.franka.simulator import ADDRESS, DEFAULT_PYTHON, FrankaSimulator, require_python
from gatort.policies.demo import demo_policy
from gatort.runtime.clock import MonotonicClock
from gatort.runtime.compiler import compiled
from gatort.runtime.errors import RobotError
from gatort.runtime.realtime import RealtimeConfig, apply
from gatort.runtime.robots.franka.robot import FrankaConfig, FrankaRobot

SOURCE: Final = Path(__file__).with_name("bare_thread.c")
PRIORITY: Final = 80
OPTIONS: Final = ("-O2", "-pthread")
PERCENTILES: Final = (50, 99, 99.9, 100)


def bare_answers_ns(seconds: float) -> NDArray[np.int64]:
    """Return the answer times (N,) of the bare thread."""
    with compiled(SOURCE, OPTIONS, "the bare thread", RobotError) as program:
        done = subprocess.run(
            [str(program), str(round(1000 * seconds)), str(PRIORITY)],
            check=True,
            capture_output=True,
        )
    return np.frombuffer(done.stdout, np.int64)


def loop_answers_ns(python: Path, seconds: float) -> NDArray[np.int64]:
    """Return the answer times (N,) of the inner loop's process while it waves."""
    clock = MonotonicClock()
    config = FrankaConfig(address=ADDRESS, require_realtime_kernel=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            closing(FrankaSimulator(python, folder)),
            (folder / CYCLES_FILE).open("wb") as trace,
            closing(FrankaRobot(config, clock, trace=trace.fileno())) as robot,
        ):
            policy = demo_policy("wave", robot.interface)
            with apply(RealtimeConfig(fifo_priority=40, lock_memory=True)):
                policy.control(robot, clock).run(round(seconds * policy.spec.control_hz))
        return Cycles.read(folder).answers_ns


def main() -> None:
    """Measure both in turns and print their table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--sessions", type=int, default=4)
    parser.add_argument("--franka-sim", type=Path, default=DEFAULT_PYTHON)
    args = parser.parse_args()
    require_python(args.franka_sim)

    print("thread      cycles   p50    p99  p99.9    max, µs")
    for _ in range(args.sessions):
        for name, took_ns in (
            ("bare", bare_answers_ns(args.seconds)),
            ("inner loop", loop_answers_ns(args.franka_sim, args.seconds)),
        ):
            figures = "".join(
                f"{value:7.1f}" for value in np.percentile(took_ns, PERCENTILES) / 1e3
            )
            print(f"{name:10} {len(took_ns):7d}{figures}", flush=True)


if __name__ == "__main__":
    main()
