"""What a recording holds and how it is read: an MCAP file of JSON messages that any MCAP reader opens.

docs/recording.md is the page for who reads one elsewhere. A number that JSON has no word for is spelled "NaN",
"Infinity" or "-Infinity" in its list. Letters: A actuators.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import msgspec
import numpy as np
from mcap.exceptions import EndOfFile, McapError
from mcap.records import Channel, Message, Metadata
from mcap.stream_reader import StreamReader
from numpy.typing import NDArray
from pydantic import NonNegativeInt, ValidationError
from zstandard import ZstdError

from gatort.runtime.bundle import (
    Sha256,
    first_error,
)
from gatort.runtime.clock import (
    Clock,
    wall_clock_ns,
)
from gatort.runtime.errors import RecordingError
from gatort.runtime.spec import (
    Interface,
    ObservationKey,
    PolicySpec,
    Precision,
    Strict,
)

_LARGEST_RECORD_BYTES = 1 << 28
"""What a length in a damaged file may ask this process to hold."""
_CUT = (EndOfFile, struct.error, MemoryError, OverflowError)
"""A record that ends too early, or whose damaged lengths reach beyond the file or beyond any memory."""
_BROKEN = (McapError, ValueError, ZstdError, msgspec.MsgspecError)
_SPELLING = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}

Stored = TypeVar("Stored", bound=Strict)


# -- What stands at the beginning and at the end -------------------------------------------------------------------


class RunRecord(Strict):
    """Metadata `run`: whose recording this is."""

    gatort: str
    """The version that recorded."""
    robot: str
    machine: str
    interface: Interface
    """What the robot observed and was commanded with."""
    wall_clock_offset_ns: int
    """log_time less the recording clock's monotonic time: nanoseconds of UTC, read once at the beginning."""

    @classmethod
    def of(cls, robot: str, interface: Interface, machine: str, clock: Clock) -> Self:
        """Of a recording that begins now."""
        offset_ns = wall_clock_ns() - clock.now_ns()
        return cls(
            gatort=version("gatort"),
            robot=robot,
            machine=machine,
            interface=Interface.model_validate(interface, from_attributes=True),
            wall_clock_offset_ns=offset_ns,
        )


class PolicyRecord(Strict):
    """Metadata `policy`: what decided, and all that its tokens depend on but the observations."""

    bundle: str
    """The policy's name."""
    directory: Path
    """Where the bundle was."""
    manifest_sha256: Sha256
    files: dict[str, Sha256]
    engine: str
    """As for `--engine`."""
    precision: Precision
    threads: int
    spinning: bool
    temperature: float
    seed: int
    """Of the sampler."""
    spec: PolicySpec
    stages: tuple[str, ...]
    """What `TickMessage.stamps_ns` ends, after the first."""


class Outcome(Strict):
    """Metadata `outcome`: the last record of a recording that was closed."""

    complete: bool
    """Every message that was given to the recorder is in the file, save a tick that an operator's stop interrupted."""
    dropped: NonNegativeInt
    """Messages that are not."""
    degraded: str
    """Why not, empty where nothing is missing."""
    result: str
    """How the run ended, in a sentence."""


def to_metadata(record: Strict) -> dict[str, str]:
    """A record as MCAP keeps metadata: the name of each field to its value as JSON."""
    return {
        name: json.dumps(value, ensure_ascii=False)
        for name, value in record.model_dump(mode="json").items()
    }


def _from_metadata(kind: type[Stored], data: dict[str, str]) -> Stored:
    return kind.model_validate_json(
        "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in data.items()) + "}"
    )


# -- Messages ------------------------------------------------------------------------------------------------------


class Image(msgspec.Struct, frozen=True):
    """An image of an observation."""

    shape: list[int]
    """height, width, channels"""
    data: bytes
    """Bytes in row-major order, base64 in the file."""


Values = dict[str, list[float] | Image]
"""An observation: a field a key, named by `field_names`; arrays row-major."""


class _Message(msgspec.Struct, frozen=True, omit_defaults=True):
    pass


class PromptMessage(_Message, frozen=True, kw_only=True):
    """A frame that stood in the context before the first tick."""

    values: Values
    action: list[float]
    """(A,) in each actuator's unit."""


class ObservationMessage(_Message, frozen=True, kw_only=True):
    """What the robot read."""

    tick: int
    sequence: int
    stamp_ns: int
    values: Values


class TokensMessage(_Message, frozen=True, kw_only=True):
    """What the policy decided."""

    tick: int
    frame: int
    """k: the frame of the context in which it was decided."""
    slot: int
    """Where in the cache that frame lies, k mod n."""
    completed: bool
    """Whether the frame was completed; one that was not is taken again by the next tick."""
    raw: list[int]
    """(A,) the likeliest tokens."""
    sampled: list[int]
    """(A,) those that were taken: the same unless drawn at a temperature."""


class CommandMessage(_Message, frozen=True, kw_only=True):
    """From what the policy asked for to what the actuators did; a refused tick lacks what it did not come to."""

    tick: int
    applied: list[float]
    """(A,) what was in effect on the actuators when the observation was read."""
    asked: list[float] | msgspec.UnsetType = msgspec.UNSET
    """(A,) the policy's action."""
    limited: list[float] | msgspec.UnsetType = msgspec.UNSET
    """(A,) what the guard made of it and the robot was handed."""
    sequence: int | msgspec.UnsetType = msgspec.UNSET
    observation_sequence: int | msgspec.UnsetType = msgspec.UNSET
    apply_at_ns: int | msgspec.UnsetType = msgspec.UNSET
    valid_for_ns: int | msgspec.UnsetType = msgspec.UNSET


class TickMessage(_Message, frozen=True, kw_only=True):
    """When a tick ran and how far it came; the last message of its tick."""

    tick: int
    deadline_ns: int
    woke_ns: int
    lateness_ns: int
    skipped: int
    """Deadlines passed over since the tick before."""
    stamps_ns: list[int]
    """When the tick began and when each stage that it came to ended, on the machine's monotonic clock."""
    reason: str = ""
    """Why nothing was sent, a word of `Refusal`; empty when something was."""
    refusal: str = ""
    """The same as a sentence that names the value."""

    @property
    def took_ns(self) -> int:
        """From when it began to the end of the last stage that it came to."""
        return self.stamps_ns[-1] - self.stamps_ns[0] if self.stamps_ns else 0


class StateMessage(_Message, frozen=True, kw_only=True):
    """The guard's and the robot's state, when either changed."""

    guard: str
    robot: str


class FaultMessage(_Message, frozen=True, kw_only=True):
    """Something that went wrong."""

    component: str
    sentence: str


class StepMessage(_Message, frozen=True, kw_only=True):
    """An inner step on the robot's side."""

    state: str
    """The watchdog's."""
    values: list[float]
    """(A,) in effect on the actuators."""


AnyMessage = (
    PromptMessage | ObservationMessage | TokensMessage | CommandMessage
    | TickMessage | StateMessage | FaultMessage | StepMessage
)  # fmt: skip

CHANNELS: dict[str, type[AnyMessage]] = {
    "/prompt": PromptMessage,
    "/observation": ObservationMessage,
    "/tokens": TokensMessage,
    "/command": CommandMessage,
    "/tick": TickMessage,
    "/state": StateMessage,
    "/fault": FaultMessage,
    "/step": StepMessage,
}
"""Topic to what its messages hold."""
# Not strict, so that a spelled number is read as one.
_DECODERS = {topic: msgspec.json.Decoder(kind, strict=False) for topic, kind in CHANNELS.items()}


def json_schema(kind: type[AnyMessage], interface: Interface) -> dict[str, Any]:
    """The JSON Schema of a channel, in the subset that viewers read: one type a field, and no list of lists."""
    schema: dict[str, Any] = msgspec.json.schema_components([kind])[1][kind.__name__]
    if kind in (PromptMessage, ObservationMessage):
        names = field_names(interface.observations)
        fields = {
            name: _key_schema(key) for name, key in zip(names, interface.observations, strict=True)
        }
        schema["properties"]["values"] = {"type": "object", "properties": fields}
    return schema


def _key_schema(key: ObservationKey) -> dict[str, Any]:
    description = f"{key.name}, shape {list(key.shape)}, unit {key.unit}"
    if key.encoding == "image":
        shape = {"type": "array", "items": {"type": "integer"}}
        data = {"type": "string", "contentEncoding": "base64"}
        return {
            "type": "object",
            "description": description,
            "properties": {"shape": shape, "data": data},
        }
    return {"type": "array", "description": description, "items": {"type": "number"}}


def field_names(keys: Sequence[ObservationKey]) -> list[str]:
    """A field for each key: its name with letters, digits and _ alone, so that a viewer's paths can name it."""
    names: list[str] = []
    for key in keys:
        name = re.sub(r"\W", "_", key.name, flags=re.ASCII)
        while name in names:
            name += "_"
        names.append(name)
    return names


def numbers(array: NDArray[Any]) -> list[float]:
    """Values of any shape as a list for JSON, row-major; the few that are not finite spelled."""
    flat: list[float] = array.ravel().tolist()
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return [_SPELLING.get(repr(value), value) for value in flat]  # type: ignore[misc]  # read back as numbers
    return flat


def arrays(values: Values, keys: Sequence[ObservationKey]) -> tuple[NDArray[Any], ...]:
    """An observation's arrays again, bit for bit.

    Raises:
        RecordingError: a key is missing or not of its shape.
    """
    found = []
    for name, key in zip(field_names(keys), keys, strict=True):
        stored = values.get(name, [])
        flat = (
            np.frombuffer(stored.data, np.uint8)
            if isinstance(stored, Image)
            else np.array(stored, np.float64)
        )
        if flat.size != key.size:
            raise RecordingError(
                f"{key.name}: expected {key.size} recorded values, found {flat.size}"
            )
        found.append(flat.astype(key.dtype).reshape(key.shape))
    return tuple(found)


# -- Reading -------------------------------------------------------------------------------------------------------


class Stamped(NamedTuple):
    """A message and where it stands."""

    at_ns: int
    """When, on the recording clock; messages of one tick bear the instant at which it woke."""
    sequence: int
    """Counts the messages of a topic, dropped ones too."""
    message: AnyMessage


@dataclass(frozen=True, slots=True)
class StepTrace:
    """The inner loop's steps, N of them."""

    at_ns: NDArray[np.int64]
    """(N,) on the robot's clock."""
    states: list[str]
    """(N,) the watchdog's."""
    values: NDArray[np.float64]
    """(N, A) in effect on the actuators."""


class Recording:
    """A recording on disk, read from its beginning to its end or to the first record that is broken."""

    run: RunRecord
    policy: PolicyRecord | None
    """None in a robot's own recording."""
    outcome: Outcome | None
    """Known once everything was read, as is all that follows; none where nobody said how it ended."""
    finished: bool
    """The file ends as an MCAP file does."""
    broken: str | None
    """Why reading stopped before that."""
    read_bytes: int
    """How far into the file it came."""
    counts: dict[str, int]
    """Messages of each topic."""

    def __init__(self, path: Path) -> None:
        """Read what stands at the beginning.

        Raises:
            RecordingError: the file cannot be read, is no MCAP file, or is not a recording of gatort's, or of a version
                that wrote another run or policy.
        """
        self.path = path
        try:
            self.total_bytes = path.stat().st_size
            with closing(self.messages()) as head:
                next(head, None)
        except OSError as error:
            raise RecordingError(
                f"{path}: expected a recording, found none ({error.strerror})"
            ) from error
        if not hasattr(self, "run"):
            raise RecordingError(
                f"{path}: expected a recording, found another file ({self.broken or 'no run in it'})"
            )

    @property
    def incomplete(self) -> str | None:
        """Why something may be missing; none when nothing is. Known once everything was read."""
        if not self.finished:
            return (
                f"the file was cut off, {self.broken}: {self.read_bytes} of {self.total_bytes} bytes could be read"
                if self.read_bytes < self.total_bytes
                else "the file was cut off after a whole chunk"
            )
        if self.outcome is None:
            return "whoever recorded ended without closing it"
        return None if self.outcome.complete else self.outcome.degraded

    def messages(self) -> Generator[Stamped]:
        """Every message of a known topic, in the order in which they were recorded."""
        self.outcome, self.policy, self.finished, self.broken = None, None, False, None
        self.read_bytes, self.counts = 0, {}
        topics: dict[int, str] = {}
        with self.path.open("rb") as file:
            try:
                for record in StreamReader(
                    file, validate_crcs=True, record_size_limit=_LARGEST_RECORD_BYTES
                ).records:
                    match record:
                        case Channel(id=number, topic=topic) if topic in CHANNELS:
                            topics[number] = topic
                        case Metadata(name=name, metadata=data):
                            self._take(name, data)
                        case Message() if not hasattr(self, "run"):
                            return  # A recording's messages follow its run.
                        case Message(channel_id=number) if number in topics:
                            yield self._stamped(topics[number], record)
                    self.read_bytes = file.tell()
                self.read_bytes = file.tell()
                self.finished = True
            except _CUT:
                self.broken = "in the middle of a record"
            except _BROKEN as error:
                self.broken = str(error)

    def _stamped(self, topic: str, record: Message) -> Stamped:
        self.counts[topic] = self.counts.get(topic, 0) + 1
        message = _DECODERS[topic].decode(record.data)
        return Stamped(record.log_time - self.run.wall_clock_offset_ns, record.sequence, message)

    def _take(self, name: str, data: dict[str, str]) -> None:
        try:
            match name:
                case "run":
                    self.run = _from_metadata(RunRecord, data)
                case "policy":
                    self.policy = _from_metadata(PolicyRecord, data)
                case "outcome":
                    self.outcome = _from_metadata(Outcome, data)
        except ValidationError as error:
            found = first_error(error, name)
            if name == "outcome":  # All that stands before it was read without it.
                raise ValueError(found) from error
            recorded_by = (
                self.run.gatort
                if hasattr(self, "run")
                else data.get("gatort", "unknown").strip('"')
            )
            raise RecordingError(
                f"{self.path}: recorded by gatort {recorded_by}, this is {version('gatort')}: {found}"
            ) from error

    def steps(self) -> StepTrace:
        """What a robot's process recorded of its inner loop."""
        found = [
            (at_ns, step) for at_ns, _, step in self.messages() if isinstance(step, StepMessage)
        ]
        return StepTrace(
            at_ns=np.array([at_ns for at_ns, _ in found], np.int64),
            states=[step.state for _, step in found],
            values=np.array([step.values for _, step in found], np.float64),
        )
