"""Contents of a recording: its metadata records, its messages, and their JSON schemas.

A recording is an MCAP file of JSON messages that any MCAP reader opens; docs/recording.md describes
it. JSON has no NaN and no infinity: a list holds them as the strings "NaN", "Infinity" and
"-Infinity". Letters: A actuators.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat, NonNegativeInt

from gatort.runtime.bundle import Sha256
from gatort.runtime.clock import Clock, wall_clock_ns
from gatort.runtime.engines.engine import Decoding
from gatort.runtime.errors import RecordingError
from gatort.runtime.spec import Interface, ObservationKey, PolicySpec, Precision, Strict

_SPELLING = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}

Stored = TypeVar("Stored", bound=Strict)


# -- Metadata ------------------------------------------------------------------------------------


class RunRecord(Strict):
    """Metadata `run`: the program, the robot and the machine that made the recording."""

    gatort: str
    """Version of gatort that made the recording."""
    robot: str
    """Name of the robot."""
    machine: str
    """Computer that made the recording, in one line."""
    interface: Interface
    """Observation keys and actuators of the robot."""
    wall_clock_offset_ns: Annotated[int, Field(gt=-(2**63), lt=2**63)]
    """UTC minus the recording's monotonic clock in nanoseconds, read once at the beginning."""

    @classmethod
    def of(cls, robot: str, interface: Interface, machine: str, clock: Clock) -> Self:
        """Return the record of a recording that begins now."""
        offset_ns = wall_clock_ns() - clock.now_ns()
        return cls(
            gatort=version("gatort"),
            robot=robot,
            machine=machine,
            interface=Interface.model_validate(interface, from_attributes=True),
            wall_clock_offset_ns=offset_ns,
        )


class PolicyRecord(Strict):
    """Metadata `policy`: everything but the observations that the policy's tokens depend on."""

    bundle: str
    """Name of the policy."""
    directory: Path
    """Folder that held the bundle."""
    manifest_sha256: Sha256
    """SHA-256 of the bundle's manifest."""
    files: dict[str, Sha256]
    """SHA-256 of each file of the bundle, by name."""
    engine: str
    """Engine, spelled as for `--engine`."""
    precision: Precision
    """Precision of the weights."""
    decoding: Decoding = "greedy"
    """Way to a tick's tokens."""
    threads: Annotated[int, Field(ge=1, le=256)]
    """Number of threads of the engine."""
    spinning: bool
    """True if the engine's threads kept spinning between passes."""
    temperature: Annotated[FiniteFloat, Field(ge=0)]
    """Temperature at which tokens were drawn; 0 takes the likeliest."""
    seed: NonNegativeInt
    """Seed of the sampler."""
    spec: PolicySpec
    """Specification of the policy."""
    stages: tuple[str, ...]
    """Name of the stage that ends at each stamp of `TickMessage.stamps_ns` after the first."""


class Outcome(Strict):
    """Metadata `outcome`: the last record of a recording that was closed."""

    complete: bool
    """True if the file holds every message given to the recorder, save an interrupted tick's."""
    dropped: NonNegativeInt
    """Number of messages lost before they reached the file."""
    degraded: str
    """Reason why messages are missing; empty if none is."""
    result: str
    """Sentence that says how the run ended."""
    succeeded: bool | None = None
    """True if the task succeeded; `None` for a run without a task, or where it is unknown."""


def to_metadata(record: Strict) -> dict[str, str]:
    """Return a record as MCAP metadata: each field's name and its value as JSON."""
    return {
        name: json.dumps(value, ensure_ascii=False)
        for name, value in record.model_dump(mode="json").items()
    }


def from_metadata(kind: type[Stored], data: dict[str, str]) -> Stored:
    """Return the record that `to_metadata` wrote.

    Raises:
        ValidationError: the fields are not those of `kind`.
    """
    fields = (f"{json.dumps(name)}:{value}" for name, value in data.items())
    return kind.model_validate_json("{" + ",".join(fields) + "}")


# -- Messages ------------------------------------------------------------------------------------


class Image(msgspec.Struct, frozen=True):
    """Image of an observation."""

    shape: list[int]
    """Height, width and number of channels."""
    data: bytes
    """Pixels as bytes in row-major order; base64 in the file."""


Values = dict[str, list[float] | Image]
"""Observation with one field per key, named by `field_names`; arrays are row-major."""


class _Message(msgspec.Struct, frozen=True, omit_defaults=True):
    pass


class PromptMessage(_Message, frozen=True, kw_only=True):
    """Frame that stood in the context before the first tick."""

    values: Values
    """Observation of the frame."""
    action: list[float]
    """Action of the frame (A,), in each actuator's unit."""


class ObservationMessage(_Message, frozen=True, kw_only=True):
    """Observation that the robot returned."""

    tick: int
    """Number of the tick."""
    sequence: int
    """Sequence number that the robot gave the observation."""
    stamp_ns: int
    """Time at which the robot read its sensors."""
    values: Values
    """Value of each key."""


class TokensMessage(_Message, frozen=True, kw_only=True):
    """Tokens that the policy decided on."""

    tick: int
    """Number of the tick."""
    frame: int
    """Number k of the context's frame in which the policy decided."""
    slot: int
    """Slot of that frame in the cache, k mod n."""
    completed: bool
    """True if the tick completed the frame; the next tick takes an incomplete one again."""
    raw: list[int]
    """Likeliest token of each position (A,)."""
    sampled: list[int]
    """Token used at each position (A,): the likeliest, unless drawn at a temperature."""
    passes: int = 0
    """Number of forward passes over action tokens that the engine ran; 0 if it was not recorded."""


class CommandMessage(_Message, frozen=True, kw_only=True):
    """Command of a tick at each stage, from the policy to the actuators.

    A refused tick lacks the fields of the stages that it did not reach.
    """

    tick: int
    """Number of the tick."""
    applied: list[float]
    """Values in effect on the actuators when the observation was read (A,)."""
    asked: list[float] | msgspec.UnsetType = msgspec.UNSET
    """Action of the policy (A,)."""
    limited: list[float] | msgspec.UnsetType = msgspec.UNSET
    """Action after the guard limited it, as sent to the robot (A,)."""
    sequence: int | msgspec.UnsetType = msgspec.UNSET
    """Sequence number of the command."""
    observation_sequence: int | msgspec.UnsetType = msgspec.UNSET
    """Sequence number of the observation that the command answers."""
    apply_at_ns: int | msgspec.UnsetType = msgspec.UNSET
    """Time at which the robot applies the command."""
    valid_for_ns: int | msgspec.UnsetType = msgspec.UNSET
    """Time for which the command stays in effect."""


class TickMessage(_Message, frozen=True, kw_only=True):
    """Timing and result of a tick; the last message of its tick."""

    tick: int
    """Number of the tick."""
    deadline_ns: int
    """Time at which the tick was due."""
    woke_ns: int
    """Time at which the loop woke up."""
    lateness_ns: int
    """Time from the deadline to the wake-up."""
    skipped: int
    """Number of deadlines skipped since the tick before."""
    stamps_ns: list[int]
    """Start of the tick, then the end of each stage reached, on the machine's monotonic clock."""
    cpu_ns: int = 0
    """CPU time that the loop's thread got in the tick."""
    waited_ns: int = 0
    """Time in the tick for which the loop's thread was ready to run and had no core."""
    page_faults: int = 0
    """Number of pages that the tick touched for the first time, or read from a disk."""
    disk_faults: int = 0
    """Number of those pages that were read from a disk."""
    preempted: int = 0
    """Number of times that the loop's thread lost its core in the tick."""
    slept: int = 0
    """Number of times that the loop's thread gave its core up in the tick, to wait."""
    others_preempted: int = 0
    """Number of times that another thread of the process lost its core in the tick."""
    slack_cpu_ns: int = 0
    """CPU time that the loop's thread got between the tick before and this one."""
    slack_waited_ns: int = 0
    """Time between them for which the loop's thread was ready to run and had no core."""
    by_person: bool = False
    """True if a person had the arm in the tick, see `Takeover`."""
    reason: str = ""
    """Reason why the tick was refused, a word of `Refusal`; empty if a command was sent."""
    refusal: str = ""
    """Reason as a sentence that names the value; empty if a command was sent."""

    @property
    def took_ns(self) -> int:
        """Time from the start of the tick to the end of the last stage reached."""
        return self.stamps_ns[-1] - self.stamps_ns[0] if self.stamps_ns else 0

    @property
    def stages_ns(self) -> list[int]:
        """Duration of each stage reached."""
        return [end_ns - start_ns for start_ns, end_ns in pairwise(self.stamps_ns)]


class StateMessage(_Message, frozen=True, kw_only=True):
    """States of the guard and of the robot, recorded when either changes."""

    guard: str
    """State of the guard."""
    robot: str
    """State of the robot."""


class FaultMessage(_Message, frozen=True, kw_only=True):
    """Fault of a component."""

    component: str
    """Name of the component that failed."""
    sentence: str
    """Sentence that describes the fault."""


class StepMessage(_Message, frozen=True, kw_only=True):
    """Step of the robot's inner loop."""

    state: str
    """State of the watchdog."""
    values: list[float]
    """Values in effect on the actuators (A,)."""


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
"""Type of the messages of each topic."""


# -- Schemas and values --------------------------------------------------------------------------


def json_schema(kind: type[AnyMessage], interface: Interface) -> dict[str, Any]:
    """Return a channel's JSON Schema, in the subset that viewers read.

    That subset has one type per field and no list of lists.
    """
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
    if key.encoding != "image":
        return {"type": "array", "description": description, "items": {"type": "number"}}

    properties = {
        "shape": {"type": "array", "items": {"type": "integer"}},
        "data": {"type": "string", "contentEncoding": "base64"},
    }
    return {"type": "object", "description": description, "properties": properties}


def field_names(keys: Sequence[ObservationKey]) -> list[str]:
    """Return a field name for each key, made of letters, digits and _ for a viewer's paths."""
    names: list[str] = []
    for key in keys:
        name = re.sub(r"\W", "_", key.name, flags=re.ASCII)
        while name in names:
            name += "_"
        names.append(name)
    return names


def numbers(array: NDArray[Any]) -> list[float]:
    """Return values of any shape as a row-major list for JSON, with NaN and infinity spelled."""
    flat: list[float] = array.ravel().tolist()
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        # A reader takes the spelled values back as numbers.
        return [_SPELLING.get(repr(value), value) for value in flat]  # type: ignore[misc]
    return flat


def arrays(values: Values, keys: Sequence[ObservationKey]) -> tuple[NDArray[Any], ...]:
    """Return an observation's arrays, equal to the recorded ones to the bit.

    Raises:
        RecordingError: a key is missing or has another shape.
    """
    return tuple(
        _array(values.get(name, []), key) for name, key in zip(field_names(keys), keys, strict=True)
    )


def _array(stored: list[float] | Image, key: ObservationKey) -> NDArray[Any]:
    flat: NDArray[Any]
    if isinstance(stored, Image):
        flat = np.frombuffer(stored.data, np.uint8)
    else:
        flat = np.array(stored, np.float64)
        if key.dtype != "float32" and not _fits(flat, key.dtype):
            raise RecordingError(f"{key.name}: expected values of {key.dtype}, found others")

    if flat.size != key.size:
        raise RecordingError(f"{key.name}: expected {key.size} recorded values, found {flat.size}")
    with np.errstate(over="ignore"):  # Infinity is refused where the values are used.
        return flat.astype(key.dtype).reshape(key.shape)


def _fits(values: NDArray[np.float64], dtype: str) -> bool:
    """Check that all values are whole numbers of an integer type; false for NaN."""
    limits = np.iinfo(dtype)
    within = (values >= limits.min) & (values <= limits.max) & (values == np.floor(values))
    return bool(within.all())
