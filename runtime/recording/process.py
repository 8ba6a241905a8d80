"""The process that writes a recording; `recorder.py` starts it.

Its command is `python -m gatort.runtime.recording.process FD`. It outlives the program that
records. Only the end of its link ends it, so everything sent before a crash is written. A slow or
full disk stops this process alone. It closes and syncs a chunk every half second. On a disk that
keeps up, a power cut or a SIGKILL of this process loses at most a second.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO, TYPE_CHECKING

import msgspec
from mcap.well_known import MessageEncoding, SchemaEncoding
from mcap.writer import IndexType, Writer

from gatort.runtime.clock import Clock, MonotonicClock
from gatort.runtime.process_name import name_process

if TYPE_CHECKING:
    from .pictures import PictureWriter

READY = b"ready"
FINISHED = b"finished"
HEADER = struct.Struct("<HIQI")
"""Header of each message in a packet: channel, sequence, log_time in ns, size of the message."""
METADATA_CHANNEL = 0xFFFF
"""Channel whose messages are `MetadataRecord`s."""
LARGEST_PACKET_BYTES = 1 << 24
LARGEST_ANSWER_BYTES = 1 << 13
"""Largest answer: a sentence that names a file, whose path has at most 4,095 bytes (PATH_MAX)."""

_SYNC_NS = 500_000_000
_LOOK_NS = 20_000_000
_MOST_WAITING_BYTES = 1 << 25
"""Most memory for packets that wait for a slow disk.

Beyond it the link fills up, and the sender drops and counts."""


class ChannelRecord(msgspec.Struct, frozen=True):
    """Channel of the file; its number is its index in `Start.channels`."""

    topic: str
    """Name of the topic."""
    schema: msgspec.Raw
    """JSON Schema of its messages."""


class PictureRecord(msgspec.Struct, frozen=True):
    """Channel of a camera's JPEG pictures."""

    topic: str
    """Name of the topic."""
    field: str
    """Field of an observation's values that holds the picture."""
    frame: str
    """Name of the camera's frame of reference."""


class MetadataRecord(msgspec.Struct, frozen=True):
    """MCAP metadata record."""

    name: str
    """Name of the record."""
    data: dict[str, str]
    """Value of each field, as JSON."""


class Start(msgspec.Struct, frozen=True):
    """First packet, as JSON."""

    path: bytes
    """Absolute path of the file, which need not be UTF-8."""
    channels: list[ChannelRecord]
    """Channels of the file."""
    metadata: list[MetadataRecord]
    """Metadata at the beginning of the file."""
    observations: int = 0
    """Channel whose messages hold pictures."""
    pictures: list[PictureRecord] = []
    """Pictures to write as JPEG too."""
    wall_clock_offset_ns: int = 0
    """UTC minus the clock of an observation's stamp."""


class _File:
    """MCAP file under way."""

    def __init__(self, file: IO[bytes], start: Start, clock: Clock) -> None:
        self._file = file
        self._writer = Writer(
            file,
            # A recording has no attachments, and an offset to an empty group is invalid.
            index_types=IndexType.CHUNK | IndexType.MESSAGE | IndexType.METADATA,
            enable_data_crcs=True,  # Metadata has no CRC of its own.
        )
        self._clock = clock
        self.whole_bytes = 0
        """Size of the file's whole and synced records."""
        self._writer.start(library="gatort")
        for each in start.metadata:
            self._writer.add_metadata(each.name, each.data)
        self._channels = [self._register(channel) for channel in start.channels]
        self._observations = start.observations
        self._pictures = _picture_writer(self._writer, start) if start.pictures else None
        self.sync()

    def _register(self, channel: ChannelRecord) -> int:
        name = f"gatort{channel.topic.replace('/', '.')}"
        schema = self._writer.register_schema(
            name, SchemaEncoding.JSONSchema, bytes(channel.schema)
        )
        return self._writer.register_channel(channel.topic, MessageEncoding.JSON, schema)

    def sync(self) -> None:
        """Close the chunk and wait until it is on the disk."""
        self._writer.flush()  # type: ignore[no-untyped-call]
        os.fsync(self._file.fileno())
        self.whole_bytes = self._file.tell()
        self._due_ns = self._clock.now_ns() + _SYNC_NS

    @property
    def left_s(self) -> float:
        """Time until the next `sync` is due; 0 when it is."""
        return max(0, self._due_ns - self._clock.now_ns()) * 1e-9

    def add(self, packet: bytes) -> None:
        """Write a packet's messages."""
        at = 0
        while at < len(packet):
            channel, sequence, log_ns, size = HEADER.unpack_from(packet, at)
            at += HEADER.size
            data = packet[at : at + size]
            at += size

            if channel == METADATA_CHANNEL:
                self._add_metadata(data)
            else:
                self._writer.add_message(self._channels[channel], log_ns, data, log_ns, sequence)
                if channel == self._observations and self._pictures is not None:
                    self._pictures.add(data, log_ns, sequence)

    def _add_metadata(self, data: bytes) -> None:
        """Write metadata after the messages: its claims about them hold once they are synced."""
        metadata = msgspec.json.decode(data, type=MetadataRecord)
        self.sync()
        self._writer.add_metadata(metadata.name, metadata.data)

    def finish(self) -> None:
        """Write the index and the end of the file."""
        self._writer.finish()  # type: ignore[no-untyped-call]
        self._file.flush()
        os.fsync(self._file.fileno())


def _load_encoder() -> None:
    """Load the encoder before the first tick, which would share a core with this process."""
    # NumPy and the encoder take 0.3 s to import, and most recordings need neither.
    from .pictures import warm_up

    warm_up()


def _picture_writer(writer: Writer, start: Start) -> PictureWriter:
    from .pictures import PictureWriter

    made = PictureWriter(writer, start.wall_clock_offset_ns)
    for each in start.pictures:
        made.register(each.topic, each.field, each.frame)
    return made


class _Packets:
    """Queue of the packets that wait for the disk, from the receiving thread to the writing one.

    `None` in place of a packet is the end.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        # Each count belongs to one thread, so neither needs a lock.
        self._put_bytes = 0
        self._taken_bytes = 0

    @property
    def full(self) -> bool:
        """True if nothing more should be put: a disk that hangs must not use up the memory."""
        return self._put_bytes - self._taken_bytes >= _MOST_WAITING_BYTES

    def put(self, packet: bytes | None) -> None:
        """Add a packet without waiting."""
        self._put_bytes += len(packet or b"")
        self._queue.put(packet)

    def get(self, timeout_s: float | None = None) -> bytes | None:
        """Wait for the next packet; return an empty one if none comes in time."""
        try:
            packet = self._queue.get(timeout=timeout_s)
        except Empty:
            return b""
        self._taken_bytes += len(packet or b"")
        return packet


def main() -> None:
    """Write until the link ends, then finish the file."""
    name_process("recorder")
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    # This process wakes up often and must not take a loop's core then (sched(7), SCHED_BATCH).
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))

    with socket.socket(fileno=int(sys.argv[1])) as link:
        start = msgspec.json.decode(link.recv(LARGEST_PACKET_BYTES), type=Start)
        path = Path(os.fsdecode(start.path))
        try:
            file = _create(path)
        except OSError as error:
            link.send(_refusal(start, error))
            return
        if start.pictures:
            _load_encoder()
        link.send(READY)
        _serve(link, file, start)


def _create(path: Path) -> IO[bytes]:
    """Open a new recording: only its owner may see its pictures. A device is written to.

    A second run that makes the same file is refused, and so is a pipe that nobody reads.
    """
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC
    if not path.exists() or path.is_file():
        flags |= os.O_CREAT | os.O_EXCL
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def _serve(link: socket.socket, file: IO[bytes], start: Start) -> None:
    """Write the link's packets to the file and answer how that ended."""
    packets = _Packets()
    Thread(target=_receive, args=(link, packets), daemon=True).start()
    answer = _write(file, start, packets)
    with suppress(OSError):  # The sender may have ended already.
        link.send(answer)

    # Stay until the sender ends the link: closing it over unread packets could lose the answer.
    while answer != FINISHED and packets.get() is not None:
        pass


def _receive(link: socket.socket, packets: _Packets) -> None:
    """Move packets from the link to the queue, until the queue is full.

    The thread polls the link instead of blocking in `recv`. Sending to a blocked process wakes it
    up, and on a crowded machine the sender lost its own core to it for 5 ms.
    """
    try:
        _move_packets(link, packets)
    finally:
        packets.put(None)  # Without an end the writing thread would wait for ever.


def _move_packets(link: socket.socket, packets: _Packets) -> None:
    buffer = memoryview(bytearray(LARGEST_PACKET_BYTES))
    clock = MonotonicClock()
    link.setblocking(False)
    while True:
        size = None if packets.full else _receive_into(buffer, link)
        if size is None:
            clock.sleep_until_ns(clock.now_ns() + _LOOK_NS)
            continue
        if size == 0:
            return
        packets.put(bytes(buffer[:size]))


def _receive_into(buffer: memoryview, link: socket.socket) -> int | None:
    """Return the size of the packet read into `buffer`: 0 at the end, `None` if none is there."""
    try:
        return link.recv_into(buffer)
    except BlockingIOError:
        return None
    except OSError:
        return 0


def _write(file: IO[bytes], start: Start, packets: _Packets) -> bytes:
    """Write the file to its end, or to the last whole chunk that fits; return the answer."""
    whole_bytes = 0
    try:
        written = _File(file, start, MonotonicClock())
        try:
            _write_packets(written, packets)
            written.finish()
            file.close()
        finally:
            whole_bytes = written.whole_bytes
    except OSError as error:
        with suppress(OSError):
            file.close()
        with suppress(OSError):
            os.truncate(start.path, whole_bytes)
        return _refusal(start, error)
    return FINISHED


def _refusal(start: Start, error: OSError) -> bytes:
    return b"cannot write %b: %b" % (start.path, (error.strerror or str(error)).encode())


def _write_packets(written: _File, packets: _Packets) -> None:
    """Write packets, and sync when it is due, until the end comes."""
    while True:
        packet = packets.get(written.left_s)
        if packet is None:
            return
        written.add(packet)
        if not written.left_s:
            written.sync()


if __name__ == "__main__":
    main()
