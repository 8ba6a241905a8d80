"""Episodes made in parallel: seeded trials under the expert or a policy, every tick labelled by the expert."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import FiniteFloat

from gatort.policies.demos import DemonstrationManifest, write_manifest
from gatort.runtime.clock import VirtualClock
from gatort.runtime.engine_onnx import OnnxConfig
from gatort.runtime.episode import Episode
from gatort.runtime.policy import Policy
from gatort.runtime.spec import PolicySpec, Strict

from .report import progress_bar
from .robots import mujoco_robot
from .workers import spread

if TYPE_CHECKING:
    from gatort.sim.rollout import Driver


class Collection(Strict):
    """Which episodes to make, and who drives."""

    spec: PolicySpec
    directory: Path
    first_seed: int
    episodes: int
    bundle: Path | None = None
    """The policy that drives; the expert when none."""
    noise_nm: tuple[FiniteFloat, ...] = (0.0,)
    """Standard deviation of the noise on the expert's torques; each episode draws one of these. N·m"""

    seconds: float = 8.0
    """Longest episode; one that is stuck shows nothing new."""

    @property
    def seeds(self) -> range:
        """Layout of each episode."""
        return range(self.first_seed, self.first_seed + self.episodes)


class _Collector:
    """A simulated arm and a driver that one process makes episode after episode with."""

    def __init__(self, collection: Collection) -> None:
        self.collection, self.clock = collection, VirtualClock()
        self.robot = mujoco_robot(collection.spec, self.clock, collection.first_seed)
        self.policy = Policy.load(collection.bundle, OnnxConfig(threads=1)) if collection.bundle else None

    def make(self, seed: int) -> tuple[bool, int]:
        """Run and save one episode; whether it succeeded, and its ticks."""
        from gatort.sim.rollout import rollout

        episode = rollout(self.robot, self.clock, seed, self._driver(seed), self.collection.seconds)
        episode.save(self.collection.directory / f"{seed}.npz", self.collection.spec)
        return episode.succeeded, episode.ticks

    def _driver(self, seed: int) -> Driver:
        from gatort.sim.rollout import follow_expert

        if (policy := self.policy) is not None:
            policy.reset()
            return lambda observation, _: policy.act(observation.values)
        rng = np.random.default_rng(seed)
        return follow_expert(float(rng.choice(self.collection.noise_nm)), rng)


@cache
def _collector(collection: Collection) -> _Collector:
    """The one of this process."""
    return _Collector(collection)


def _make_in_worker(collection: Collection, seed: int) -> tuple[bool, int]:
    return _collector(collection).make(seed)


def collect(collection: Collection, workers: int) -> DemonstrationManifest:
    """Make every episode that the folder does not hold yet, then seal it with a manifest.

    Raises:
        MissingDependency: the simulator is absent.
        BundleError: the driving policy cannot be loaded.
    """
    directory, seeds = collection.directory, collection.seeds
    directory.mkdir(parents=True, exist_ok=True)
    made: list[tuple[bool, int]] = []
    left = []
    for seed in seeds:
        path = directory / f"{seed}.npz"
        if path.exists():
            episode = Episode.load(path, collection.spec)
            made.append((episode.succeeded, episode.ticks))
        else:
            left.append(seed)
    made += _with_progress(spread(partial(_make_in_worker, collection), left, workers), len(left))
    manifest = DemonstrationManifest(
        spec=collection.spec,
        driver=str(collection.bundle.name) if collection.bundle else f"expert, noise {collection.noise_nm} N·m",
        first_seed=seeds[0],
        last_seed=seeds[-1],
        episodes=len(seeds),
        successes=sum(succeeded for succeeded, _ in made),
        ticks=sum(ticks for _, ticks in made),
    )
    write_manifest(directory, manifest)
    return manifest


def _with_progress(making: Iterator[tuple[bool, int]], episodes: int) -> list[tuple[bool, int]]:
    made = []
    with progress_bar("episodes") as progress:
        bar = progress.add_task("", total=episodes)
        for each in making:
            made.append(each)
            succeeded = sum(one for one, _ in made)
            progress.update(bar, advance=1, description=f"{succeeded} of {len(made)} succeeded")
    return made
