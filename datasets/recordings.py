"""Recordings of `gatort run` as episodes: one recording, one episode.

A tick that the loop refused sent no command and left no trace in the policy's context. It is left
out. The stamps of the other ticks show the gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gatort.runtime.episode import Episode
from gatort.runtime.errors import RecordingError
from gatort.runtime.recording.reader import Recording
from gatort.runtime.recording.sent_ticks import SentTick, sent_ticks
from gatort.runtime.spec import PolicySpec

from .columns import MOST_EPISODE_BYTES


@dataclass(frozen=True, slots=True)
class RecordedEpisode:
    """One recording as an episode."""

    episode: Episode
    """Ticks that sent a command."""
    left_out: int
    """Number of ticks that were refused, or whose messages were lost."""


def common_spec(paths: Sequence[Path]) -> tuple[PolicySpec, str]:
    """Return the specification that all recordings share, and the name of the first robot.

    Raises:
        RecordingError: two of them differ, or one has no policy.
    """
    first = Recording(paths[0])
    spec = _spec(first)
    for path in paths[1:]:
        if _spec(Recording(path)) != spec:
            raise RecordingError(
                f"{path}: expected the keys, actuators and rates of {paths[0]}, found others; "
                "convert the two apart"
            )
    return spec, first.run.robot


def _spec(recording: Recording) -> PolicySpec:
    if recording.policy is None:
        raise RecordingError(
            f"{recording.path}: expected a recording of a policy's ticks, as `gatort run` makes, "
            "found one of a robot alone; name the controller's recording"
        )
    return recording.policy.spec


def read_episode(path: Path, spec: PolicySpec, seed: int) -> RecordedEpisode:
    """Return a recording as an episode. Its actions are the commands as sent to the robot.

    Args:
        path: the recording.
        spec: keys and actuators of the episode, which the recorded robot must offer.
        seed: number of the episode.

    Raises:
        RecordingError: the file is no recording, is incomplete, or has fewer than two whole ticks.
        SpecError: the recorded robot has another interface.
    """
    recording = Recording(path)
    sent: list[SentTick] = []
    size = 0
    for each in sent_ticks(recording, spec):
        size += sum(values.nbytes for values in each.values)
        if size > MOST_EPISODE_BYTES:
            raise RecordingError(
                f"{path}: expected observations of at most {MOST_EPISODE_BYTES >> 30} GiB, "
                "found more; record shorter runs"
            )
        sent.append(each)
    if recording.incomplete is not None:
        raise RecordingError(
            f"{path}: expected a complete recording, found that {recording.incomplete}; "
            "leave the file out"
        )
    if len(sent) < 2:
        raise RecordingError(
            f"{path}: expected at least 2 ticks with a command, found {len(sent)}; "
            "leave the file out"
        )
    actions = np.array([each.limited for each in sent], np.float32)  # (K, A)
    observed = zip(*(each.values for each in sent), strict=True)
    episode = Episode(
        seed=seed,
        succeeded=recording.succeeded,
        observations=tuple(np.stack(values) for values in observed),
        actions=actions,
        expert_actions=actions,
        stamps_ns=np.array([each.stamp_ns for each in sent], np.int64),
    )
    return RecordedEpisode(episode, recording.counts["/tick"] - len(sent))
