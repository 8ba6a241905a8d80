"""Recordings of runs in which a person took over, as episodes to learn from.

A policy learns from the ticks of the person alone, as in HG-DAgger (Kelly et al. 2019, arXiv
1810.02890). The ticks of the policy stay as the past that the person met, without a label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from gatort.runtime.demonstrations import PERSON, DemonstrationManifest, write_manifest
from gatort.runtime.episode import Episode
from gatort.runtime.errors import DemonstrationError, RecordingError
from gatort.runtime.outputs import one_writer, removed_if_empty, require_folder
from gatort.runtime.spec import select_keys

from .messages import CommandMessage, ObservationMessage, PolicyRecord, TickMessage, arrays
from .reader import Recording

_Completed = tuple[TickMessage, ObservationMessage, CommandMessage]


def write_corrections(
    files: Sequence[Path],
    directory: Path,
    task: str | None,
    watch: Callable[[Path, Episode | None], None],
) -> DemonstrationManifest:
    """Write the runs in which a person took over as a folder of demonstrations, numbered from 0.

    Args:
        files: recordings of runs with policies of one interface.
        directory: new folder.
        task: name of the task in `gatort.sim.tasks`.
        watch: called with each recording and its episode, `None` if no person had the arm.

    Raises:
        RecordingError: a file is no recording of a policy, or its policy has another interface.
        DemonstrationError: the folder is not empty, or no person had the arm in any recording.
        OutputError: the folder cannot be written.
    """
    require_folder(directory)
    with removed_if_empty(directory):
        directory.mkdir(parents=True, exist_ok=True)
        with one_writer(directory):
            if others := [each for each in directory.iterdir() if each.name[:1] != "."]:
                raise DemonstrationError(
                    f"{directory}: expected an empty folder, found {others[0].name}; choose another"
                )
            return _write(files, directory, task, watch)


def _write(
    files: Sequence[Path],
    directory: Path,
    task: str | None,
    watch: Callable[[Path, Episode | None], None],
) -> DemonstrationManifest:
    """Write each episode as soon as it is read, then the manifest."""
    policies: list[PolicyRecord] = []
    seeds: list[int] = []
    ticks = successes = corrected = 0
    for file in files:
        recording = Recording(file)
        policies.append(_policy_of(recording))
        _require_same(files[0], policies[0], file, policies[-1])
        episode = corrected_episode(recording)
        watch(file, episode)
        if episode is None:
            continue
        episode.save(directory / f"{len(seeds)}.npz", policies[0].spec)
        seeds.append(episode.seed)
        ticks += episode.ticks
        successes += int(episode.succeeded)
        corrected += int(episode.labelled.sum())

    if not seeds:
        raise DemonstrationError(
            f"expected a recording in which a person took over, found {len(files)} without; make "
            "one with `gatort run --takeover`"
        )
    spec = policies[0].spec
    bundles = ", ".join(dict.fromkeys(policy.manifest_sha256[:12] for policy in policies))
    manifest = DemonstrationManifest(
        task=task,
        spec=spec,
        driver=f"{PERSON} in {corrected} of {ticks} ticks, after the policies {bundles}",
        seconds=ticks / spec.control_hz,
        first_seed=min(seeds),
        last_seed=max(seeds),
        episodes=len(seeds),
        successes=successes,
        ticks=ticks,
    )
    write_manifest(directory, manifest)
    return manifest


def _require_same(first: Path, one: PolicyRecord, file: Path, other: PolicyRecord) -> None:
    if one.spec != other.spec:
        raise RecordingError(
            f"{file}: expected a policy of the same interface as in {first}, found another; give "
            "the recordings of each interface a folder of their own"
        )


def corrected_episode(recording: Recording) -> Episode | None:
    """Return a run as an episode, or `None` if no person had the arm in it.

    A refused tick stands in no context, and so in no episode.

    Raises:
        RecordingError: the recording is of no policy, or a message of it is damaged.
    """
    policy = _policy_of(recording)
    selection = select_keys(policy.spec, recording.run.interface, "the recording")
    ticks = list(_completed(recording))
    if not any(tick.by_person for tick, _, _ in ticks):
        return None
    keys = recording.run.interface.observations
    observed = [selection.select(arrays(seen.values, keys)) for _, seen, _ in ticks]
    return Episode(
        seed=policy.seed,
        succeeded=any(tick.succeeded for tick, _, _ in ticks),
        observations=tuple(np.stack(values) for values in zip(*observed, strict=True)),
        actions=_actions(policy, [command.limited for _, _, command in ticks]),
        expert_actions=_actions(policy, [command.asked for _, _, command in ticks]),
        labelled=np.array([tick.by_person for tick, _, _ in ticks]),
    )


def _policy_of(recording: Recording) -> PolicyRecord:
    if recording.policy is None:
        raise RecordingError(
            f"{recording.path}: expected the recording of a run with a policy, found an arm's own; "
            "name one of `gatort run --takeover`"
        )
    return recording.policy


def _completed(recording: Recording) -> Iterator[_Completed]:
    """Yield the messages of each tick that sent a command.

    After lost messages none follows: its past would lack a frame.
    """
    count = 0
    observation: ObservationMessage | None = None
    command: CommandMessage | None = None
    for stamped in recording.messages():
        match stamped.message:
            case ObservationMessage() as message:
                observation = message
            case CommandMessage() as message:
                command = message
            case TickMessage() as tick:
                count += 1
                if stamped.sequence != count:
                    return
                if observation is not None and command is not None and not tick.reason:
                    yield tick, observation, command
                observation = command = None


def _actions(
    policy: PolicyRecord, rows: Sequence[list[float] | msgspec.UnsetType]
) -> NDArray[np.float32]:
    """Return recorded actions as (K, A).

    Raises:
        RecordingError: a tick has more or fewer values than the policy has actuators.
    """
    expected = policy.spec.action_tokens
    for row in rows:
        if row is msgspec.UNSET or len(row) != expected:
            raise RecordingError(f"expected {expected} values in each command, found others")
    return np.array(rows, np.float32)
