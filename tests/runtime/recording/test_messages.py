"""Messages survive their JSON to the bit, and keep to the schemas that viewers read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from mcap.reader import make_reader
from tests.runtime.recording.conftest import MS, control, read_whole

from gatort.runtime.clock import VirtualClock
from gatort.runtime.recording.messages import CHANNELS, RunRecord, StepMessage, field_names, numbers
from gatort.runtime.recording.reader import Recording
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.recording.tick_recorder import TickRecorder
from gatort.runtime.spec import ModelDims, PolicySpec


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_number_survives_to_the_bit_even_nan_and_infinity(dtype: type) -> None:
    info = np.finfo(dtype)
    values = np.array(
        [0.1, -0.0, info.max, info.smallest_subnormal, np.pi, np.nan, np.inf, -np.inf], dtype
    )
    text = msgspec.json.encode(StepMessage(state="run", values=numbers(values)))
    assert json.loads(text)["values"][-3:] == ["NaN", "Infinity", "-Infinity"]
    back = msgspec.json.decode(text, type=StepMessage, strict=False)
    assert np.array(back.values, dtype).tobytes() == values.tobytes()


def test_any_mcap_reader_finds_schemas_and_messages_that_keep_to_them(
    every_encoding_spec: PolicySpec, dims: ModelDims, clock: VirtualClock, path: Path
) -> None:
    spec = every_encoding_spec
    loop = control(spec, dims.model_copy(update={"first_token_id": 0}), clock)
    with Recorder(path, RunRecord.of("scripted", spec, "", clock)) as recorder:
        loop.run(3, TickRecorder(recorder, loop))
        recorder.close("done")

    wakes_ns = [clock.now_ns() - back * 50 * MS for back in range(3)]
    offset_ns = Recording(path).run.wall_clock_offset_ns
    found = 0
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        assert [each.name for each in reader.iter_metadata()] == ["run", "outcome"]
        # Pictures are in Protobuf; test_pictures.py reads them.
        for schema, channel, message in reader.iter_messages(topics=list(CHANNELS)):
            assert schema is not None
            assert (schema.encoding, channel.message_encoding) == ("jsonschema", "json")
            check(json.loads(message.data), json.loads(schema.data))
            assert message.log_time - offset_ns in wakes_ns
            found += 1
    assert found == sum(read_whole(path).counts.values()) == 13


def check(value: Any, schema: dict[str, Any]) -> None:
    """Check a value against the JSON Schema that viewers read: one type a field, lists of scalars.

    Raises:
        AssertionError: the value does not keep to the schema.
    """
    types = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
    }
    assert isinstance(value, types[schema["type"]])
    if isinstance(value, dict):
        assert set(schema.get("required", [])) <= value.keys() <= schema["properties"].keys()
        assert all(name.replace("_", "").isalnum() for name in value)
        for name, inner in value.items():
            check(inner, schema["properties"][name])
    if isinstance(value, list):
        assert schema["items"]["type"] in ("number", "integer", "string")
        for inner in value:
            check(inner, schema["items"])


def test_keys_that_differ_only_in_punctuation_keep_fields_of_their_own(spec: PolicySpec) -> None:
    position = spec.observations[0]
    keys = [position.model_copy(update={"name": name}) for name in ("a/b", "a_b", "a b", "ä")]
    assert field_names(keys) == ["a_b", "a_b_", "a_b__", "_"]
