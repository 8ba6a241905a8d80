"""Bundle and engine of a recorded run: written to the recording, and read again for a replay."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from gatort.runtime.bundle import load_hashed_manifest
from gatort.runtime.errors import RecordingError
from gatort.runtime.policy import Policy
from gatort.runtime.recording.messages import PolicyRecord
from gatort.runtime.spec import Precision
from gatort.runtime.telemetry import stage_names

from .loading import PROVIDERS, EngineName, PolicyOptions, decoding_of, precision_of


def policy_record(policy: Policy, options: PolicyOptions, seed: int) -> PolicyRecord:
    """Return the record of a policy at the beginning of a recording.

    Args:
        policy: policy that was loaded.
        options: bundle and engine that it was loaded with.
        seed: seed of the sampler.
    """
    if policy.manifest is None:
        return _demo_record(policy, seed)
    manifest, manifest_sha256 = load_hashed_manifest(options.bundle)
    # JSON has no bytes that are not UTF-8.
    directory = os.fsencode(options.bundle.absolute()).decode(errors="replace")
    return PolicyRecord(
        bundle=manifest.name,
        directory=Path(directory),
        manifest_sha256=manifest_sha256,
        files=manifest.files,
        engine=options.engine,
        precision=precision_of(options, manifest.precision),
        decoding=decoding_of(options),
        threads=options.threads,
        spinning=options.spinning,
        temperature=options.temperature,
        seed=seed,
        spec=policy.spec,
        stages=stage_names(policy.spec, policy.engine.stepwise),
    )


def _demo_record(policy: Policy, seed: int) -> PolicyRecord:
    """Return the record of a motion without a policy. It has no bundle that a replay could load."""
    text = policy.spec.model_dump_json()
    return PolicyRecord(
        bundle=policy.engine.name,
        directory=Path(),
        manifest_sha256=hashlib.sha256(text.encode()).hexdigest(),
        files={},
        engine=policy.engine.name,
        precision="fp32",
        threads=1,
        spinning=False,
        temperature=0.0,
        seed=seed,
        spec=policy.spec,
        stages=stage_names(policy.spec, policy.engine.stepwise),
    )


def recorded_options(
    recorded: PolicyRecord,
    bundle: Path | None = None,
    engine: EngineName | None = None,
    precision: Precision | None = None,
) -> PolicyOptions:
    """Return the recorded options, replaced by the given ones.

    The recording decides no more threads than this process has cores, and none of them spins.

    Another engine takes its own default precision. So does an engine that runs a bundle as it was
    exported, if another bundle is given.

    Args:
        recorded: policy of the recording.
        bundle: directory of another bundle.
        engine: another engine.
        precision: another precision.

    Raises:
        RecordingError: the recorded engine is unknown.
    """
    other_engine = engine not in (None, recorded.engine)
    other_graph = bundle is not None and recorded.engine in PROVIDERS
    kept = None if other_engine or other_graph else recorded.precision
    # The tokens of `exact` and of `greedy` are the same, and not every engine runs both.
    free = other_engine and recorded.decoding != "parallel"
    try:
        return PolicyOptions.model_validate(
            {
                "bundle": bundle or recorded.directory,
                "engine": engine or recorded.engine,
                "precision": precision or kept,
                "decoding": None if free else recorded.decoding,
                "threads": min(recorded.threads, len(os.sched_getaffinity(0))),
            }
        )
    except ValidationError as error:
        valid = ", ".join(get_args(EngineName))
        raise RecordingError(
            f"the recorded engine: expected one of {valid}, found {recorded.engine!r}; "
            "name one with --engine"
        ) from error
