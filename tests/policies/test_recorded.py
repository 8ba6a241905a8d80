"""The options of a replay are the recorded ones, unless others are given."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatort.policies.recorded import recorded_options
from gatort.runtime.errors import RecordingError
from gatort.runtime.recording.messages import PolicyRecord
from gatort.runtime.spec import PolicySpec


@pytest.fixture
def recorded(spec: PolicySpec) -> PolicyRecord:
    return PolicyRecord(
        bundle="b",
        directory=Path("recorded").absolute(),
        manifest_sha256="0" * 64,
        files={},
        engine="onnx",
        precision="int8",
        threads=1,
        spinning=False,
        temperature=0.0,
        seed=0,
        spec=spec,
        stages=("observe",),
    )


def test_without_other_wishes_bundle_engine_and_precision_are_the_recorded_ones(
    recorded: PolicyRecord,
) -> None:
    options = recorded_options(recorded)
    assert (options.bundle, options.engine) == (recorded.directory, "onnx")
    assert (options.precision, options.threads) == ("int8", 1)


def test_another_bundle_has_a_precision_of_its_own_for_an_engine_that_runs_it_as_exported(
    recorded: PolicyRecord,
) -> None:
    other = Path("other")
    assert recorded_options(recorded, other).precision is None
    native = recorded.model_copy(update={"engine": "native", "precision": "w8a8"})
    assert recorded_options(native, other).precision == "w8a8"


def test_another_engine_takes_its_own_default_precision(recorded: PolicyRecord) -> None:
    assert recorded_options(recorded, engine="torch").precision is None
    assert recorded_options(recorded, engine="torch", precision="fp32").precision == "fp32"


def test_an_unknown_recorded_engine_is_refused_with_the_known_ones(recorded: PolicyRecord) -> None:
    unknown = recorded.model_copy(update={"engine": "abacus"})
    with pytest.raises(RecordingError, match=r"expected one of onnx, .*, found 'abacus'"):
        recorded_options(unknown)
