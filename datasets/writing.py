"""Writing of demonstrations and of new folders, whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any, Literal

import numpy as np

from gatort.runtime.demonstrations import DemonstrationManifest, write_manifest
from gatort.runtime.episode import Episode
from gatort.runtime.errors import ConfigError, DemonstrationError
from gatort.runtime.outputs import removed_if_empty, require_folder
from gatort.runtime.spec import PolicySpec
from gatort.runtime.wording import counted

from .columns import OwnRecord

Watch = Callable[[int], None]
"""Called with the number of episodes done."""


def ignore(_: int) -> None:
    """Do nothing: the default callback."""


@dataclass(frozen=True, slots=True)
class Converted:
    """Result of a conversion."""

    kind: Literal["LeRobotDataset", "demonstrations"]
    """Form of the result."""
    folder: Path
    """Folder of the result."""
    spec: PolicySpec
    """Keys, actuators and rates."""
    task: str | None
    """Name of the task; `None` if unknown."""
    episodes: int
    """Number of episodes."""
    successes: int
    """Number of episodes in which the task succeeded."""
    ticks: int
    """Number of ticks."""
    left_out: int
    """Ticks of recordings that were refused or lost, and so are no part of an episode."""

    @property
    def sentence(self) -> str:
        """Return the result in one line."""
        left_out = f", {counted(self.left_out, 'tick')} left out" if self.left_out else ""
        return (
            f"{counted(self.episodes, 'episode')}, {self.successes} succeeded, "
            f"{counted(self.ticks, 'tick')} at {self.spec.control_hz} Hz{left_out}: "
            f"{self.kind} in {self.folder}"
        )

    @property
    def record(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "kind": self.kind,
            "folder": str(self.folder),
            "task": self.task,
            "episodes": self.episodes,
            "successes": self.successes,
            "ticks": self.ticks,
            "left_out": self.left_out,
            "control_hz": self.spec.control_hz,
            "observations": [key.name for key in self.spec.observations],
            "actuators": [actuator.name for actuator in self.spec.actuators],
        }

    @property
    def next_step(self) -> str:
        """Return the line on the use of the result."""
        folder = str(self.folder)
        if self.kind == "demonstrations":
            rounds = "" if self.task is not None else " --rounds 0"
            return f"train on them: gatort train {quote(folder)} --out runs/NAME{rounds}"
        return f"load them: LeRobotDataset('local/{self.folder.name}', root={folder!r})"


@dataclass(slots=True)
class Counts:
    """Counts of the episodes that were written."""

    episodes: int = 0
    successes: int = 0
    ticks: int = 0
    longest: int = 0
    left_out: int = 0
    first_seed: int = 0
    last_seed: int = 0

    def take(self, episode: Episode, left_out: int) -> None:
        """Count an episode."""
        self.first_seed = min(self.first_seed, episode.seed) if self.episodes else episode.seed
        self.last_seed = max(self.last_seed, episode.seed)
        self.episodes += 1
        self.successes += episode.succeeded
        self.ticks += episode.ticks
        self.longest = max(self.longest, episode.ticks)
        self.left_out += left_out

    def converted(
        self, kind: Literal["LeRobotDataset", "demonstrations"], out: Path, own: OwnRecord
    ) -> Converted:
        """Return the result of a conversion."""
        return Converted(
            kind=kind,
            folder=out,
            spec=own.spec,
            task=own.task,
            episodes=self.episodes,
            successes=self.successes,
            ticks=self.ticks,
            left_out=self.left_out,
        )


def write_demonstrations(
    out: Path, own: OwnRecord, episodes: Iterator[tuple[Episode, int]], watch: Watch
) -> Converted:
    """Write episodes as a folder of demonstrations.

    Args:
        out: new or empty folder.
        own: specification and origin of the episodes.
        episodes: each episode, with the number of its ticks that were left out.
        watch: called after each episode.

    Raises:
        DemonstrationError: there is no episode, two have one seed, or a number is not finite.
        OutputError: the folder cannot be written.
    """
    counts = Counts()
    with new_folder(out) as made:
        for episode, left_out in episodes:
            file = made / f"{episode.seed}.npz"
            if file.exists():
                raise DemonstrationError(
                    f"expected episodes of different seeds, found {episode.seed} twice"
                )
            _require_finite(episode, own.spec)
            episode.save(file, own.spec)
            counts.take(episode, left_out)
            watch(counts.episodes)
        if not counts.episodes:
            raise DemonstrationError("expected at least one episode, found none")
        write_manifest(
            made,
            DemonstrationManifest(
                task=own.task,
                spec=own.spec,
                driver=own.driver,
                seconds=counts.longest / own.spec.control_hz,
                first_seed=counts.first_seed,
                last_seed=counts.last_seed,
                episodes=counts.episodes,
                successes=counts.successes,
                ticks=counts.ticks,
            ),
        )
    return counts.converted("demonstrations", out, own)


def _require_finite(episode: Episode, spec: PolicySpec) -> None:
    """Refuse numbers that training would refuse later."""
    named = [
        (key.name, values)
        for key, values in zip(spec.observations, episode.observations, strict=True)
    ]
    named += [("action", episode.actions), ("expert_action", episode.expert_actions)]
    for name, values in named:
        if not np.isfinite(values).all():
            tick = int(np.argwhere(~np.isfinite(values))[0][0])
            raise DemonstrationError(
                f"episode {episode.seed}: {name}: expected finite numbers, found another at tick "
                f"{tick}; leave the episode out of the data set"
            )


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a hidden folder beside `out`, which is renamed to it at the end.

    Raises:
        OutputError: the folder cannot be made.
        ConfigError: it holds files.
    """
    require_folder(out)
    if out.is_dir() and any(out.iterdir()):
        raise ConfigError(
            f"{out}: expected a new or empty folder, found one with files; choose another name"
        )
    with removed_if_empty(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            yield made
            if out.is_dir():
                out.rmdir()
            made.rename(out)
