"""Does a long run stay as it began?

Twenty thousand ticks flat out on a virtual clock, 17 minutes of control.

    python benchmarks/endurance.py --json endurance.json

Compares memory and time per tick of the last thousand ticks with those of ticks 1,000 to 2,000. A
shared machine's speed drifts by more than 10 %, so the times are taken side by side. A second loop,
just begun, runs its ticks 1,000 to 2,000 in turns with the first loop's last thousand. The robot is
a scripted one with random observations, because a simulated arm's physics costs more in one pose
than in another. Exit status 1 when either differs by more than 10 %.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from rich.progress import track

from gatort.policies.loading import SHIPPED_BUNDLE, PolicyOptions, load_policy
from gatort.runtime.clock import VirtualClock
from gatort.runtime.loop import ControlLoop
from gatort.runtime.robots.scripted import scripted_robot
from gatort.runtime.telemetry import Telemetry

PART = 1_000
TURN = 50
TOLERANCE = 0.10


def resident_mb() -> float:
    """Memory of this process that is in RAM."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def begin(bundle: Path, ticks: int) -> ControlLoop:
    """A policy on a clock of its own, not yet run."""
    clock = VirtualClock()
    policy = load_policy(PolicyOptions(bundle=bundle, threads=1))
    robot = scripted_robot(policy.spec, clock, seed=0)
    return policy.control(
        robot, clock, telemetry=Telemetry(policy.spec, ticks), collect_garbage=True
    )


def last_median_ms(loop: ControlLoop) -> float:
    """Median time of the last part's ticks."""
    return float(np.median(loop.telemetry.tick_durations_ns()[-PART:]) * 1e-6)


def main() -> int:
    """Run, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=SHIPPED_BUNDLE)
    parser.add_argument("--ticks", type=int, default=20_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    long = begin(args.bundle, args.ticks)
    memory_mb = []
    for _ in track(range(args.ticks // PART - 1), "thousands"):
        long.run(PART)
        memory_mb.append(resident_mb())
    young = begin(args.bundle, 2 * PART)
    young.run(PART)
    for _ in range(PART // TURN):
        long.run(TURN)
        young.run(TURN)
    result = {
        "ticks": long.telemetry.ticks,
        "tick_ms": {"early": last_median_ms(young), "late": last_median_ms(long)},
        "memory_mb": {"early": memory_mb[1], "late": memory_mb[-1]},
    }
    result["same"] = all(
        abs(part["late"] / part["early"] - 1) <= TOLERANCE
        for part in (result["tick_ms"], result["memory_mb"])
    )
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if result["same"] else 1


if __name__ == "__main__":
    sys.exit(main())
