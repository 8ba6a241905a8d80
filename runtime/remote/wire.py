"""Messages between controller and robot, each one frame of MessagePack (docs/wire.md).

    Hello ──▶ Welcome    Observe ──▶ Observation    Arm ──▶ Armed    Stop ──▶ Stopped    Command ──▶

A message is an array: its tag, then its fields in the order of the classes here. Every size is
bounded, and nothing but these types is ever decoded. Times are nanoseconds on the clock of the
side that read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from gatort.runtime.errors import WireError
from gatort.runtime.facts import MOST_FACTS, Fact
from gatort.runtime.safety import State
from gatort.runtime.spec import Interface

VERSION = 3
"""Version of the protocol. `Hello` and `Refused` are the same in each, to report a mismatch."""

LARGEST_REQUEST_BYTES = 4_096
"""Longest frame that a robot accepts. A command of 64 values has at most 643 bytes."""
LARGEST_ANSWER_BYTES = 1 << 20
"""Longest frame that a controller accepts. The 1,024 patches of Gato's window have 768 KiB."""
QUEUE_MESSAGES = 64
"""Most messages that wait in each direction of a connection."""
LONGEST_SENTENCE = 1_024
"""Most characters of a reason."""
HANDSHAKE_MS = 2_000
"""Longest handshake of a new connection."""
HEARTBEAT_MS = 500
"""Interval at which a silent connection is asked for a heartbeat."""
HEARTBEAT_TIMEOUT_MS = 2_000
"""Longest wait for a heartbeat."""

Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Sentence = Annotated[str, Meta(max_length=LONGEST_SENTENCE)]
FloatList = Annotated[list[float], Meta(max_length=64)]
Arrays = Annotated[
    list[Annotated[bytes, Meta(max_length=LARGEST_ANSWER_BYTES)]], Meta(max_length=64)
]


class _Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A message: an array of a tag and all fields, with nothing missing and nothing extra."""


class Hello(_Message, tag=1, frozen=True):
    """Request for a session. Repeated on one connection, it gives the same session."""

    version: Count
    """Version of the protocol that the controller speaks."""


class Observe(_Message, tag=2, frozen=True):
    """Request for an observation: the sensors are read when it is answered."""

    session: Count
    """Number of the session."""
    sequence: Count
    """Count of the session's requests for an observation."""
    sent_ns: Count
    """Instant of sending, on the controller's clock."""


class Arm(_Message, tag=3, frozen=True):
    """An operator's consent to motion. Repeated with the same sequence, it changes nothing."""

    session: Count
    """Number of the session."""
    sequence: Count
    """Count of the session's `Arm` and `Stop` requests: they share one sequence."""


class WireCommand(_Message, tag=4, frozen=True):
    """One action, sent twice. See `gatort.runtime.safety.Command`."""

    session: Count
    """Number of the session."""
    sequence: Count
    """Count of the session's commands."""
    observation_sequence: Count
    """Sequence of the observation that the action answers."""
    apply_at_ns: Count
    """Instant at which it takes effect, on the robot's clock."""
    valid_for_ns: Count
    """Longest time that it may be in effect before the robot holds."""
    values: FloatList
    """Values (A,), each in its actuator's unit."""


class Stop(_Message, tag=5, frozen=True):
    """An operator's stop: fade to the safe command, then latch."""

    session: Count
    """Number of the session."""
    sequence: Count
    """Count of the session's `Arm` and `Stop` requests: they share one sequence."""


class Welcome(_Message, tag=17, frozen=True):
    """Answer to `Hello`: a session, disarmed."""

    version: Count
    """Version of the protocol that the robot speaks."""
    session: Count
    """Random number of the session. Messages with another number are dropped."""
    name: Annotated[str, Meta(max_length=64)]
    """Name of the robot."""
    simulated: bool
    """True if only a simulation moves."""
    interface: Annotated[str, Meta(max_length=LARGEST_ANSWER_BYTES)]
    """Interface of the robot (`gatort.runtime.spec.Interface`) as JSON."""
    facts: Annotated[list[Fact], Meta(max_length=MOST_FACTS)]
    """Facts about the arm for the controller's operator, as of the session's beginning."""


class WireObservation(_Message, tag=18, frozen=True):
    """Answer to the newest `Observe` that waited."""

    session: Count
    """Number of the session."""
    request: Count
    """Sequence of the request that this answers."""
    sent_ns: Count
    """Instant at which that request was sent, on the controller's clock."""
    received_ns: Count
    """Instant at which the robot received it, on the robot's clock."""
    sequence: Count
    """Count of the robot's observations."""
    stamp_ns: Count
    """Instant at which the oldest sensor was read, on the robot's clock."""
    answered_ns: Count
    """Instant at which the robot sent this answer, on the robot's clock."""
    state: State
    """State of the robot's watchdog."""
    reason: Sentence
    """Clause that says why the arm was stopped since it was last armed; empty if it was not."""
    successes: Count
    """Number of times that the task succeeded since the robot's process began."""
    dropped: Count
    """Number of commands not applied since the robot's process began, without second copies."""
    applied: FloatList
    """Values (A,) in effect on the actuators, each in its actuator's unit."""
    values: Arrays
    """One array per key in the interface's order, row-major and little-endian."""


class Armed(_Message, tag=19, frozen=True):
    """Answer to `Arm`: the robot accepts commands."""

    session: Count
    """Number of the session."""
    sequence: Count
    """Sequence of the request that this answers."""


class Stopped(_Message, tag=20, frozen=True):
    """Answer to `Stop`: the robot accepts no more commands."""

    session: Count
    """Number of the session."""
    sequence: Count
    """Sequence of the request that this answers."""


class Refused(_Message, tag=21, frozen=True):
    """Answer to `Hello` or `Arm` that is refused, or news that the robot has failed."""

    reason: Sentence
    """Reason, as a sentence."""


Request: TypeAlias = Hello | Observe | Arm | WireCommand | Stop
Answer: TypeAlias = Welcome | WireObservation | Armed | Stopped | Refused

_M = TypeVar("_M")

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def encode(message: Request | Answer) -> bytes:
    """Return the frame of a message."""
    return _encoder.encode(message)


def decode_request(frame: bytes) -> Request:
    """Return a controller's message.

    Raises:
        WireError: the frame holds no request.
    """
    return _decode(_requests, frame, LARGEST_REQUEST_BYTES)


def decode_answer(frame: bytes) -> Answer:
    """Return a robot's message.

    Raises:
        WireError: the frame holds no answer.
    """
    return _decode(_answers, frame, LARGEST_ANSWER_BYTES)


def _decode(decoder: msgspec.msgpack.Decoder[_M], frame: bytes, largest: int) -> _M:
    if len(frame) > largest:
        raise WireError(f"expected a message of at most {largest} bytes, found {len(frame)}")
    try:
        return decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WireError(
            f"expected a message of protocol {VERSION}, found {len(frame)} bytes: {error}"
        ) from error


def pack(values: Sequence[NDArray[Any]]) -> list[bytes]:
    """Return an observation's arrays as little-endian bytes."""
    return [value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes() for value in values]


def unpack(interface: Interface, packed: Sequence[bytes]) -> tuple[NDArray[Any], ...]:
    """Return an observation's arrays as copies.

    Raises:
        WireError: the number of arrays, or the length of one, differs from the interface.
    """
    keys = interface.observations
    if len(packed) != len(keys):
        raise WireError(f"expected {len(keys)} arrays in an observation, found {len(packed)}")
    values = []
    for key, raw in zip(keys, packed, strict=True):
        dtype = np.dtype(key.dtype)
        if len(raw) != key.size * dtype.itemsize:
            raise WireError(
                f"{key.name}: expected {key.size * dtype.itemsize} bytes, found {len(raw)}"
            )
        values.append(np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype).reshape(key.shape))
    return tuple(values)
