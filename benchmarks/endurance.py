"""Does a long run stay as it began? Twenty thousand ticks flat out on a virtual clock, 17 minutes of control.

    python benchmarks/endurance.py --json endurance.json

Compares memory and time per tick of the last thousand ticks with those of ticks 1,000 to 2,000. The robot is a
scripted one with random observations, because a simulated arm's physics costs more in one pose than in another. Exit
status 1 when either differs by more than 10 %.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from rich.progress import track

from gatort.launch.options import SHIPPED_BUNDLE
from gatort.launch.robots import scripted_robot
from gatort.runtime.clock import VirtualClock
from gatort.runtime.engine_onnx import OnnxConfig
from gatort.runtime.policy import Policy
from gatort.runtime.telemetry import Telemetry

PART = 1_000
TOLERANCE = 0.10


def resident_mb() -> float:
    """Memory of this process that is in RAM."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def main() -> int:
    """Run, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=SHIPPED_BUNDLE)
    parser.add_argument("--ticks", type=int, default=20_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    clock = VirtualClock()
    policy = Policy.load(args.bundle, OnnxConfig(threads=1))
    telemetry = Telemetry(policy.spec, args.ticks)
    loop = policy.control(scripted_robot(policy.spec, clock, seed=0), clock, telemetry=telemetry, collect_garbage=True)
    memory_mb = np.zeros(args.ticks)
    progress = iter(track(range(args.ticks), "ticks"))

    def look(_: object) -> bool:
        memory_mb[next(progress)] = resident_mb()
        return False

    loop.run(args.ticks, look)
    tick_ms = telemetry.tick_durations_ns()[: telemetry.ticks] * 1e-6
    early, late = slice(PART, 2 * PART), slice(-PART, None)
    result = {
        "ticks": telemetry.ticks,
        "tick_ms": {"early": float(np.median(tick_ms[early])), "late": float(np.median(tick_ms[late]))},
        "memory_mb": {"early": float(memory_mb[early].mean()), "late": float(memory_mb[late].mean())},
    }
    same = all(abs(part["late"] / part["early"] - 1) <= TOLERANCE for part in (result["tick_ms"], result["memory_mb"]))
    result["same"] = same and telemetry.ticks == args.ticks
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if result["same"] else 1


if __name__ == "__main__":
    sys.exit(main())
