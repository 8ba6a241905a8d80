"""Poses of tagged cubes from drawn pictures: their errors, and trials of the state policy on them.

    python benchmarks/pose_trials.py --episodes 100 --json runs/pose_trials.json

MuJoCo draws the cubes with their tags, 1280×720, through two cameras that `gatort poses` would use.
Each picture is blurred and made noisy. Its poses come a latency later. The policy `stack` gets its
block keys from these poses alone, through the code of `gatort run --sensor`. Physics and policy
run in lockstep on a virtual clock.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from gatort.policies.loading import PolicyOptions, load_policy
from gatort.runtime.clock import VirtualClock
from gatort.runtime.errors import ObservationError
from gatort.runtime.loop import TickRecord
from gatort.runtime.robots.cameras.opencv import cv2
from gatort.runtime.robots.panda import PANDA
from gatort.runtime.robots.sensors.readings import Sensor
from gatort.runtime.robots.sensors.robot import SensorRobot
from gatort.runtime.spec import PolicySpec
from gatort.sim.graphics import choose_gl
from gatort.sim.make import make_robot
from gatort.sim.task_keys import TaskKeys, pose_of
from gatort.sim.tasks.stacking.task import Stacking
from gatort.sim.trials.statistics import wilson_95
from gatort.sim.workers import spread

BLUR_PX: Final = 0.8
NOISE: Final = 4.0
"""Standard deviation of each pixel's noise, on the scale of 0 to 255."""
JOINTS_ONLY: Final = PolicySpec.model_validate(
    {name: getattr(PANDA, name) for name in type(PANDA).model_fields} | {"window_frames": 1}
)
"""Interface of an arm that knows nothing of blocks."""


@dataclass(frozen=True)
class PoseTrial:
    """One trial, and the errors of its first picture, in which the arm hides nothing."""

    seed: int
    succeeded: bool
    seconds: float
    refused: int
    stop_reason: str | None
    errors_mm: tuple[float, ...]
    """Distance of each found cube from its true place."""
    errors_deg: tuple[float, ...]
    """Angle of each found cube from its true turn."""
    missed: int
    """Number of cubes that were not found."""


class Degraded:
    """Blur and noise of a camera."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng((seed, 7))

    def __call__(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the degraded picture."""
        blurred: Any = cv2.GaussianBlur(picture, (0, 0), BLUR_PX)
        noisy = blurred + self._random.normal(0.0, NOISE, picture.shape)
        return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def prepare(latency_ms: float, engine: str, cameras: Sequence[str]) -> Callable[[int], PoseTrial]:
    """Load the policy in a worker, and return the work on one seed."""
    choose_gl()  # Before MuJoCo is imported.
    from gatort.sim.rendered_tags import RenderedTags

    options = PolicyOptions.model_validate({"engine": engine, "threads": 1})
    policy = load_policy(options)
    task = Stacking()
    joints = {key.name for key in JOINTS_ONLY.observations}
    lacking = [key for key in policy.spec.observations if key.name not in joints]

    def run(seed: int) -> PoseTrial:
        clock = VirtualClock()
        arm = make_robot("mujoco", task, clock, JOINTS_ONLY, seed)
        tags = RenderedTags(arm, clock, round(latency_ms * 1e6), Degraded(seed), cameras)
        errors_mm, errors_deg, missed = _errors(arm.moment().bodies, tags)
        robot = SensorRobot(arm, TaskKeys(task, lacking, arm.interface, tags, clock))
        policy.reset()
        loop = policy.control(robot, clock)

        def look(_: TickRecord) -> bool:
            return arm.succeeded

        unseen = None
        try:
            loop.run(round(task.seconds * policy.spec.control_hz), look)
        except ObservationError as error:  # Before the first tick the loop handles none.
            unseen = str(error)
        robot.close()
        return PoseTrial(
            seed=seed,
            succeeded=arm.succeeded,
            seconds=loop.telemetry.ticks / policy.spec.control_hz,
            refused=loop.guard.refused.total(),
            stop_reason=unseen or loop.refusal or arm.stop_reason,
            errors_mm=errors_mm,
            errors_deg=errors_deg,
            missed=missed,
        )

    return run


def _errors(bodies: Any, tags: Sensor) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    readings = tags.update()
    errors_mm, errors_deg, missed = [], [], 0
    for name, true in bodies.items():
        reading = readings.get(f"pose/{name}")
        if reading is None:
            missed += 1
            continue
        found = pose_of(name, reading)
        turn = np.array(cv2.Rodrigues(true.rotation.T @ found.rotation)[0])
        errors_mm.append(1e3 * float(np.linalg.norm(found.position - true.position)))
        errors_deg.append(float(np.degrees(np.linalg.norm(turn))))
    return tuple(errors_mm), tuple(errors_deg), missed


def main() -> None:
    """Run the trials and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=5000)
    parser.add_argument("--latency-ms", type=float, default=60.0)
    parser.add_argument("--cameras", nargs="+", default=["front", "side"])
    parser.add_argument("--engine", default="native")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    seeds = range(args.seed, args.seed + args.episodes)
    work = spread(partial(prepare, args.latency_ms, args.engine, args.cameras), seeds, args.workers)
    trials = sorted(track(work, total=len(seeds)), key=lambda trial: trial.seed)

    for trial in trials:
        if not trial.succeeded:
            print(trial)
    stacked = sum(trial.succeeded for trial in trials)
    low, high = wilson_95(stacked, len(trials))
    errors_mm = np.concatenate([trial.errors_mm for trial in trials])
    errors_deg = np.concatenate([trial.errors_deg for trial in trials])
    missed = sum(trial.missed for trial in trials)
    print(f"{stacked} of {len(trials)} stacked [{low:.3f}, {high:.3f}]")
    print(f"{len(errors_mm)} cubes found in the first pictures, {missed} not found")
    for unit, errors in (("mm", errors_mm), ("°", errors_deg)):
        p50, p95, worst = np.percentile(errors, (50, 95, 100))
        print(f"error p50 {p50:.2f}, p95 {p95:.2f}, max {worst:.2f} {unit}")
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(trial) for trial in trials], indent=2) + "\n")


if __name__ == "__main__":
    main()
