"""Episodes made in parallel: seeded trials under the expert or a policy, every tick labelled by the expert."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import FiniteFloat

from gatort.policies.demos import (
    DemonstrationManifest,
    write_manifest,
)
from gatort.policies.loading import PolicyOptions, load_policy
from gatort.runtime.bundle import (
    MANIFEST_FILE,
    sha256_of,
)
from gatort.runtime.clock import VirtualClock
from gatort.runtime.episode import Episode
from gatort.runtime.errors import DemonstrationError
from gatort.runtime.spec import (
    PolicySpec,
    Strict,
)
from gatort.sim.make import simulated_robot
from gatort.sim.randomisation import Randomisation

from .report import progress_bar
from .workers import spread

if TYPE_CHECKING:
    from gatort.sim.rollout import Driver


CLAIM = "collection.txt"


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

    randomisation: Randomisation | None = None
    """What differs from episode to episode beside the layout."""
    seconds: float = 8.0
    """Longest episode, twice what the expert needs; one that is stuck shows nothing new."""

    @property
    def driver(self) -> str:
        """Who drives, down to the weights."""
        where = ", randomised physics" if self.randomisation else ""
        if self.bundle is None:
            return f"expert, noise {', '.join(f'{noise:g}' for noise in self.noise_nm)} N·m{where}"
        return f"policy, manifest SHA-256 {sha256_of(self.bundle / MANIFEST_FILE)}{where}"

    def claim(self) -> None:
        """Say in the folder what is being made there, before the first episode; the same again may go on.

        Raises:
            DemonstrationError: the folder holds something else.
        """
        claim = self.directory / CLAIM
        text = f"{self.driver}, seeds {self.seeds[0]} to {self.seeds[-1]}, at most {self.seconds:g} s\n"
        text += self.spec.model_dump_json() + "\n"
        if self.randomisation is not None:
            text += self.randomisation.model_dump_json() + "\n"
        if claim.exists() or any(self.directory.glob("*.npz")):
            found = (
                claim.read_text(encoding="utf-8")
                if claim.exists()
                else "episodes of an unknown origin"
            )
            if found != text:
                raise DemonstrationError(
                    f"{self.directory}: expected a folder that is empty or was begun with {text.splitlines()[0]}; "
                    f"found {found.splitlines()[0]}, or other ranges or another specification"
                )
        claim.write_text(text, encoding="utf-8")

    @property
    def seeds(self) -> range:
        """Layout of each episode."""
        return range(self.first_seed, self.first_seed + self.episodes)


class _Collector:
    """A simulated arm and a driver that one process makes episode after episode with."""

    def __init__(self, collection: Collection) -> None:
        self.collection, self.clock = collection, VirtualClock()
        self.robot = simulated_robot(
            "mujoco", collection.spec, self.clock, collection.first_seed, collection.randomisation
        )
        self.policy = (
            load_policy(PolicyOptions(bundle=collection.bundle, threads=1))
            if collection.bundle
            else None
        )

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
        DemonstrationError: the folder holds something else, or an episode that cannot be read.
    """
    directory, seeds = collection.directory, collection.seeds
    directory.mkdir(parents=True, exist_ok=True)
    collection.claim()
    made = [
        (episode.succeeded, episode.ticks)
        for path in directory.glob("*.npz")
        for episode in (Episode.load(path, collection.spec),)
    ]
    left = [seed for seed in seeds if not (directory / f"{seed}.npz").exists()]
    made += _with_progress(spread(partial(_make_in_worker, collection), left, workers), len(left))
    manifest = DemonstrationManifest(
        spec=collection.spec,
        driver=collection.driver,
        seconds=collection.seconds,
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
