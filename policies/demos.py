"""Demonstrations on disk: a folder of episodes and the manifest of what they hold.

demos/
├── demonstrations.json     specification, who drove, which seeds
└── 1000000.npz …           one episode each, named by its seed
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from gatort.runtime.episode import Episode
from gatort.runtime.errors import DemonstrationError
from gatort.runtime.spec import (
    CONTINUOUS_BINS,
    SEPARATOR_ID,
    PolicySpec,
    Strict,
)
from gatort.runtime.tokenizer import Tokenizer

MANIFEST = "demonstrations.json"


class DemonstrationManifest(Strict):
    """What a folder of demonstrations holds."""

    task: str | None = None
    """Name of the task in `gatort.sim.tasks`. `None` for demonstrations of no simulated task."""
    spec: PolicySpec
    driver: str
    """Who chose the actions: the expert, or a policy whose ticks the expert labelled."""
    seconds: PositiveFloat
    """Longest episode; one that had not succeeded by then was ended."""
    first_seed: NonNegativeInt
    last_seed: NonNegativeInt
    episodes: PositiveInt
    successes: NonNegativeInt
    ticks: PositiveInt


def write_manifest(directory: Path, manifest: DemonstrationManifest) -> None:
    """Seal a folder of demonstrations."""
    (directory / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")


def load_manifest(directory: Path) -> DemonstrationManifest:
    """Read what a folder holds.

    Raises:
        DemonstrationError: there is no manifest, or it is not valid.
    """
    path = directory / MANIFEST
    if not path.is_file():
        raise DemonstrationError(
            f"{directory}: expected {MANIFEST} beside the episodes; make some with `gatort demos`"
        )
    try:
        return DemonstrationManifest.model_validate_json(path.read_text())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise DemonstrationError(f"{path}: {where}: {first['msg']}") from error


def load_episodes(directory: Path, spec: PolicySpec) -> list[Episode]:
    """Read every episode of a folder, in the order of their seeds.

    Raises:
        DemonstrationError: the specification differs, a file is missing, or one cannot be read.
    """
    manifest = load_manifest(directory)
    for field in ("observations", "actuators", "control_hz", "action_delay_ms"):
        if (found := getattr(manifest.spec, field)) != (expected := getattr(spec, field)):
            raise DemonstrationError(
                f"{directory}: {field} differ: expected {expected}, found {found}"
            )
    paths = sorted(directory.glob("*.npz"), key=lambda path: int(path.stem))
    if len(paths) != manifest.episodes:
        raise DemonstrationError(
            f"{directory}: expected {manifest.episodes} episodes, found {len(paths)}"
        )
    return [Episode.load(path, spec) for path in paths]


@dataclass(frozen=True, slots=True)
class Frames:
    """Episodes as frames of tokens. N frames in all, one after another."""

    ids: NDArray[np.int64]
    """(N, T − p) tokens in frame order, image patches left out."""
    patches: NDArray[np.float32]
    """(N, p, 3, 16, 16)."""
    targets: NDArray[np.float32]
    """(N, A) the expert's action on the scale of bins: bin i spans [i, i + 1)."""
    starts: NDArray[np.int64]
    """First frame of each episode, and N at the end."""

    @property
    def count(self) -> int:
        """N."""
        return len(self.ids)

    def windows(self, frames: int) -> NDArray[np.int64]:
        """Every frame from which `frames` whole frames of one episode follow."""
        lengths = np.diff(self.starts)
        runs = [
            np.arange(s, s + n - frames + 1)
            for s, n in zip(self.starts[:-1], lengths, strict=True)
            if n >= frames
        ]
        return np.concatenate(runs) if runs else np.empty(0, np.int64)


def tokenize(episodes: list[Episode], spec: PolicySpec) -> Frames:
    """Cut episodes into frames [last action token | observation | separator | first A − 1 action tokens].

    What was done stands in the frames, because that is what the policy will see; what the expert would have
    done is the target.
    """
    tokenizer = Tokenizer(spec)
    low = np.array([actuator.low for actuator in spec.actuators])
    high = np.array([actuator.high for actuator in spec.actuators])
    ids, patches, targets = [], [], []
    for episode in episodes:
        observed, pixels = tokenizer.encode_batch(episode.observations)
        done = tokenizer.encode_action(episode.actions)  # (K, A)
        separator = np.full((episode.ticks, 1), SEPARATOR_ID)
        last = np.concatenate([separator[:1], done[:-1, -1:]])  # (K, 1)
        ids.append(np.concatenate([last, observed, separator, done[:, :-1]], axis=1))
        patches.append(pixels)
        targets.append(
            np.clip((episode.expert_actions - low) / (high - low), 0, 1) * CONTINUOUS_BINS
        )
    return Frames(
        ids=np.concatenate(ids),
        patches=np.concatenate(patches),
        targets=np.concatenate(targets).astype(np.float32),
        starts=np.cumsum([0, *(episode.ticks for episode in episodes)]),
    )


def join(sets: Sequence[Frames]) -> Frames:
    """Put several sets of frames one after another."""
    counts = np.cumsum([0, *(frames.count for frames in sets)])
    return Frames(
        ids=np.concatenate([frames.ids for frames in sets]),
        patches=np.concatenate([frames.patches for frames in sets]),
        targets=np.concatenate([frames.targets for frames in sets]),
        starts=np.concatenate(
            [
                np.concatenate([f.starts[:-1] + c for f, c in zip(sets, counts[:-1], strict=True)]),
                counts[-1:],
            ]
        ),
    )
