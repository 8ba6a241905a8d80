"""Observations to calibrate and compare engines with: trials that the policy drove itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gatort.policies.loading import PolicyOptions, load_policy
from gatort.runtime.bundle import Manifest
from gatort.runtime.clock import VirtualClock
from gatort.runtime.episode import Episode
from gatort.runtime.robots.panda import ACTUATORS
from gatort.sim.make import simulated_robot, simulator_installed

from .report import progress_bar

MOST_TRIALS = 1000
"""The validation layouts have room for fifty times as many on either side of their middle."""


def can_drive(manifest: Manifest) -> bool:
    """Whether the policy was trained, and for the simulated arm."""
    from gatort.sim.tasks.stacking.task import SPECS

    spec = manifest.spec
    observed = any(set(spec.observations) <= set(each.observations) for each in SPECS)
    return (
        bool(manifest.training.steps)
        and observed
        and spec.actuators == ACTUATORS
        and simulator_installed()
    )


def policy_episodes(bundle: Path, seeds: Sequence[int], noun: str) -> list[Episode]:
    """Trials at these layouts, driven by the bundle's policy in lockstep with the simulation.

    Raises:
        BundleError: the bundle is incomplete or changed.
        EngineError: ONNX Runtime cannot run it.
    """
    from gatort.sim.rollout import rollout

    clock, policy = VirtualClock(), load_policy(PolicyOptions(bundle=bundle, threads=1))
    robot = simulated_robot("mujoco", policy.spec, clock, seeds[0])
    episodes = []
    with progress_bar(noun) as progress:
        for seed in progress.track(seeds, description=""):
            policy.reset()
            episodes.append(
                rollout(robot, clock, seed, lambda observation, _: policy.act(observation.values))
            )
    return episodes
