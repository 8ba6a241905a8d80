"""The process that writes a recording: `python -m gatort.runtime.recording.process FD`, started by `recorder.py`.

It outlives whoever records. Nothing but the end of its link ends it, so that what was sent before a crash is written;
a disk that is slow or full stops it alone. A chunk is closed and synced every half second: what a power cut or a
SIGKILL of this process takes is at most a second old on a disk that keeps up.
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
from typing import IO

import msgspec
from mcap.well_known import MessageEncoding, SchemaEncoding
from mcap.writer import Writer

from gatort.runtime.clock import MonotonicClock

READY = b"ready"
FINISHED = b"finished"
HEADER = struct.Struct("<HIQI")
"""Before each message of a packet: channel, sequence, log_time in ns, bytes of the message."""
METADATA_CHANNEL = 0xFFFF
"""A message on it is a `MetadataRecord`."""
LARGEST_PACKET_BYTES = 1 << 24
LARGEST_ANSWER_BYTES = 1 << 13
"""Of a sentence that names a file: a path has at most 4,095 bytes (PATH_MAX)."""

_SYNC_NS = 500_000_000
_LOOK_NS = 20_000_000
_MOST_WAITING_BYTES = 1 << 25
"""Of packets that wait for a slow disk; beyond it the link fills up, and the sender drops and counts."""


class ChannelRecord(msgspec.Struct, frozen=True):
    """A channel; its number is its place in `Start.channels`."""

    topic: str
    schema: msgspec.Raw
    """JSON Schema."""


class MetadataRecord(msgspec.Struct, frozen=True):
    """An MCAP metadata record."""

    name: str
    data: dict[str, str]


class Start(msgspec.Struct, frozen=True):
    """The first packet, as JSON."""

    path: str
    channels: list[ChannelRecord]
    metadata: list[MetadataRecord]


class _File:
    """The MCAP file under way."""

    def __init__(self, file: IO[bytes], start: Start) -> None:
        self._file = file
        self._writer = Writer(file, enable_data_crcs=True)  # Metadata has no CRC of its own.
        self._clock = MonotonicClock()
        self.whole_bytes = 0
        """How much of the file is whole records and synced."""
        self._writer.start(library="gatort")
        for each in start.metadata:
            self._writer.add_metadata(each.name, each.data)
        self._channels = [self._register(channel) for channel in start.channels]
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
        """Until the next `sync` is due; 0 when it is."""
        return max(0, self._due_ns - self._clock.now_ns()) * 1e-9

    def add(self, packet: bytes) -> None:
        """Write a packet's messages."""
        at = 0
        while at < len(packet):
            channel, sequence, log_ns, size = HEADER.unpack_from(packet, at)
            data = packet[at + HEADER.size : (at := at + HEADER.size + size)]
            if channel == METADATA_CHANNEL:
                metadata = msgspec.json.decode(data, type=MetadataRecord)
                self.sync()  # What it says of the messages is true once they are on the disk.
                self._writer.add_metadata(metadata.name, metadata.data)
            else:
                self._writer.add_message(self._channels[channel], log_ns, data, log_ns, sequence)

    def finish(self) -> None:
        """Write the index and the end of the file."""
        self._writer.finish()  # type: ignore[no-untyped-call]
        self._file.flush()
        os.fsync(self._file.fileno())


class _Packets:
    """What waits for the disk, from the thread that receives to the one that writes; none is the end."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        # Two counts, each of one thread, need no lock.
        self._put_bytes = self._taken_bytes = 0

    @property
    def full(self) -> bool:
        """Whether no more should be put: a disk that hangs must not cost the robot's computer its memory."""
        return self._put_bytes - self._taken_bytes >= _MOST_WAITING_BYTES

    def put(self, packet: bytes | None) -> None:
        """Never waits."""
        self._put_bytes += len(packet or b"")
        self._queue.put(packet)

    def get(self, timeout_s: float | None = None) -> bytes | None:
        """Wait for the next packet; empty when none came in time."""
        try:
            packet = self._queue.get(timeout=timeout_s)
        except Empty:
            return b""
        self._taken_bytes += len(packet or b"")
        return packet


def main() -> None:
    """Write until the link ends, then finish the file."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    # It wakes up often, and must not take a loop's core when it does (sched(7), SCHED_BATCH).
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with socket.socket(fileno=int(sys.argv[1])) as link:
        start = msgspec.json.decode(link.recv(LARGEST_PACKET_BYTES), type=Start)
        packets = _Packets()
        try:
            file = Path(start.path).open("wb")  # noqa: SIM115 `_write` closes it
        except OSError as error:
            link.send(f"cannot write {start.path}: {error.strerror}".encode())
            return
        link.send(READY)
        Thread(target=_receive, args=(link, packets), daemon=True).start()
        answer = _write(file, start, packets)
        with suppress(OSError):  # Nobody may be there any more to read it.
            link.send(answer)
        while answer != FINISHED and packets.get() is not None:
            pass


def _receive(link: socket.socket, packets: _Packets) -> None:
    """Move packets from the link to the queue, so that a slow disk does not fill the link, until the queue is full.

    It looks for them instead of waiting in `recv`: whoever sends to a process that waits wakes it, and on a crowded
    machine lost its own core to it for 5 ms.
    """
    buffer, clock = memoryview(bytearray(LARGEST_PACKET_BYTES)), MonotonicClock()
    link.setblocking(False)
    while True:
        if packets.full:
            clock.sleep_until_ns(clock.now_ns() + _LOOK_NS)
            continue
        try:
            size = link.recv_into(buffer)
        except BlockingIOError:
            clock.sleep_until_ns(clock.now_ns() + _LOOK_NS)
            continue
        except OSError:
            break
        if not size:
            break
        packets.put(bytes(buffer[:size]))
    packets.put(None)


def _write(file: IO[bytes], start: Start, packets: _Packets) -> bytes:
    """Write the file to its end, or to the last whole chunk that the disk takes; what to answer."""
    whole_bytes = 0
    try:
        written = _File(file, start)
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
        return f"cannot write {start.path}: {error.strerror}".encode()
    return FINISHED


def _write_packets(written: _File, packets: _Packets) -> None:
    while True:
        packet = packets.get(written.left_s)
        if packet is None:
            return
        written.add(packet)
        if not written.left_s:
            written.sync()


if __name__ == "__main__":
    main()
