"""Recording of messages without waiting: a process of its own writes the file.

A message costs the caller its encoding and a copy into a socket. The recorder drops and counts
messages that do not fit. A disk or a writing process that fails makes the recorder DEGRADED:
`degraded` says why, nothing is raised, and control goes on.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from gatort.runtime.errors import RecordingError
from gatort.runtime.linked_process import start_linked

from .messages import (
    CHANNELS,
    AnyMessage,
    FaultMessage,
    ObservationMessage,
    Outcome,
    PolicyRecord,
    RunRecord,
    field_names,
    json_schema,
    to_metadata,
)
from .pictures import RAW_ONLY, can_encode
from .process import (
    FINISHED,
    HEADER,
    LARGEST_ANSWER_BYTES,
    LARGEST_PACKET_BYTES,
    METADATA_CHANNEL,
    READY,
    ChannelRecord,
    MetadataRecord,
    PictureRecord,
    Start,
)

_LINK_BYTES = 1 << 22
"""Size asked for the socket's buffer: seconds of ticks without images.

Linux gives at most net.core.wmem_max, 208 KiB by default."""
_START_S = 30.0
_CLOSE_S = 10.0
_LARGEST_SEQUENCE = 0xFFFF_FFFF
"""MCAP's sequence numbers have 32 bits: 49 days of inner steps."""


class Recorder:
    """Sends messages to the process that writes a recording. Use it from one thread at a time."""

    def __init__(self, path: Path, run: RunRecord, policy: PolicyRecord | None = None) -> None:
        """Start the writing process and wait until it has made the new file.

        Call it before the thread takes a real-time priority, which the process would inherit.

        Raises:
            RecordingError: the file exists or cannot be made, or the process does not start.
        """
        self.path = path
        self.degraded: str | None = None
        """Reason why messages are missing; `None` while the recording is complete."""
        self.dropped = 0
        """Number of messages lost before they reached the writing process."""
        self.note: str | None = None
        """Sentence on the pictures that viewers do not show; `None` if they show all."""
        self._offset_ns = run.wall_clock_offset_ns
        self._encode = msgspec.json.Encoder().encode
        self._channels = {kind: number for number, kind in enumerate(CHANNELS.values())}
        self._sequences = [0] * len(CHANNELS)
        self._packet: list[bytes] = []
        self._failed = False
        self._closed = False

        try:
            self._link, self._process = start_linked(
                "gatort.runtime.recording.process", buffer_bytes=_LINK_BYTES
            )
        except OSError as error:
            raise self._not_started(error) from error
        self._hand_over(self._start(run, policy))
        self._link.setblocking(False)

    def _start(self, run: RunRecord, policy: PolicyRecord | None) -> Start:
        """Return the first packet: the file's path, its channels and its first metadata."""
        channels = [
            ChannelRecord(topic, msgspec.Raw(self._encode(json_schema(kind, run.interface))))
            for topic, kind in CHANNELS.items()
        ]
        metadata = [MetadataRecord("run", to_metadata(run))]
        if policy is not None:
            metadata.append(MetadataRecord("policy", to_metadata(policy)))
        return Start(
            os.fsencode(self.path.absolute()),
            channels,
            metadata,
            observations=self._channels[ObservationMessage],
            pictures=self._pictures(run),
            wall_clock_offset_ns=self._offset_ns,
        )

    def _pictures(self, run: RunRecord) -> list[PictureRecord]:
        """Return the channels of JPEG pictures; none, with a note, if nothing encodes them."""
        keys = run.interface.observations
        named = zip(field_names(keys), keys, strict=True)
        found = [
            PictureRecord(f"/picture/{key.name}", field, key.name)
            for field, key in named
            if key.encoding == "image"
        ]
        if found and not can_encode():
            self.note = RAW_ONLY
            return []
        return found

    def _hand_over(self, start: Start) -> None:
        """Send the first packet and wait for the answer; end the process if it is not READY."""
        self._link.settimeout(_START_S)
        try:
            self._link.send(self._encode(start))
            answer = self._link.recv(LARGEST_PACKET_BYTES)
        except OSError as error:
            answer = os.fsencode(str(self._not_started(error)))

        if answer != READY:
            self._link.close()
            self._process.kill()
            self._process.wait()
            raise RecordingError(os.fsdecode(answer)) if answer else self._not_started()

    def _not_started(self, error: OSError | None = None) -> RecordingError:
        sentence = f"cannot record {self.path}: the recorder process did not start"
        return RecordingError(sentence if error is None else f"{sentence}: {error}")

    # -- During the run --------------------------------------------------------------------------

    def add(self, at_ns: int, *messages: AnyMessage) -> None:
        """Put all messages into the next packet. After an interrupt no message is in it.

        Args:
            at_ns: time of the messages, on the clock given to `RunRecord.of`.
            messages: messages of one tick or one event.
        """
        encoded: list[bytes] = []
        for message in messages:
            encoded += self._encoded(at_ns, message)
        self._packet += encoded

    def _encoded(self, at_ns: int, message: AnyMessage) -> tuple[bytes, ...]:
        """Return a message's header and data; nothing if it cannot be encoded."""
        channel = self._channels[type(message)]
        self._sequences[channel] += 1
        try:
            data = self._encode(message)
        except (TypeError, ValueError, OverflowError) as error:
            self._drop(1, f"a message cannot be encoded: {error}")
            return ()

        sequence = self._sequences[channel] & _LARGEST_SEQUENCE
        return HEADER.pack(channel, sequence, at_ns + self._offset_ns, len(data)), data

    def flush(self, wait_s: float = 0.0) -> None:
        """Send the whole packet, or drop it if the link has no room for it within `wait_s`."""
        packet = self._packet
        self._packet = []
        if not packet:
            return

        messages = len(packet) // 2
        self._listen()
        if self._failed:
            self.dropped += messages
            return

        if wait_s:
            select.select((), (self._link,), (), wait_s)
        try:
            self._link.send(b"".join(packet))
        except BlockingIOError:
            self._drop(messages, "the recorder process fell behind")
        except ConnectionError:
            self._failed = True
            self._drop(messages, "the recorder process ended")
        except OSError as error:
            self._drop(messages, f"a packet cannot be sent: {error.strerror}")

    def fault(self, at_ns: int, component: str, sentence: str) -> None:
        """Record a fault at once."""
        self.add(at_ns, FaultMessage(component=component, sentence=sentence))
        self.flush()

    def _drop(self, messages: int, reason: str) -> None:
        self.dropped += messages
        self.degraded = self.degraded or reason

    def _listen(self) -> None:
        """Read the process's answer, if there is one, and note a failure."""
        try:
            answer = self._link.recv(LARGEST_ANSWER_BYTES)
        except BlockingIOError:
            return
        except OSError:
            answer = b""

        if answer != FINISHED:
            self._failed = True
            self.degraded = self.degraded or os.fsdecode(answer) or "the recorder process ended"

    # -- End of the run --------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """True if the file holds every message and has its end; false until `close`."""
        return self._closed and self.degraded is None

    def close(self, result: str | None = None, *, succeeded: bool | None = None) -> None:
        """Wait, with a limit, until the file is finished. A second call does nothing.

        Args:
            result: sentence that says how the run ended; without it the file counts as not closed.
            succeeded: true if the task succeeded; `None` where that is unknown.
        """
        if self._closed:
            return

        self._closed = True
        self.flush()
        answer = self._last_answer(result, succeeded)
        self._link.close()
        if answer != FINISHED:
            reason = os.fsdecode(answer) or "the recorder process did not finish the file"
            self.degraded = self.degraded or reason

        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_CLOSE_S)

    def _last_answer(self, result: str | None, succeeded: bool | None) -> bytes:
        """Send the outcome, end the link and return the process's answer; empty if none comes."""
        self._link.settimeout(_CLOSE_S)
        try:
            if result is not None and not self._failed:
                self._link.send(self._outcome(result, succeeded))
            self._link.shutdown(socket.SHUT_WR)
            return self._link.recv(LARGEST_ANSWER_BYTES)
        except OSError:
            return b""

    def _outcome(self, result: str, succeeded: bool | None) -> bytes:
        outcome = Outcome(
            complete=self.degraded is None,
            dropped=self.dropped,
            degraded=self.degraded or "",
            result=result,
            succeeded=succeeded,
        )
        data = self._encode(MetadataRecord("outcome", to_metadata(outcome)))
        return HEADER.pack(METADATA_CHANNEL, 0, 0, len(data)) + data

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
