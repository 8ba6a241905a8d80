"""Reading a recording, from its beginning to its end or to the first broken record."""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec
import numpy as np
from mcap.exceptions import EndOfFile, McapError
from mcap.records import Channel, Message, Metadata
from mcap.stream_reader import StreamReader
from numpy.typing import NDArray
from pydantic import ValidationError
from zstandard import ZstdError

from gatort.runtime.bundle import first_error
from gatort.runtime.errors import RecordingError

from .messages import (
    CHANNELS,
    AnyMessage,
    Outcome,
    PolicyRecord,
    RunRecord,
    StepMessage,
    from_metadata,
)

_LARGEST_RECORD_BYTES = 1 << 28
"""Largest memory that a length in a damaged file may make this process allocate."""
_CUT = (EndOfFile, struct.error, MemoryError, OverflowError)
"""Errors of a record that ends too early, or whose length exceeds the file or the memory."""
_BROKEN = (McapError, ValueError, ZstdError, msgspec.MsgspecError)
"""Errors of a record whose content is damaged."""
# Not strict: a spelled number is read as a number.
_DECODERS = {topic: msgspec.json.Decoder(kind, strict=False) for topic, kind in CHANNELS.items()}


class Stamped(NamedTuple):
    """Message with its time and its sequence number."""

    at_ns: int
    """Time on the recording's clock; all messages of a tick have the time of its wake-up."""
    sequence: int
    """Number of the message in its topic; dropped messages count too."""
    message: AnyMessage
    """Content of the message."""


@dataclass(frozen=True, slots=True)
class StepTrace:
    """The N steps of an inner loop."""

    at_ns: NDArray[np.int64]
    """Time of each step on the robot's clock (N,)."""
    states: list[str]
    """State of the watchdog at each step (N,)."""
    values: NDArray[np.float64]
    """Values in effect on the actuators at each step (N, A)."""


class Recording:
    """Recording on disk; `messages` reads it to its end or to the first broken record.

    All fields but `run` are known once everything was read.
    """

    run: RunRecord
    """Program, robot and machine that made the recording."""
    policy: PolicyRecord | None
    """Policy that decided; `None` in a robot's own recording."""
    outcome: Outcome | None
    """End of the run; `None` if the recording was never closed."""
    finished: bool
    """True if the file ends as an MCAP file does."""
    broken: str | None
    """Reason why reading stopped early; `None` if it did not."""
    read_bytes: int
    """Number of bytes of the file that could be read."""
    counts: dict[str, int]
    """Number of messages of each topic."""

    def __init__(self, path: Path) -> None:
        """Read the beginning of the file.

        Raises:
            RecordingError: the file cannot be read, is no recording of gatort, or its run or
                policy record comes from a version with other fields.
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
            found = self.broken or "no run in it"
            raise RecordingError(f"{path}: expected a recording, found another file ({found})")

    @property
    def incomplete(self) -> str | None:
        """Reason why messages may be missing; `None` if the recording is complete."""
        if not self.finished and self.read_bytes < self.total_bytes:
            extent = f"{self.read_bytes} of {self.total_bytes} bytes could be read"
            return f"the file was cut off, {self.broken}: {extent}"
        if not self.finished:
            return "the file was cut off after a whole chunk"
        if self.outcome is None:
            return "the recording program ended without closing the file"
        return None if self.outcome.complete else self.outcome.degraded

    def messages(self) -> Generator[Stamped]:
        """Yield every message of a known topic, in the order in which they were recorded."""
        self.outcome = None
        self.policy = None
        self.finished = False
        self.broken = None
        self.read_bytes = 0
        self.counts = {}

        with self.path.open("rb") as file:
            try:
                yield from self._read(file)
            except _CUT:
                self.broken = "in the middle of a record"
            except _BROKEN as error:
                self.broken = str(error)

    def _read(self, file: IO[bytes]) -> Iterator[Stamped]:
        """Yield the messages of an open file and keep its metadata."""
        topics: dict[int, str] = {}
        reader = StreamReader(file, validate_crcs=True, record_size_limit=_LARGEST_RECORD_BYTES)
        for record in reader.records:
            match record:
                case Channel(id=number, topic=topic) if topic in CHANNELS:
                    topics[number] = topic
                case Metadata(name=name, metadata=data):
                    self._take(name, data)
                case Message() if not hasattr(self, "run"):
                    return  # In a recording, the run precedes the messages.
                case Message(channel_id=number) if number in topics:
                    yield self._stamped(topics[number], record)
            self.read_bytes = file.tell()

        self.read_bytes = file.tell()
        self.finished = True

    def _stamped(self, topic: str, record: Message) -> Stamped:
        self.counts[topic] = self.counts.get(topic, 0) + 1
        message = _DECODERS[topic].decode(record.data)
        return Stamped(record.log_time - self.run.wall_clock_offset_ns, record.sequence, message)

    def _take(self, name: str, data: dict[str, str]) -> None:
        """Keep a metadata record that belongs to gatort."""
        try:
            match name:
                case "run":
                    self.run = from_metadata(RunRecord, data)
                case "policy":
                    self.policy = from_metadata(PolicyRecord, data)
                case "outcome":
                    self.outcome = from_metadata(Outcome, data)
        except ValidationError as error:
            found = first_error(error, name)
            if name == "outcome":
                # Everything before the outcome was read without it.
                raise ValueError(found) from error
            raise RecordingError(
                f"{self.path}: recorded by gatort {self._recorded_by(data)}, "
                f"this is {version('gatort')}: {found}"
            ) from error

    def _recorded_by(self, data: dict[str, Any]) -> str:
        """Return the version that made the recording, from the run or from an unreadable one."""
        if hasattr(self, "run"):
            return self.run.gatort
        return str(data.get("gatort", "unknown")).strip('"')

    def steps(self) -> StepTrace:
        """Return the inner loop's steps that a robot's process recorded."""
        found = [
            (at_ns, step) for at_ns, _, step in self.messages() if isinstance(step, StepMessage)
        ]
        return StepTrace(
            at_ns=np.array([at_ns for at_ns, _ in found], np.int64),
            states=[step.state for _, step in found],
            values=np.array([step.values for _, step in found], np.float64),
        )
