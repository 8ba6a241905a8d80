"""What controller and robot say to each other: every message is one frame of MessagePack; docs/wire.md has the bytes.

    Hello ──▶ Welcome        Observe ──▶ Observation        Arm ──▶ Armed        Stop ──▶ Stopped        Command ──▶

A message is an array: its tag, then its fields in the order in which they stand here. Everything is bounded and
nothing but these types is ever decoded. Times are nanoseconds on the clock of the side that read them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec
import numpy as np
import zmq
from msgspec import Meta
from numpy.typing import NDArray

from gatort.runtime.errors import WireError
from gatort.runtime.safety import State
from gatort.runtime.spec import Interface

VERSION = 1
"""Of the protocol; `Hello` and `Refused` stay as they are in every version, so that a difference can be named."""

LARGEST_REQUEST_BYTES = 4_096
"""Longest frame that a robot takes; a command of 64 values has 643 bytes at most."""
LARGEST_ANSWER_BYTES = 1 << 20
"""Longest frame that a controller takes; the pictures of Gato's largest window, 1,024 patches, have 768 KiB."""
QUEUE_MESSAGES = 64
"""Waiting in each direction of a connection."""
LONGEST_SENTENCE = 1_024
"""Characters of a reason."""
HANDSHAKE_MS = 2_000
HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS = 500, 2_000
"""How often a silent connection is asked for a sign of life, and how long one may take."""

Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Sentence = Annotated[str, Meta(max_length=LONGEST_SENTENCE)]
Floats = Annotated[list[float], Meta(max_length=64)]
Arrays = Annotated[
    list[Annotated[bytes, Meta(max_length=LARGEST_ANSWER_BYTES)]], Meta(max_length=64)
]


class _Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An array of a tag and fields; neither fewer nor more."""


class Hello(_Message, tag=1, frozen=True):
    """A controller asks for a session; asked again on the same connection, it gets the same one."""

    version: Count


class Observe(_Message, tag=2, frozen=True):
    """Read the sensors now."""

    session: Count
    sequence: Count
    """Counts the requests of a session."""
    sent_ns: Count
    """On the controller's clock."""


class Arm(_Message, tag=3, frozen=True):
    """An operator's consent to move; asked again with the same sequence, it changes nothing."""

    session: Count
    sequence: Count


class Command(_Message, tag=4, frozen=True):
    """`safety.Command` with `apply_at_ns` on the robot's clock; sent twice."""

    session: Count
    sequence: Count
    observation_sequence: Count
    apply_at_ns: Count
    valid_for_ns: Count
    values: Floats
    """(A,) in each actuator's unit."""


class Stop(_Message, tag=5, frozen=True):
    """Operator stop: fade to the safe command, then latch."""

    session: Count
    sequence: Count
    """Counts with `Arm`: one number is never used for both."""


class Welcome(_Message, tag=17, frozen=True):
    """A session, disarmed."""

    version: Count
    session: Count
    """Drawn at random; what carries another one is dropped."""
    name: Annotated[str, Meta(max_length=64)]
    """Of the robot."""
    simulated: bool
    """Whether nothing but a simulation moves."""
    interface: Annotated[str, Meta(max_length=LARGEST_ANSWER_BYTES)]
    """`spec.Interface` as JSON."""


class Observation(_Message, tag=18, frozen=True):
    """What the robot read for the newest of the requests that were waiting."""

    session: Count
    request: Count
    """Sequence of that request."""
    sent_ns: Count
    """As in that request, on the controller's clock."""
    received_ns: Count
    """When the robot received it."""
    sequence: Count
    """Counts the observations of a session."""
    stamp_ns: Count
    """When the oldest of the sensors was read."""
    answered_ns: Count
    """When the robot sent this."""
    state: State
    successes: Count
    """How often the task was done since the robot's process began."""
    dropped: Count
    """Commands not applied since the robot's process began; second copies do not count."""
    applied: Floats
    """(A,) what was in effect on the actuators, in each one's unit."""
    values: Arrays
    """For each observation key in the interface's order its array, row-major and little-endian."""


class Armed(_Message, tag=19, frozen=True):
    """The robot takes commands."""

    session: Count
    sequence: Count


class Stopped(_Message, tag=20, frozen=True):
    """The robot takes no more commands."""

    session: Count
    sequence: Count


class Refused(_Message, tag=21, frozen=True):
    """The robot does not do what was asked, or has failed."""

    reason: Sentence


Request: TypeAlias = Hello | Observe | Arm | Command | Stop
Answer: TypeAlias = Welcome | Observation | Armed | Stopped | Refused

_M = TypeVar("_M")

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def encode(message: Request | Answer) -> bytes:
    """One frame."""
    return _encoder.encode(message)


def decode_request(frame: bytes) -> Request:
    """What a controller said.

    Raises:
        WireError: these bytes are none of its messages.
    """
    return _decode(_requests, frame, LARGEST_REQUEST_BYTES)


def decode_answer(frame: bytes) -> Answer:
    """What a robot said.

    Raises:
        WireError: these bytes are none of its messages.
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
    """An observation's arrays as they cross the wire."""
    return [value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes() for value in values]


def unpack(interface: Interface, packed: Sequence[bytes]) -> tuple[NDArray[Any], ...]:
    """An observation's arrays, each a copy of its own.

    Raises:
        WireError: there are not as many as the interface has keys, or one is not as long as its key.
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


def context() -> zmq.Context[zmq.Socket[bytes]]:
    """A context whose threads stand where the calling thread does under SCHED_FIFO, which no thread inherits.

    The loop waits for them in every tick: behind four CPU hogs one answer in seventy came too late without it.
    """
    context = zmq.Context()
    if (
        os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO
    ):  # Unless granted, libzmq aborts.
        context.set(zmq.THREAD_SCHED_POLICY, os.SCHED_FIFO)
        context.set(zmq.THREAD_PRIORITY, os.sched_getparam(0).sched_priority)
    return context


def bounded_socket(
    context: zmq.Context[zmq.Socket[bytes]], kind: int, largest_bytes: int
) -> zmq.Socket[bytes]:
    """A socket with every queue, size and wait bounded; libzmq's own defaults are unbounded or slow."""
    socket = context.socket(kind)
    socket.set(zmq.MAXMSGSIZE, largest_bytes)
    socket.set(zmq.SNDHWM, QUEUE_MESSAGES)
    socket.set(zmq.RCVHWM, QUEUE_MESSAGES)
    socket.set(zmq.BACKLOG, QUEUE_MESSAGES)
    socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    socket.set(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
    socket.set(
        zmq.RECONNECT_IVL, -1
    )  # A new connection is a new session, which an operator begins.
    socket.set(zmq.LINGER, 0)
    return socket
