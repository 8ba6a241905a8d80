"""Try a policy on arms that it did not learn on: success, time, and joint speeds beside a real
Panda's limits.

    python benchmarks/transfer.py policies/stack runs/varied/bundle --json runs/transfer.json

The trials run in lockstep on validation layouts: in MuJoCo, in PyBullet and in MuJoCo with
randomised physics. A Panda stops itself when a joint is faster than its limit. Neither simulator
does, so episodes with a joint that was too fast are counted.
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
from gatort.sim.make import BulletRobot, MujocoRobot, make_robot
from gatort.sim.randomisation import Randomisation
from gatort.sim.robot import SimulatedRobot
from gatort.sim.rollout import rollout
from gatort.sim.tasks.stacking.specifications import STACK_SPEC

MakeRobot = Callable[[VirtualClock], SimulatedRobot]
ROBOTS: dict[str, MakeRobot] = {
    "mujoco": MujocoRobot,
    "pybullet": BulletRobot,
    "randomised": lambda clock: make_robot(
        "mujoco", "stacking", clock, randomisation=Randomisation()
    ),
}
VELOCITY = [key.name for key in STACK_SPEC.observations].index("arm/joint_velocity")


def try_policy(bundle: Path, make_robot: MakeRobot, seeds: range) -> dict[str, Any]:
    """Drive every layout once.

    `fastest` is the largest joint speed as a share of that joint's limit.
    """
    policy, clock = load_policy(PolicyOptions(bundle=bundle, threads=1)), VirtualClock()
    robot = make_robot(clock)

    def act(observation: Observation, _: np.ndarray) -> np.ndarray:
        return policy.act(observation.values)

    failed, seconds, fastest = [], [], []
    for seed in track(seeds, description=f"{bundle}"):
        policy.reset()
        episode = rollout(robot, clock, seed, act)
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
