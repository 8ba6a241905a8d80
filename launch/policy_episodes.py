"""Observations to calibrate and compare engines with: trials that the policy drove itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gatort.runtime.bundle import Manifest
from gatort.runtime.clock import VirtualClock
from gatort.runtime.engines.onnx import OnnxConfig
from gatort.runtime.episode import Episode
from gatort.runtime.policy import Policy
from gatort.sim.make import make_robot, simulator_installed
from gatort.sim.tasks import task_of

from .report import progress_bar

MOST_TRIALS = 1000
"""The validation layouts have room for fifty times as many on either side of their middle."""


def can_drive(manifest: Manifest) -> bool:
    """Check if the policy was trained for a simulated task, and the simulator is installed."""
    return manifest.task is not None and manifest.training.steps > 0 and simulator_installed()


def policy_episodes(bundle: Path, seeds: Sequence[int], noun: str) -> list[Episode]:
    """Trials at these layouts, driven by the bundle's policy in lockstep with the simulation.

    Raises:
        BundleError: the bundle is incomplete or changed.
        EngineError: ONNX Runtime cannot run it.
    """
    from gatort.sim.rollout import rollout

    clock, policy = VirtualClock(), Policy.load(bundle, OnnxConfig(threads=1))
    task = task_of(policy.manifest)
    robot = make_robot("mujoco", task, clock, task.interface_for(policy.spec), seeds[0])
    episodes = []
    with progress_bar(noun) as progress:
        for seed in progress.track(seeds, description=""):
            policy.reset()
            episodes.append(
                rollout(robot, clock, seed, lambda observation, _: policy.act(observation.values))
            )
    return episodes
