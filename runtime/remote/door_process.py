"""The door: the process that talks to controllers, so that the arm's process talks to nobody.

It holds the sockets, their keys and libzmq's threads. Frames that are no request, and frames beyond
a connection's rate, end here. Strangers may keep this process busy or end it. The arm's process
only sees packets of a bounded size, or it sees no packet. The door ends with the arm's process.

    python -P -m gatort.runtime.remote.door_process DESCRIPTOR PARENT SETTINGS
"""

from __future__ import annotations

import os
import resource
import socket
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import msgspec
import zmq

from gatort.runtime.clock import Clock, MonotonicClock
from gatort.runtime.errors import GatortError, RobotError, WireError
from gatort.runtime.parent import end_before_others, end_with_parent
from gatort.runtime.process_name import name_process

from . import wire
from .door_link import DoorLink, DoorSettings, Kind, Packet
from .keys import RobotKeys
from .robot_socket import RobotSocket
from .transport import Arrival, Connection, RefusalCounts

COUNTS_MS: Final = 100
"""Interval at which the door tells its counts, and looks at its own memory."""
LARGEST_RESIDENT_BYTES: Final = 256 << 20
"""Memory in use at which the door ends. A door that serves one controller takes about 50 MiB."""
LARGEST_DATA_BYTES: Final = 512 << 20
"""Memory that the kernel grants. libzmq aborts when it gets no more."""
LARGEST_OUTPUT_BYTES: Final = 65_536
"""Most bytes that the door's process may print."""
FRAMES_PER_S: Final = 1_000
"""Most frames a second of one connection. A controller sends about 100."""
BURST_FRAMES: Final = 100
"""Frames that a connection may send at once after a pause."""
NICENESS: Final = -10
"""Niceness of the door where it is granted. It never has a real-time priority: a peer can
keep it busy, and then nothing else would run."""


class RateLimit:
    """Frames that each connection may send: `FRAMES_PER_S`, at most `BURST_FRAMES` at once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left: dict[int, tuple[float, int]] = {}
        """Frames left by connection, and the instant of that count in ns."""

    def admits(self, descriptor: int) -> bool:
        """Count a frame of a connection. Return false if it comes too soon."""
        now_ns = self._clock.now_ns()
        left, then_ns = self._left.get(descriptor, (float(BURST_FRAMES), now_ns))
        left = min(left + (now_ns - then_ns) * 1e-9 * FRAMES_PER_S, BURST_FRAMES)
        is_admitted = left >= 1.0
        self._left[descriptor] = (left - is_admitted, now_ns)
        return is_admitted

    def forget(self, descriptor: int) -> None:
        """Forget a connection that ended."""
        self._left.pop(descriptor, None)


class Doorkeeper:
    """Carries frames between controllers' sockets and the arm's process."""

    def __init__(self, link: DoorLink, transport: RobotSocket, clock: Clock) -> None:
        self._link = link
        self._transport = transport
        self._clock = clock
        self._rate = RateLimit(clock)
        self._malformed = 0
        self._flooded = 0
        self._told_ns = 0
        # Opened now: a flood of connections leaves no descriptor.
        self._memory = os.open("/proc/self/statm", os.O_RDONLY)
        transport.poller.register(link.fileno(), zmq.POLLIN)

    def serve(self) -> None:
        """Carry frames until the arm's process closes the link.

        Raises:
            RobotError: the door took too much memory.
        """
        self._link.send(Packet(Kind.LISTENING, self._transport.endpoint.encode()))
        with suppress(EOFError, BrokenPipeError, ConnectionResetError):
            while True:
                self._take_turn()

    def _take_turn(self) -> None:
        # While the arm's process has no room for more, controllers' frames stay in their queues.
        if self._link.is_full:
            self._link.wait_for_room(COUNTS_MS)
        else:
            self._transport.wait(COUNTS_MS)

        self._link.flush()
        while packet := self._link.receive():
            self._transport.send(packet.connection, packet.frame)
        if not self._link.is_full:
            self._carry_requests()
        self._tell_counts()

    def _carry_requests(self) -> None:
        # Ends are asked for after the messages and sent before them. A new connection may have the
        # descriptor of one that ended: its first message comes after that end.
        arrived = self._transport.receive()
        for descriptor in self._transport.ended():
            self._rate.forget(descriptor)
            self._link.send(Packet(Kind.ENDED, connection=Connection(b"", descriptor)))
        for arrival in arrived:
            if self._is_request(arrival):
                self._link.send(Packet(Kind.REQUEST, arrival.frame, arrival.connection))

    def _is_request(self, arrival: Arrival) -> bool:
        try:
            wire.decode_request(arrival.frame)
        except WireError:
            self._malformed += 1
            return False
        if self._rate.admits(arrival.connection.descriptor):
            return True
        self._flooded += 1
        return False

    def _tell_counts(self) -> None:
        now_ns = self._clock.now_ns()
        if now_ns < self._told_ns + COUNTS_MS * 1_000_000:
            return
        self._told_ns = now_ns
        self._require_memory()
        seen = self._transport.refused
        counts = RefusalCounts(
            seen.malformed + self._malformed, seen.unknown_keys, seen.handshakes, self._flooded
        )
        self._link.send(Packet(Kind.COUNTS, msgspec.msgpack.encode(counts)))

    def _require_memory(self) -> None:
        """Check the memory in use.

        Raises:
            RobotError: a peer has made libzmq take too much.
        """
        pages = int(os.pread(self._memory, 64, 0).split()[1])
        resident_bytes = pages * resource.getpagesize()
        if resident_bytes > LARGEST_RESIDENT_BYTES:
            raise RobotError(
                f"expected at most {LARGEST_RESIDENT_BYTES >> 20} MiB in use, "
                f"found {resident_bytes >> 20} MiB: a peer sends a message that does not end"
            )


def _bound_this_process() -> None:
    """Give this process bounds of its own, so that it never costs the arm's process anything."""
    # Each connection takes a descriptor, and without any left libzmq's thread spins.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # Its output goes into memory that the arm's process holds.
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_OUTPUT_BYTES, LARGEST_OUTPUT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # A core file would hold the secret key.
    resource.setrlimit(resource.RLIMIT_DATA, (LARGEST_DATA_BYTES, LARGEST_DATA_BYTES))
    end_before_others()
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)


def main() -> int:
    """Serve a door: `python -m gatort.runtime.remote.door_process DESCRIPTOR PARENT SETTINGS`."""
    descriptor, parent, text = sys.argv[1:]
    end_with_parent(int(parent))
    name_process("door")
    settings = msgspec.json.decode(text, type=DoorSettings)
    _bound_this_process()
    with closing(DoorLink(socket.socket(fileno=int(descriptor)), takes_parts=True)) as link:
        try:
            keys = RobotKeys.load(Path(settings.keys)) if settings.keys is not None else None
            with closing(RobotSocket(settings.bind, keys)) as transport:
                Doorkeeper(link, transport, MonotonicClock()).serve()
        except GatortError as error:
            link.send(Packet(Kind.REFUSAL, str(error).encode()))
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
