"""Reading a recording, from its beginning to its end or to the first broken record.

Anybody may have written the file. A length in it is compared with the size of the file before
memory is taken. A chunk is unpacked within bounds and read message by message.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec
import numpy as np
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import EndOfFile, InvalidMagic, McapError, RecordLengthLimitExceeded
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, McapRecord, Message, Metadata
from mcap.stream_reader import StreamReader
from numpy.typing import NDArray
from pydantic import ValidationError

from gatort.runtime.errors import RecordingError
from gatort.runtime.invalid_values import first_error
from gatort.runtime.regular_file import open_regular

from .messages import (
    CHANNELS,
    AnyMessage,
    Outcome,
    PolicyRecord,
    RunRecord,
    StepMessage,
    from_metadata,
)

_RECORDING = "a recording that `gatort run` or `gatort robot --record` wrote"
_LARGEST_CHUNK_BYTES = 1 << 25
"""Largest unpacked chunk: the recorder's have 1 MiB and one packet, which has at most 16 MiB."""
_SMALL_BYTES = 1 << 25
"""Unpacked bytes that any file may have."""
_MOST_COMPRESSION = 100
"""Largest ratio of the unpacked chunks to the file beyond that. Recorded ticks reach 10."""
_MOST_CHANNELS = 256
_CUT = (EndOfFile, struct.error, MemoryError, OverflowError)
"""Errors of a record that ends too early, or whose length exceeds the file or the memory."""
_BROKEN = (McapError, ValueError, zstandard.ZstdError, msgspec.MsgspecError, RecursionError)
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
        with closing(self.messages()) as head:
            next(head, None)

        if not hasattr(self, "run"):
            found = self.broken or "no run in it"
            raise RecordingError(
                f"{path}: expected a recording, found another file ({found}); "
                "name one (.mcap) of `gatort run` or `gatort robot`"
            )

    @property
    def incomplete(self) -> str | None:
        """Reason why messages may be missing; `None` if the recording is complete."""
        if not self.finished and self.read_bytes < self.total_bytes:
            extent = f"{self.read_bytes} of {self.total_bytes} bytes could be read"
            return f"the file was cut off or changed, {self.broken}: {extent}"
        if not self.finished:
            return "the file was cut off after a whole chunk"
        if self.outcome is None:
            return "the recording program ended without closing the file"
        return None if self.outcome.complete else self.outcome.degraded

    @property
    def succeeded(self) -> bool:
        """True if the outcome tells that the task succeeded."""
        return self.outcome is not None and self.outcome.succeeded is True

    def messages(self) -> Generator[Stamped]:
        """Yield every message of a known topic, in the order in which they were recorded."""
        self.outcome = None
        self.policy = None
        self.finished = False
        self.broken = None
        self.read_bytes = 0
        self.counts = {}

        with open_regular(self.path, _RECORDING, RecordingError) as file:
            self.total_bytes = os.fstat(file.fileno()).st_size
            try:
                yield from self._read(file)
            except OSError as error:
                self.broken = f"at a place that cannot be read ({error.strerror})"
            except (*_CUT, RecordLengthLimitExceeded):
                self.broken = "in the middle of a record" if self.total_bytes else "it is empty"
            except InvalidMagic:
                self.broken = "it begins or ends unlike an MCAP file"
            except _BROKEN as error:
                self.broken = str(error)

    def _read(self, file: IO[bytes]) -> Iterator[Stamped]:
        """Yield the messages of an open file and keep its metadata."""
        topics: dict[int, str] = {}
        left = _SMALL_BYTES + _MOST_COMPRESSION * self.total_bytes
        whole: Any = _WholeReads(file, self.total_bytes)
        reader = StreamReader(
            whole, emit_chunks=True, validate_crcs=True, record_size_limit=self.total_bytes
        )
        for outer in reader.records:
            records: Iterator[McapRecord] = iter((outer,))
            if isinstance(outer, Chunk):
                data = _unpacked(outer, min(left, _LARGEST_CHUNK_BYTES))
                left -= len(data)
                records = _records(data)
            for record in records:
                match record:
                    case Channel(id=number, topic=topic) if topic in CHANNELS:
                        topics[number] = topic
                        if len(topics) > _MOST_CHANNELS:
                            raise ValueError(f"more than {_MOST_CHANNELS} channels")
                    case Metadata(name=name, metadata=data_of):
                        self._take(name, data_of)
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
        """Return the inner loop's steps that a robot's process recorded.

        Raises:
            RecordingError: a step has more or fewer values than the robot has actuators.
        """
        found = [
            (at_ns, step) for at_ns, _, step in self.messages() if isinstance(step, StepMessage)
        ]
        for _, step in found:
            if len(step.values) != len(self.run.interface.actuators):
                raise RecordingError(
                    f"{self.path}: expected {len(self.run.interface.actuators)} values in each "
                    f"step, found {len(step.values)}"
                )
        return StepTrace(
            at_ns=np.array([at_ns for at_ns, _ in found], np.int64),
            states=[step.state for _, step in found],
            values=np.array([step.values for _, step in found], np.float64),
        )


class _WholeReads:
    """File whose reads are whole or end the file: a length beyond its end takes no memory."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = size

    def read(self, length: int) -> bytes:
        """Return `length` bytes.

        Raises:
            EndOfFile: the file has fewer.
        """
        if length < 0 or length > self._left:
            raise EndOfFile
        self._left -= length
        return self._file.read(length)


def _unpacked(chunk: Chunk, most_bytes: int) -> bytes:
    """Return the records of a chunk, after its sizes were compared with their bounds.

    Raises:
        ValueError, zstandard.ZstdError: the chunk is damaged or too large.
    """
    size = chunk.uncompressed_size
    if size > most_bytes:
        raise ValueError(f"a chunk of {size} bytes, expected at most {most_bytes}")
    if chunk.compression == "zstd":
        # A frame says its own size, which the library would allocate; -1 if it does not say it.
        if zstandard.frame_content_size(chunk.data) not in (-1, size):
            raise ValueError("a chunk whose two sizes differ")
        data = zstandard.decompress(chunk.data, size) if size else b""
    elif chunk.compression:
        raise ValueError(f"compression {chunk.compression!r}, expected zstd")
    else:
        data = chunk.data
    if len(data) != size or (chunk.uncompressed_crc and zlib.crc32(data) != chunk.uncompressed_crc):
        raise ValueError("a chunk that fails its CRC")
    return data


def _records(data: bytes) -> Iterator[McapRecord]:
    """Yield the channels and messages of an unpacked chunk, one at a time."""
    whole: Any = _WholeReads(BytesIO(data), len(data))
    stream = ReadDataStream(whole)
    while stream.count < len(data):
        opcode, length = stream.read1(), stream.read8()
        if opcode == Opcode.CHANNEL:
            yield Channel.read(stream)
        elif opcode == Opcode.MESSAGE:
            yield Message.read(stream, length)
        else:
            stream.read(length)
