"""Packets between an arm's process and its door: two processes, joined by a pair of sockets.

The pair is of type `SOCK_SEQPACKET`: a packet arrives whole and in order, or not at all. Each has a
count, so that a missing packet ends the door. Every packet is bounded, and so is what the kernel
keeps of them. Neither end ever waits to send.

    door ──Listening, Refusal, Request, Ended, Counts──▶ arm's process
    door ◀──────────────────Answer, in parts──────────── arm's process
"""

from __future__ import annotations

import select
import socket
import struct
from collections import deque
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import msgspec

from gatort.runtime.errors import WireError

from .transport import Connection
from .wire import LARGEST_ANSWER_BYTES

PART_BYTES: Final = 32_768
"""Most bytes of a frame in one packet."""
_HEADER: Final = struct.Struct("<BIiBB")
"""Kind, count, descriptor, length of the routing id, and 1 if more parts of the frame follow."""
LARGEST_PACKET_BYTES: Final = _HEADER.size + 255 + PART_BYTES


class Kind(IntEnum):
    """Kind of a packet: its direction and its content."""

    LISTENING = 1
    """To the arm: the door listens. The frame is its address."""
    REFUSAL = 2
    """To the arm: the door cannot listen and ends. The frame is a sentence."""
    REQUEST = 3
    """To the arm: a frame of a controller."""
    ENDED = 4
    """To the arm: a controller's connection ended."""
    COUNTS = 5
    """To the arm, ten times a second: `RefusalCounts` of the door. Shows that it is alive."""
    ANSWER = 6
    """To the door: a frame for a controller."""


class DoorSettings(msgspec.Struct, frozen=True):
    """Settings of a door, on its command line."""

    bind: str
    """Address to listen on."""
    keys: str | None = None
    """Directory with the robot's keys. Without keys everyone on this machine may connect."""


NOBODY: Final = Connection(b"", -1)
"""Connection of a packet that concerns no controller."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet, or a frame that was joined from its parts."""

    kind: Kind
    frame: bytes = b""
    connection: Connection = NOBODY


class DoorLink:
    """One end of the link between an arm's process and its door."""

    def __init__(self, end: socket.socket, *, takes_parts: bool) -> None:
        """Take over one end of a `SOCK_SEQPACKET` pair. `close` closes it.

        Args:
            end: the end.
            takes_parts: true for the door's end. The arm's process refuses a frame in parts: no
                door may hold up a turn of the arm.
        """
        self._end = end
        self._takes_parts = takes_parts
        self._end.setblocking(False)
        self._leaving: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._sent = 0
        self._heard = 0
        self._parts = bytearray()

    def fileno(self) -> int:
        """Return the descriptor, for a poll."""
        return self._end.fileno()

    @property
    def is_full(self) -> bool:
        """True while packets wait for the other end to read."""
        return bool(self._leaving)

    def wait_for_room(self, longest_ms: int) -> None:
        """Return once the other end has read, or after `longest_ms`."""
        poll = select.poll()
        poll.register(self._end, select.POLLOUT | select.POLLIN)
        poll.poll(longest_ms)

    def send(self, packet: Packet) -> bool:
        """Send a packet, in parts if it is long. Never wait.

        Returns:
            False if too much waits already. The packet is then lost.

        Raises:
            BrokenPipeError: the other end is closed. `ConnectionResetError` says the same.
        """
        if self._waiting_bytes > LARGEST_ANSWER_BYTES:
            return False
        frame, connection = packet.frame, packet.connection
        for start in range(0, max(len(frame), 1), PART_BYTES):
            part = frame[start : start + PART_BYTES]
            has_more = start + PART_BYTES < len(frame)
            header = _HEADER.pack(
                packet.kind,
                self._sent & 0xFFFF_FFFF,
                connection.descriptor,
                len(connection.routing_id),
                has_more,
            )
            self._sent += 1
            data = header + connection.routing_id + part
            self._leaving.append(data)
            self._waiting_bytes += len(data)
        self.flush()
        return True

    def flush(self) -> None:
        """Send the packets that wait, as far as the other end has room.

        Raises:
            BrokenPipeError: the other end is closed. `ConnectionResetError` says the same.
        """
        while self._leaving:
            try:
                self._end.send(self._leaving[0])
            except BlockingIOError:
                return
            self._waiting_bytes -= len(self._leaving.popleft())

    def receive(self) -> Packet | None:
        """Return the next frame that arrived whole, or `None` if none waits.

        Raises:
            EOFError: the other end is closed.
            WireError: the packet is not one of the link.
        """
        while True:
            try:
                data = self._end.recv(LARGEST_PACKET_BYTES)
            except BlockingIOError:
                return None
            except ConnectionResetError:
                raise EOFError from None
            if not data:
                raise EOFError
            packet, has_more = self._unpack(data)
            if has_more and not self._takes_parts:
                raise WireError("expected a whole frame, found a part of one")
            self._parts += packet.frame
            if len(self._parts) > LARGEST_ANSWER_BYTES:
                raise WireError(
                    f"expected frames of at most {LARGEST_ANSWER_BYTES} bytes, found a longer one"
                )
            if not has_more:
                frame = bytes(self._parts)
                self._parts.clear()
                return Packet(packet.kind, frame, packet.connection)

    def _unpack(self, data: bytes) -> tuple[Packet, bool]:
        try:
            kind, count, descriptor, length, has_more = _HEADER.unpack_from(data)
            packet_kind = Kind(kind)
        except (struct.error, ValueError) as error:
            raise WireError(f"expected a packet of the door, found {data[:16]!r}") from error
        if count != self._heard & 0xFFFF_FFFF:
            raise WireError(f"expected packet {self._heard}, found {count}")
        self._heard += 1
        body = data[_HEADER.size :]
        connection = Connection(body[:length], descriptor)
        return Packet(packet_kind, body[length:], connection), bool(has_more)

    def close(self) -> None:
        """Close this end. A second call does nothing."""
        self._end.close()
