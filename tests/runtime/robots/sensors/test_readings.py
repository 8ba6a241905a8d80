"""Messages of sensors: valid ones are read, and no other bytes pass."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatort.runtime.errors import ConfigError, WireError
from gatort.runtime.robots.sensors.readings import LARGEST_BYTES, decode, encode, require_loopback

POSE = {"pose/red": [0.45, 0.1, 0.025, 1.0, 0.0, 0.0, 0.0]}


def test_a_message_survives_its_journey() -> None:
    message = decode(encode(12, POSE))
    assert message.stamp_ns == 12
    assert message.values == POSE


def test_whole_numbers_are_numbers() -> None:
    assert decode(b'{"stamp_ns": 1, "values": {"edge/red": [1]}}').values == {"edge/red": [1.0]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"stamp_ns": 1}',
        b'{"stamp_ns": 1.5, "values": {}}',
        b'{"stamp_ns": 1, "values": {"a": 1}}',
        b'{"stamp_ns": 1, "values": {"a": ["1"]}}',
        b'{"stamp_ns": 1, "values": {"a": [NaN]}}',
        b'{"stamp_ns": 1, "values": {"a": [1e999]}}',
        b'{"stamp_ns": 1, "values": {"": [1]}}',
        b'{"stamp_ns": 1, "values": {}, "more": 1}',
        b'{"stamp_ns": 1, "values": {"\xff": [1]}}',
        b"[" * 60_000,
        b" " * (LARGEST_BYTES + 1),
        encode(1, {f"key{index}": [0.0] for index in range(65)}),
        encode(1, {"a": [0.0] * 4097}),
    ],
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(WireError, match="expected"):
        decode(data)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_random_bytes_raise_nothing_but_a_wire_error(data: bytes) -> None:
    try:
        decode(data)
    except WireError:
        return


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:5560", "tcp://localhost:1", "tcp://[::1]:9"])
def test_a_sensor_on_this_computer_is_accepted(address: str) -> None:
    assert require_loopback(address) == address


@pytest.mark.parametrize(
    "address",
    ["tcp://192.0.2.7:5560", "tcp://0.0.0.0:5560", "tcp://*:5560", "ipc:///tmp/a", "tcp://127.0.0.1",
     "tcp://127.0.0.1:port", "127.0.0.1:5560", "tcp://127.0.0.1:5560/x", ""],
)  # fmt: skip
def test_a_sensor_elsewhere_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="expected a sensor on this computer"):
        require_loopback(address)
