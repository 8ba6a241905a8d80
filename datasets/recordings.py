"""Recordings of `gatort run` as episodes: one recording, one episode.

A tick that the loop refused sent no command and left no trace in the policy's context. It is left
out. The stamps of the other ticks show the gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from gatort.runtime.episode import Episode
from gatort.runtime.errors import RecordingError
from gatort.runtime.recording.messages import (
    CommandMessage,
    ObservationMessage,
    TickMessage,
    arrays,
)
from gatort.runtime.recording.reader import Recording
from gatort.runtime.spec import KeySelection, PolicySpec, select_keys

MOST_BYTES: Final = 1 << 32
"""Most memory that the observations of one recording may take."""


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
    interface = recording.run.interface
    ticks = _Ticks(spec, select_keys(spec, interface, str(path)), interface.observations, path)
    for _, _, message in recording.messages():
        ticks.take(message)
    if recording.incomplete is not None:
        raise RecordingError(
            f"{path}: expected a complete recording, found that {recording.incomplete}; "
            "leave the file out"
        )
    if len(ticks.stamps_ns) < 2:
        raise RecordingError(
            f"{path}: expected at least 2 ticks with a command, found {len(ticks.stamps_ns)}; "
            "leave the file out"
        )
    outcome = recording.outcome
    actions = np.array(ticks.actions, np.float32)  # (K, A)
    episode = Episode(
        seed=seed,
        succeeded=outcome is not None and outcome.succeeded is True,
        observations=tuple(np.stack(values) for values in zip(*ticks.observed, strict=True)),
        actions=actions,
        expert_actions=actions,
        stamps_ns=np.array(ticks.stamps_ns, np.int64),
    )
    return RecordedEpisode(episode, ticks.left_out)


@dataclass(slots=True)
class _Ticks:
    """Ticks of a recording, collected message by message."""

    spec: PolicySpec
    selection: KeySelection
    keys: Sequence[Any]
    path: Path
    observed: list[tuple[NDArray[Any], ...]] = field(default_factory=list)
    actions: list[list[float]] = field(default_factory=list)
    stamps_ns: list[int] = field(default_factory=list)
    left_out: int = 0
    _bytes: int = 0
    _observation: ObservationMessage | None = None
    _command: CommandMessage | None = None

    def take(self, message: Any) -> None:
        """Keep one message; complete the tick at its last one."""
        match message:
            case ObservationMessage():
                self._observation = message
            case CommandMessage():
                self._command = message
            case TickMessage():
                self._complete(message)
                self._observation = self._command = None

    def _complete(self, tick: TickMessage) -> None:
        observation, command = self._observation, self._command
        if observation is None or command is None or command.limited is UNSET:
            self.left_out += 1
            return
        if observation.tick != tick.tick or command.tick != tick.tick:
            self.left_out += 1
            return
        if len(command.limited) != len(self.spec.actuators):
            raise RecordingError(
                f"{self.path}: tick {tick.tick}: expected {len(self.spec.actuators)} values in the "
                f"command, found {len(command.limited)}"
            )
        values = self.selection.select(arrays(observation.values, self.keys))
        self._bytes += sum(each.nbytes for each in values)
        if self._bytes > MOST_BYTES:
            raise RecordingError(
                f"{self.path}: expected observations of at most {MOST_BYTES >> 30} GiB, "
                "found more; record shorter runs"
            )
        self.observed.append(values)
        self.actions.append(command.limited)
        self.stamps_ns.append(observation.stamp_ns)
