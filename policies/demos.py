"""Episodes as frames of tokens, ready to learn from.

Letters: K ticks in an episode, N frames, T tokens in a frame, p image patches in a frame,
A action tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.episode import Episode
from gatort.runtime.spec import CONTINUOUS_BINS, SEPARATOR_ID, PolicySpec
from gatort.runtime.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Frames:
    """Episodes as N frames of tokens, one after another."""

    ids: NDArray[np.int64]
    """(N, T − p) tokens in frame order, without image patches."""
    pictures: tuple[NDArray[np.uint8], ...]
    """(N, H, W, 3) pictures of each camera. Training cuts a batch of them into patches."""
    targets: NDArray[np.float32]
    """(N, A) the expert's action on the scale of bins: bin i spans [i, i + 1)."""
    starts: NDArray[np.int64]
    """(episodes + 1,) index of each episode's first frame, followed by N."""
    places: NDArray[np.float32]
    """(N, bodies, 3) places of the bodies in the tool's frame, in m; no rows if unknown."""
    labelled: NDArray[np.bool_]
    """(N,) true where the targets are to be learned."""

    @property
    def count(self) -> int:
        """Number of frames, N."""
        return len(self.ids)

    def windows(self, frames: int) -> NDArray[np.int64]:
        """Return the index of every frame that starts a run of `frames` frames in one episode.

        A run without a target to be learned is left out.
        """
        lengths = np.diff(self.starts)
        runs = [
            np.arange(start, start + length - frames + 1)
            for start, length in zip(self.starts[:-1], lengths, strict=True)
            if length >= frames
        ]
        starts: NDArray[np.int64] = np.concatenate(runs) if runs else np.empty(0, np.int64)
        learned = np.concatenate([[0], np.cumsum(self.labelled)])  # (N + 1,)
        return starts[learned[starts + frames] > learned[starts]]


def tokenize(episodes: Sequence[Episode], spec: PolicySpec) -> Frames:
    """Cut episodes into frames.

    A frame is [last action token, observation, separator, first A − 1 action tokens].

    The frames hold the actions that were taken, because a policy sees those.
    The targets hold the actions that the expert would have taken.
    """
    tokenizer = Tokenizer(spec)
    low = np.array([actuator.low for actuator in spec.actuators])
    high = np.array([actuator.high for actuator in spec.actuators])

    ids: list[NDArray[np.int64]] = []
    targets: list[NDArray[np.float64]] = []
    for episode in episodes:
        observed = tokenizer.encode_ids(episode.observations)
        taken = tokenizer.encode_action(episode.actions)  # (K, A)
        separator = np.full((episode.ticks, 1), SEPARATOR_ID)
        last = np.concatenate([separator[:1], taken[:-1, -1:]])  # (K, 1)
        ids.append(np.concatenate([last, observed, separator, taken[:, :-1]], axis=1))
        share = np.clip((episode.expert_actions - low) / (high - low), 0, 1)  # (K, A)
        targets.append(share * CONTINUOUS_BINS)

    return Frames(
        ids=np.concatenate(ids),
        pictures=tuple(
            np.concatenate([episode.observations[index] for episode in episodes])
            for index, key in enumerate(spec.observations)
            if key.encoding == "image"
        ),
        targets=np.concatenate(targets).astype(np.float32),
        starts=np.cumsum([0, *(episode.ticks for episode in episodes)]),
        places=_places(episodes),
        labelled=np.concatenate([_labelled(episode) for episode in episodes]),
    )


def _labelled(episode: Episode) -> NDArray[np.bool_]:
    return episode.labelled if len(episode.labelled) else np.ones(episode.ticks, np.bool_)


def _places(episodes: Sequence[Episode]) -> NDArray[np.float32]:
    """Join the places of episodes, or return no rows if one of them has none."""
    if any(len(episode.places) != episode.ticks for episode in episodes):
        return np.empty((0, 0, 3), np.float32)
    return np.concatenate([episode.places for episode in episodes])


def join(sets: Sequence[Frames]) -> Frames:
    """Put several sets of frames one after another."""
    counts = np.cumsum([0, *(frames.count for frames in sets)])
    starts = [frames.starts[:-1] + offset for frames, offset in zip(sets, counts[:-1], strict=True)]
    return Frames(
        ids=np.concatenate([frames.ids for frames in sets]),
        pictures=tuple(
            np.concatenate(pictures)
            for pictures in zip(*(frames.pictures for frames in sets), strict=True)
        ),
        targets=np.concatenate([frames.targets for frames in sets]),
        starts=np.concatenate([*starts, counts[-1:]]),
        places=np.concatenate([frames.places for frames in sets if len(frames.places)])
        if all(len(frames.places) for frames in sets)
        else np.empty((0, 0, 3), np.float32),
        labelled=np.concatenate([frames.labelled for frames in sets]),
    )
