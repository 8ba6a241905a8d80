"""Bundle and engine of a recorded run, or others in their place."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from gatort.runtime.errors import RecordingError
from gatort.runtime.recording.reader import PolicyRecord
from gatort.runtime.spec import Precision

from .loading import PROVIDERS, EngineName, PolicyOptions


def recorded_options(
    recorded: PolicyRecord,
    bundle: Path | None = None,
    engine: EngineName | None = None,
    precision: Precision | None = None,
) -> PolicyOptions:
    """Return the recorded options, replaced by the given ones.

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
    try:
        return PolicyOptions.model_validate(
            {
                "bundle": bundle or recorded.directory,
                "engine": engine or recorded.engine,
                "precision": precision or kept,
                "threads": recorded.threads,
                "spinning": recorded.spinning,
            }
        )
    except ValidationError as error:
        valid = ", ".join(get_args(EngineName))
        raise RecordingError(
            f"the recorded engine: expected one of {valid}, found {recorded.engine!r}"
        ) from error
