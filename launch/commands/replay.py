"""`gatort replay`: a recording's observations through an engine again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gatort.launch.outputs import require_writable
from gatort.launch.report import progress_bar, screen, write_json
from gatort.policies.demo import DEMO_ENGINE
from gatort.policies.loading import EngineName, load_policy
from gatort.policies.recorded import recorded_options
from gatort.runtime.bundle import Manifest, load_hashed_manifest
from gatort.runtime.decoding import Sampler
from gatort.runtime.errors import BundleError, RecordingError
from gatort.runtime.exit_status import verdict
from gatort.runtime.machine import this_machine
from gatort.runtime.policy import Policy
from gatort.runtime.recording.messages import PolicyRecord
from gatort.runtime.recording.reader import Recording
from gatort.runtime.recording.replay import Comparison, changed_files, replay_recording
from gatort.runtime.spec import Precision


def replay(
    file: Path,
    *,
    bundle: Path | None = None,
    engine: EngineName | None = None,
    precision: Precision | None = None,
    json: Path | None = None,
) -> int:
    """Feed a recording's observations through an engine and compare every action token.

    After a difference the context goes on with the recorded tokens, so each later token is compared
    on the same past. Exit status 1 when a token differs.

    Parameters
    ----------
    file
        Recording (.mcap) of `gatort run`.
    bundle
        Directory of the policy, or the name of a shipped one. Default: the recorded directory, if
        it still holds the recorded bundle.
    engine
        Engine that computes the passes; the recorded engine by default.
    precision
        Precision of the weights; the recorded precision by default, if the engine is the recorded
        one. ONNX Runtime uses the bundle's own.
    json
        Write the comparison to this file as well.
    """
    require_writable(json=json)
    recording = Recording(file)
    recorded = recording.policy
    if recorded is None:
        raise RecordingError(
            f"{file}: expected a run of a policy, found a recording of the robot alone"
        )
    if recorded.engine.startswith(DEMO_ENGINE):
        raise RecordingError(
            f"{file}: expected a run of a policy, found one of `gatort run --demo`, which has no "
            "engine to compare; name another recording"
        )
    options = recorded_options(recorded, bundle, engine, precision)
    manifest, manifest_sha256 = _find_bundle(recording, recorded, options.bundle)
    if bundle is None and manifest_sha256 != recorded.manifest_sha256:
        raise RecordingError(
            f"{file}: expected the recorded bundle in {options.bundle}, found another: "
            "name the bundle with --bundle"
        )
    sampler = Sampler(recorded.temperature, recorded.seed)
    policy = load_policy(options, sampler, manifest_sha256)

    comparison = _replay(recording, policy)
    changed = changed_files(recorded, manifest, manifest_sha256)
    notes = list(_notes(changed, options.bundle, recording, comparison))
    screen(json).print(*notes, comparison.sentence(policy.engine.name), sep="\n")
    write_json(json, "replay", _record(comparison, policy, notes))
    return verdict(comparison.first is None)


def _find_bundle(
    recording: Recording, recorded: PolicyRecord, directory: Path
) -> tuple[Manifest, str]:
    """Return the manifest of a bundle and its hash.

    Raises:
        RecordingError: the recorded directory holds no bundle.
        BundleError: another directory holds none.
    """
    try:
        return load_hashed_manifest(directory)
    except BundleError as error:
        if directory != recorded.directory:
            raise
        raise RecordingError(
            f"{recording.path}: {error}: name the recorded bundle with --bundle"
        ) from error


def _replay(recording: Recording, policy: Policy) -> Comparison:
    with progress_bar("replay, KiB") as progress:
        bar = progress.add_task("", total=recording.total_bytes // 1024)
        return replay_recording(
            recording, policy, lambda read: progress.update(bar, completed=read // 1024)
        )


def _notes(
    changed: list[str], bundle: Path, recording: Recording, comparison: Comparison
) -> Iterator[str]:
    """Yield the circumstances that limit the verdict."""
    if changed:
        yield f"{bundle} is not the recorded bundle: it differs in {', '.join(changed)}"
    if comparison.gap is not None:
        yield comparison.gap
    if (cause := recording.incomplete) is not None:
        yield f"the recording is incomplete: {cause}"


def _record(comparison: Comparison, policy: Policy, notes: list[str]) -> dict[str, Any]:
    """Return the JSON form."""
    return {
        "engine": policy.engine.name,
        "ticks": comparison.ticks,
        "equal_ticks": comparison.equal_ticks,
        "tokens": comparison.tokens,
        "equal_tokens": comparison.equal_tokens,
        "first_difference": asdict(comparison.first) if comparison.first else None,
        "notes": notes,
        "machine": asdict(this_machine()),
    }
