"""The protocol byte for byte, and its decoders on arbitrary bytes."""

from __future__ import annotations

import json
import random
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gatort.runtime.errors import WireError
from gatort.runtime.facts import Fact
from gatort.runtime.remote import wire
from gatort.runtime.safety import State
from gatort.runtime.spec import PolicySpec

VECTORS = json.loads(
    (Path(__file__).parents[2] / "data" / "wire" / "vectors.json").read_text(encoding="utf-8")
)
DECODERS = {"to_robot": wire.decode_request, "to_controller": wire.decode_answer}
KINDS = {kind.__name__.removeprefix("Wire"): kind for kind in (wire.Request | wire.Answer).__args__}
"""Class of each message, by the message's name in docs/wire.md."""
MUTATED, SEED = 110_000, 0


def message_of(vector: dict[str, Any]) -> Any:
    fields = dict(vector["fields"])
    if vector["message"] == "Observation":
        fields |= {
            "state": State(fields["state"]),
            "values": [bytes.fromhex(value) for value in fields["values"]],
        }
    if vector["message"] == "Welcome":
        fields["facts"] = [Fact(*fact) for fact in fields["facts"]]
    return KINDS[vector["message"]](**fields)


def decoder_of(message: Any) -> Callable[[bytes], Any]:
    return DECODERS["to_robot" if isinstance(message, wire.Request) else "to_controller"]


VALID = [(message_of(vector), bytes.fromhex(vector["hex"])) for vector in VECTORS["valid"]]
REFUSED = [(each["direction"], bytes.fromhex(each["hex"])) for each in VECTORS["refused"]]


@pytest.mark.parametrize(
    ("message", "frame"), VALID, ids=[vector["message"] for vector in VECTORS["valid"]]
)
def test_each_message_is_these_bytes_and_these_bytes_are_that_message(
    message: Any, frame: bytes
) -> None:
    assert wire.encode(message) == frame
    assert decoder_of(message)(frame) == message


def test_the_vectors_hold_every_message_and_every_state() -> None:
    messages = [message for message, _ in VALID]
    assert {type(message) for message in messages} == set((wire.Request | wire.Answer).__args__)
    assert {
        message.state for message in messages if isinstance(message, wire.WireObservation)
    } == set(State)


@pytest.mark.parametrize(
    ("direction", "frame"), REFUSED, ids=[vector["why"] for vector in VECTORS["refused"]]
)
def test_a_frame_that_is_no_message_is_refused_in_one_way(direction: str, frame: bytes) -> None:
    with pytest.raises(WireError, match="expected a message of protocol 3"):
        DECODERS[direction](frame)


def test_a_frame_beyond_the_bound_is_refused_unread() -> None:
    with pytest.raises(WireError, match="at most 4096 bytes, found 4097"):
        wire.decode_request(bytes(4097))
    with pytest.raises(WireError, match="at most 1048576 bytes, found 1048577"):
        wire.decode_answer(bytes(wire.LARGEST_ANSWER_BYTES + 1))


def test_the_longest_command_fits_into_the_bound() -> None:
    largest = (1 << 63) - 1
    command = wire.WireCommand(largest, largest, largest, largest, largest, [1.1] * 64)
    assert len(wire.encode(command)) < wire.LARGEST_REQUEST_BYTES
    assert wire.decode_request(wire.encode(command)) == command


@given(st.lists(st.floats(), max_size=64), st.integers(0, (1 << 63) - 1))
def test_every_float_crosses_the_wire_as_it_is(values: list[float], session: int) -> None:
    found = wire.decode_request(wire.encode(wire.WireCommand(session, 1, 1, 0, 1, values)))
    assert isinstance(found, wire.WireCommand)
    np.testing.assert_array_equal(np.array(found.values), np.array(values))
    assert found.session == session


def test_an_observations_arrays_cross_the_wire_bit_for_bit(
    every_encoding_spec: PolicySpec,
) -> None:
    noise = np.random.default_rng(0)
    values = [
        np.frombuffer(noise.bytes(key.size * np.dtype(key.dtype).itemsize), key.dtype).reshape(
            key.shape
        )
        for key in every_encoding_spec.observations
    ]
    found = wire.unpack(every_encoding_spec, wire.pack(values))
    for key, sent, received in zip(every_encoding_spec.observations, values, found, strict=True):
        assert (received.shape, received.dtype) == (key.shape, np.dtype(key.dtype))
        assert received.tobytes() == sent.tobytes()
        assert received.flags.owndata or received.base.flags.owndata


def test_a_picture_taken_backwards_is_packed_in_the_order_of_its_rows(
    every_encoding_spec: PolicySpec,
) -> None:
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert wire.pack([picture[::-1]]) == [picture[::-1].tobytes()]
    assert wire.pack([np.array([1.0], ">f4")]) == [struct.pack("<f", 1.0)]


def test_arrays_that_differ_from_the_interface_are_refused_by_name(spec: PolicySpec) -> None:
    with pytest.raises(WireError, match="expected 2 arrays in an observation, found 1"):
        wire.unpack(spec, [b""])
    with pytest.raises(WireError, match="arm/velocity: expected 8 bytes, found 7"):
        wire.unpack(spec, [bytes(12), bytes(7)])


PAGE = (Path(__file__).parents[3] / "docs" / "wire.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", KINDS)
def test_the_page_gives_each_messages_tag_and_fields_in_their_order(name: str) -> None:
    kind = KINDS[name]
    row = re.search(rf"^\| {name} \| (\d+) \| (.*) \|$", PAGE, re.MULTILINE)
    assert row is not None
    assert int(row[1]) == kind.__struct_config__.tag
    assert tuple(re.findall(r"\w+", re.sub(r"\*[^*]*\*", "", row[2]))) == kind.__struct_fields__


def test_the_pages_example_is_one_of_the_vectors() -> None:
    block = re.search(r"```\n(97 .*?)```", PAGE, re.DOTALL)
    assert block is not None
    shown = " ".join(
        re.match(r" *([0-9a-f ]*?)(?:  |\n|$)", line)[1] for line in block[1].splitlines()
    )  # type: ignore[index]
    assert bytes.fromhex(shown) in [
        frame for message, frame in VALID if isinstance(message, wire.WireCommand)
    ]


# -- Fuzzing -----------------------------------------------------------------------------------


def decode(frame: bytes) -> None:
    """Let both decoders take a frame or refuse it as they said. No other exception may come out.

    A decoder's work is bounded by the frame's length, which is checked before anything is decoded.
    """
    for decoder in DECODERS.values():
        with suppress(WireError):
            decoder(frame)


def mutated(random_: random.Random) -> Iterator[bytes]:
    """Yield messages with bits flipped, bytes replaced, cut or doubled, or huge headers put in."""
    whole = [frame for _, frame in VALID] + [frame for _, frame in REFUSED]
    headers = [
        bytes([kind]) + b"\xff" * size
        for kind, size in ((0xDD, 4), (0xDF, 4), (0xDB, 4), (0xC6, 4), (0xC9, 4))
    ]
    while True:
        frame = bytearray(random_.choice(whole))
        for _ in range(random_.randint(1, 4)):
            at, to = sorted(random_.choices(range(len(frame) + 1), k=2))
            match random_.randrange(6):
                case 0 if at < len(frame):
                    frame[at] ^= 1 << random_.randrange(8)
                case 1 if at < len(frame):
                    frame[at] = random_.randrange(256)
                case 2:
                    del frame[at:to]
                case 3:
                    frame[at:at] = frame[at:to] * random_.randint(1, 8)
                case 4:
                    frame[at:at] = random_.choice(headers)
                case _:
                    frame[at:at] = random_.randbytes(random_.randint(1, 16))
        yield bytes(frame)


def test_a_hundred_thousand_mutated_messages_are_taken_or_refused() -> None:
    for _, frame in zip(range(MUTATED), mutated(random.Random(SEED)), strict=False):
        decode(frame)


_plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=14) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=512))
@example(b"\x91" * wire.LARGEST_REQUEST_BYTES)
@example(b"\x81\x01" * 2_000)
@example(b"\x9d\x12" + b"\x91" * (wire.LARGEST_ANSWER_BYTES - 2))
@example(bytes(wire.LARGEST_ANSWER_BYTES))
@example(b"\x92\x15\xdb\x00\x0f\xff\xf9" + b"\xe2\x82\xac" * 349_000)
def test_any_bytes_are_taken_or_refused(frame: bytes) -> None:
    decode(frame)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([1, 2, 3, 4, 5, 17, 18, 19, 20, 21]), st.lists(_plain, max_size=13))
def test_any_values_in_a_messages_place_are_taken_or_refused(tag: int, values: list[Any]) -> None:
    decode(msgspec.msgpack.encode([tag, *values]))
