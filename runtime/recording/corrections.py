"""Recordings of runs in which a person took over, as episodes to learn from.

A policy learns from the ticks of the person alone, as in HG-DAgger (Kelly et al. 2019, arXiv
1810.02890). The ticks of the policy stay as the past that the person met, without a label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from gatort.runtime.demonstrations import PERSON, DemonstrationManifest, write_manifest
from gatort.runtime.episode import Episode
from gatort.runtime.errors import DemonstrationError, RecordingError
from gatort.runtime.outputs import one_writer, removed_if_empty, require_folder

from .messages import PolicyRecord
from .reader import Recording
from .sent_ticks import sent_ticks


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

    Raises:
        RecordingError: the recording is of no policy, or a message of it is damaged.
    """
    policy = _policy_of(recording)
    sent = list(sent_ticks(recording, policy.spec))
    if not any(each.tick.by_person for each in sent):
        return None
    observed = zip(*(each.values for each in sent), strict=True)
    return Episode(
        seed=policy.seed,
        succeeded=recording.succeeded,
        observations=tuple(np.stack(values) for values in observed),
        actions=np.array([each.limited for each in sent], np.float32),
        expert_actions=np.array([each.asked for each in sent], np.float32),
        labelled=np.array([each.tick.by_person for each in sent]),
    )


def _policy_of(recording: Recording) -> PolicyRecord:
    if recording.policy is None:
        raise RecordingError(
            f"{recording.path}: expected the recording of a run with a policy, found an arm's own; "
            "name one of `gatort run --takeover`"
        )
    return recording.policy
