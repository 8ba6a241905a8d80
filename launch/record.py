"""The recording of a live run: its file, its beginning, and its line in the report."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from gatort.policies.loading import precision_of
from gatort.runtime.bundle import MANIFEST_FILE, load_manifest, sha256_of
from gatort.runtime.clock import wall_clock_ns
from gatort.runtime.errors import GatortError
from gatort.runtime.machine import this_machine
from gatort.runtime.policy import Policy
from gatort.runtime.recording.reader import PolicyRecord, RunRecord
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.telemetry import stage_names

from .live_run import LiveRun
from .options import RunOptions
from .run_report import run_sentence

RECORDINGS = Path("runs")


def new_file(seed: int) -> Path:
    """Return an unused path in RECORDINGS for a run that begins now, named by UTC and seed."""
    now = datetime.fromtimestamp(wall_clock_ns() * 1e-9, UTC)
    return RECORDINGS / f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03}Z-seed{seed}.mcap"


def run_recorded(live: LiveRun, file: Path, console: Console, viewer: bool) -> Recorder:
    """Run and record into a file. Return the recorder, which is closed.

    Raises:
        RecordingError: the file cannot be opened.
        ObservationError, RobotError, DeviceError: robot or GPU failed before the first tick.
    """
    options = live.options
    run = RunRecord.of(options.robot, live.robot.interface, str(this_machine()), live.clock)
    with Recorder(file, run, _policy_record(live.policy, options)) as recorder:
        try:
            live.run(console, viewer, recorder)
        except GatortError as error:
            recorder.close(f"nothing ran: {error}")
            raise
        recorder.close(run_sentence(live))
    return recorder


def recording_sentence(recorder: Recorder) -> str:
    """Return the line on the recording at the end of a run."""
    if recorder.complete:
        return f"recording: {recorder.path}"
    dropped = f", {recorder.dropped} messages dropped" if recorder.dropped else ""
    return f"recording DEGRADED: {recorder.path} is incomplete: {recorder.degraded}{dropped}"


def recording_record(recorder: Recorder) -> dict[str, Any]:
    """Return the JSON form."""
    return {
        "file": str(recorder.path),
        "complete": recorder.complete,
        "degraded": recorder.degraded,
        "dropped": recorder.dropped,
    }


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
        stages=stage_names(policy.spec, policy.decoder.engine.stepwise),
    )
