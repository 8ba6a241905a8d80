"""The recording that every run makes: where it goes, what stands at its beginning, what is said of it at the end."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gatort.policies.loading import precision_of
from gatort.runtime.bundle import (
    MANIFEST_FILE,
    load_manifest,
    sha256_of,
)
from gatort.runtime.clock import (
    Clock,
    wall_clock_ns,
)
from gatort.runtime.machine import this_machine
from gatort.runtime.policy import Policy
from gatort.runtime.recording.messages import PolicyRecord, RunRecord
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.robot import Robot
from gatort.runtime.telemetry import stage_names

from .options import RunOptions

RECORDINGS = Path("runs")


def new_file(seed: int) -> Path:
    """A file of its own in RECORDINGS for a run that begins now, named by UTC and seed."""
    now = datetime.fromtimestamp(wall_clock_ns() * 1e-9, UTC)
    return RECORDINGS / f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03}Z-seed{seed}.mcap"


def begin_recording(
    file: Path, policy: Policy, options: RunOptions, robot: Robot, clock: Clock
) -> Recorder:
    """Record a run into a file.

    Raises:
        RecordingError: the file cannot be opened.
    """
    run = RunRecord.of(options.robot, robot.interface, str(this_machine()), clock)
    return Recorder(file, run, _policy_record(policy, options))


def _policy_record(policy: Policy, options: RunOptions) -> PolicyRecord:
    manifest = load_manifest(options.bundle)
    return PolicyRecord(
        bundle=manifest.name,
        directory=options.bundle.absolute(),
        manifest_sha256=sha256_of(options.bundle / MANIFEST_FILE),
        files=manifest.files,
        engine=options.engine,
        precision=precision_of(options, manifest.precision),
        threads=options.threads,
        spinning=options.spinning,
        temperature=options.temperature,
        seed=options.seed,
        spec=policy.spec,
        stages=stage_names(policy.spec, policy.engine.stepwise),
    )


def recording_sentence(recorder: Recorder) -> str:
    """What the run's last lines say of its recording."""
    if recorder.complete:
        return f"recording: {recorder.path}"
    dropped = f", {recorder.dropped} messages dropped" if recorder.dropped else ""
    return f"recording DEGRADED: {recorder.path} is incomplete: {recorder.degraded}{dropped}"


def recording_record(recorder: Recorder) -> dict[str, Any]:
    """The JSON form."""
    return {
        "file": str(recorder.path),
        "complete": recorder.complete,
        "degraded": recorder.degraded,
        "dropped": recorder.dropped,
    }
