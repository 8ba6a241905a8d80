"""Episodes made in parallel: seeded trials under the expert or a policy, labelled by the expert."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import zip_longest
from pathlib import Path

import numpy as np
from pydantic import FiniteFloat

from gatort.runtime.bundle import MANIFEST_FILE, Manifest, sha256_of
from gatort.runtime.clock import VirtualClock
from gatort.runtime.demonstrations import DemonstrationManifest, episode_files, write_manifest
from gatort.runtime.episode import Episode
from gatort.runtime.errors import ConfigError, DemonstrationError
from gatort.runtime.outputs import one_writer, removed_if_empty, require_folder, whole_file
from gatort.runtime.policy import Policy
from gatort.runtime.regular_file import read_regular
from gatort.runtime.spec import PolicySpec, Strict

from .make import make_robot, simulator_installed
from .portable import PolicyLoader, PortableWork, SeedWork, Workers
from .randomisation import Randomisation
from .rollout import Act, follow_expert, rollout
from .tasks import task_of
from .tasks.seeds import TRAINING_SEEDS
from .view_randomisation import ViewRandomisation
from .workers import share

CLAIM = "collection.txt"
MOST_TRIALS = 1000
"""Largest number of trials that a policy is calibrated on. The validation seeds hold fifty times as
many on either side of their middle."""


class PolicySource(Strict):
    """A policy that chooses the actions of episodes."""

    bundle: Path
    """Directory of the policy's bundle."""
    load: PolicyLoader
    """Loader of the policy."""


@dataclass(frozen=True, slots=True)
class Made:
    """The part of an episode that its manifest counts; the arrays stay in their file."""

    succeeded: bool
    ticks: int

    @classmethod
    def of(cls, episode: Episode) -> Made:
        """Count an episode."""
        return cls(episode.succeeded, episode.ticks)


class Collection(PortableWork[Made]):
    """Description of the episodes to make."""

    task: str
    """Name of the task in `gatort.sim.tasks`."""
    spec: PolicySpec
    """Observations and actuators of every episode."""
    directory: Path
    """Folder for the episodes."""
    first_seed: int
    """Layout seed of the first episode. The others follow one by one."""
    episodes: int
    """Number of episodes."""
    policy: PolicySource | None = None
    """Policy that drives. The expert drives when it is `None`."""
    noise_nm: tuple[FiniteFloat, ...] = (0.0,)
    """Standard deviations of the noise on the expert's torques. Each episode draws one. N·m"""
    randomisation: Randomisation | None = None
    """Physics that differs from episode to episode, or `None` for nominal physics."""
    view_randomisation: ViewRandomisation | None = None
    """Pictures that differ from episode to episode, or `None` for the nominal look."""
    seconds: float = 8.0
    """Longest episode, twice the time that the expert needs. A policy that is stuck teaches nothing
    new. s"""

    def prepare(self) -> SeedWork[Made]:
        """Make an arm that saves each episode in the folder."""
        collector = _Collector(self)

        def save(seed: int) -> Made:
            episode = collector.episode(seed)
            episode.save(self._path(seed), self.spec)
            return Made.of(episode)

        return save

    def prepare_far(self) -> SeedWork[bytes]:
        """Make an arm on another machine, where the folder is absent: each episode as a file's
        content.
        """
        collector = _Collector(self)

        def content(seed: int) -> bytes:
            file = BytesIO()
            collector.episode(seed).write(file, self.spec)
            return file.getvalue()

        return content

    def receive(self, seed: int, content: bytes) -> Made:
        """Check an episode that another machine made, and save it."""
        with whole_file(self._path(seed)) as partial:
            partial.write_bytes(content)
            return Made.of(Episode.load(partial, self.spec))

    def _path(self, seed: int) -> Path:
        return self.directory / f"{seed}.npz"

    @property
    def seeds(self) -> range:
        """Layout seed of each episode."""
        return range(self.first_seed, self.first_seed + self.episodes)

    @property
    def driver(self) -> str:
        """Source of the actions, down to the weights of a policy."""
        varied = ", randomised physics" if self.randomisation else ""
        varied += ", randomised view" if self.view_randomisation else ""
        if self.policy is None:
            noise = ", ".join(f"{noise_nm:g}" for noise_nm in self.noise_nm)
            return f"expert, noise {noise} N·m{varied}"
        return f"policy, manifest SHA-256 {sha256_of(self.policy.bundle / MANIFEST_FILE)}{varied}"

    def claim(self) -> None:
        """Write the description into the folder. A later call with the same description goes on.

        The number of episodes is no part of it, so that a later call may ask for more.

        Raises:
            DemonstrationError: the folder holds other episodes.
        """
        path = self.directory / CLAIM
        text = self._description()
        if path.exists():
            content = read_regular(path, "an origin of episodes", DemonstrationError, 1 << 20)
            found = content.decode(errors="replace")
        elif episode_files(self.directory):
            found = "episodes of an unknown origin\n"
        elif others := [each for each in self.directory.iterdir() if each.name[:1] != "."]:
            found = f"other files, such as {others[0].name}\n"
        else:
            found = text

        pairs = zip_longest(found.splitlines(), text.splitlines(), fillvalue="nothing more")
        for there, here in pairs:
            if there != here:
                raise DemonstrationError(
                    f"{self.directory}: expected an empty folder, or one that was begun with "
                    f"{_short(here)}; found {_short(there)}; choose another folder"
                )
        with whole_file(path) as partial:
            partial.write_text(text, encoding="utf-8")

    def _description(self) -> str:
        lines = [
            self.driver,
            f"seeds from {self.first_seed}",
            f"at most {self.seconds:g} s",
            f"task {self.task}",
            f"specification {self.spec.model_dump_json()}",
        ]
        if self.randomisation is not None:
            lines.append(f"physics {self.randomisation.model_dump_json()}")
        if self.view_randomisation is not None:
            lines.append(f"view {self.view_randomisation.model_dump_json()}")
        return "".join(f"{line}\n" for line in lines)


def _short(line: str) -> str:
    """Return a line of a description, of which a sentence leaves the JSON out."""
    words, brace, _ = line.partition(" {")
    return f"another {words}" if brace else words


@dataclass(frozen=True, slots=True)
class CollectionProgress:
    """Episodes that one call of `collect` has made so far."""

    made: int = 0
    """Number of episodes made."""
    succeeded: int = 0
    """Number of episodes made in which the task succeeded."""
    asked: int = 0
    """Number of episodes that the call makes in all."""


def _ignore(_: CollectionProgress) -> None:
    """Do nothing."""


def collect(
    collection: Collection, workers: Workers, watch: Callable[[CollectionProgress], None] = _ignore
) -> DemonstrationManifest:
    """Make every episode that the folder lacks, then write the manifest.

    Args:
        collection: description of the episodes.
        workers: largest number of processes, or a cluster.
        watch: called at the start and after each episode.

    Raises:
        MissingDependency: the simulator is absent.
        BundleError: the policy cannot be loaded.
        DemonstrationError: the folder holds other episodes, or one that cannot be read.
        OutputError: the folder cannot be written, or another process writes it.
    """
    require_folder(collection.directory)
    folder = collection.directory
    with removed_if_empty(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with one_writer(folder):
            collection.claim()
            try:
                return _collect(collection, workers, watch)
            finally:
                if not episode_files(folder):  # A refusal before the first one leaves nothing.
                    folder.joinpath(CLAIM).unlink(missing_ok=True)


def _collect(
    collection: Collection, workers: Workers, watch: Callable[[CollectionProgress], None]
) -> DemonstrationManifest:
    directory = collection.directory
    made = [Made.of(Episode.load(path, collection.spec)) for path in episode_files(directory)]

    left = [seed for seed in collection.seeds if not (directory / f"{seed}.npz").exists()]
    progress = CollectionProgress(asked=len(left))
    watch(progress)
    for each in share(collection, left, workers):
        made.append(each)
        progress = CollectionProgress(
            progress.made + 1, progress.succeeded + int(each.succeeded), progress.asked
        )
        watch(progress)

    manifest = DemonstrationManifest(
        task=collection.task,
        spec=collection.spec,
        driver=collection.driver,
        seconds=collection.seconds,
        first_seed=collection.first_seed,
        last_seed=max(int(path.stem) for path in episode_files(directory)),
        episodes=len(made),
        successes=sum(1 for each in made if each.succeeded),
        ticks=sum(each.ticks for each in made),
    )
    write_manifest(directory, manifest)
    return manifest


class _Collector:
    """A simulated arm and its policy, with which one process makes episode after episode."""

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self.clock = VirtualClock()
        self.robot = make_robot(
            "mujoco",
            collection.task,
            self.clock,
            collection.spec,
            collection.first_seed,
            collection.randomisation,
            collection.view_randomisation,
        )
        self.policy = collection.policy.load() if collection.policy is not None else None

    def episode(self, seed: int) -> Episode:
        """Run one episode."""
        seconds = self.collection.seconds
        return rollout(self.robot, self.clock, seed, self._act(seed), seconds)

    def _act(self, seed: int) -> Act:
        if self.policy is not None:
            return follow_policy(self.policy)
        rng = np.random.default_rng(seed)
        return follow_expert(float(rng.choice(self.collection.noise_nm)), rng)


def follow_policy(policy: Policy) -> Act:
    """Return a chooser of actions that follows the policy, from an empty context."""
    policy.reset()
    return lambda observation, _: policy.act(observation.values)


def policy_episodes(policy: Policy, seeds: Sequence[int]) -> Iterator[Episode]:
    """Yield trials that the policy drives itself, to calibrate and compare engines on.

    Args:
        policy: drives in lockstep with MuJoCo.
        seeds: layouts of the trials.

    Raises:
        ConfigError: the policy's manifest names no task.
    """
    clock = VirtualClock()
    task = task_of(policy.manifest)
    robot = make_robot("mujoco", task, clock, task.interface_for(policy.spec), seeds[0])
    for seed in seeds:
        yield rollout(robot, clock, seed, follow_policy(policy))


def can_drive(manifest: Manifest) -> bool:
    """Return whether the policy was trained for a task that can be simulated here."""
    return manifest.task is not None and manifest.training.steps > 0 and simulator_installed()


def require_training_seeds(seeds: range) -> None:
    """Check that no trial and no validation uses these layouts.

    Raises:
        ConfigError: a seed is outside the training seeds.
    """
    if seeds[0] not in TRAINING_SEEDS or seeds[-1] not in TRAINING_SEEDS:
        raise ConfigError(
            f"seeds {seeds[0]} to {seeds[-1]}: expected training seeds, "
            f"{TRAINING_SEEDS[0]} to {TRAINING_SEEDS[-1]}; trials and validation use the others"
        )
