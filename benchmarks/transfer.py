"""How a policy does on an arm that it did not learn on: success, time, and whether a real Panda would have let it.

    python benchmarks/transfer.py policies/stack runs/varied/bundle --json runs/transfer.json

Lockstep without the guard's look at observations, on validation layouts, in MuJoCo, in PyBullet and in MuJoCo with the
physics randomised. A Panda stops itself when a joint is faster than its limit; neither simulator does, so the episodes
in which that was so at some tick are counted.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from gatort.policies.loading import PolicyOptions, load_policy
from gatort.runtime.clock import VirtualClock
from gatort.runtime.robot import Observation
from gatort.runtime.robots.panda import JOINT_FASTEST_RAD_S
from gatort.sim.make import simulated_robot
from gatort.sim.randomisation import Randomisation
from gatort.sim.robot import StackingRobot
from gatort.sim.rollout import rollout
from gatort.sim.tasks.stacking.task import STACK_SPEC

MakeRobot = Callable[[VirtualClock], StackingRobot]
ROBOTS: dict[str, MakeRobot] = {
    "mujoco": lambda clock: simulated_robot("mujoco", STACK_SPEC, clock, 0),
    "pybullet": lambda clock: simulated_robot("pybullet", STACK_SPEC, clock, 0),
    "randomised": lambda clock: simulated_robot("mujoco", STACK_SPEC, clock, 0, Randomisation()),
}
VELOCITY = [key.name for key in STACK_SPEC.observations].index("arm/joint_velocity")


def try_policy(bundle: Path, make_robot: MakeRobot, seeds: range) -> dict[str, Any]:
    """Drive every layout once; fastest is the joint speed that came nearest to its limit, as a share of it."""
    policy, clock = load_policy(PolicyOptions(bundle=bundle, threads=1)), VirtualClock()
    robot = make_robot(clock)

    def drive(observation: Observation, _: np.ndarray) -> np.ndarray:
        return policy.act(observation.values)

    failed, seconds, fastest = [], [], []
    for seed in track(seeds, description=f"{bundle}"):
        policy.reset()
        episode = rollout(robot, clock, seed, drive)
        fastest.append(float((np.abs(episode.observations[VELOCITY]) / JOINT_FASTEST_RAD_S).max()))
        if episode.succeeded:
            seconds.append(episode.ticks / STACK_SPEC.control_hz)
        else:
            failed.append(seed)
    robot.close()
    return {
        "successes": len(seconds),
        "episodes": len(seeds),
        "failed_seeds": failed,
        "seconds": float(np.mean(seconds)) if seconds else None,
        "too_fast": sum(share > 1 for share in fastest),
        "fastest": max(fastest),
    }


def main() -> None:
    """Try every bundle on every robot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--robots", nargs="+", choices=ROBOTS, default=list(ROBOTS))
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=900_200)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    seeds = range(args.seed, args.seed + args.episodes)
    result = {
        str(bundle): {name: try_policy(bundle, ROBOTS[name], seeds) for name in args.robots}
        for bundle in args.bundles
    }
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
