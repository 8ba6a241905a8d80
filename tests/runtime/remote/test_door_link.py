from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from gatort.runtime.clock import VirtualClock
from gatort.runtime.errors import WireError
from gatort.runtime.remote.door_link import PART_BYTES, DoorLink, Kind, Packet
from gatort.runtime.remote.door_process import BURST_FRAMES, FRAMES_PER_S, RateLimit
from gatort.runtime.remote.transport import Connection
from gatort.runtime.remote.wire import LARGEST_ANSWER_BYTES

CONTROLLER = Connection(b"\x00abcd", 7)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield ours, theirs
    ours.close()
    theirs.close()


def joined(ends: tuple[socket.socket, socket.socket]) -> tuple[DoorLink, DoorLink]:
    return DoorLink(ends[0], takes_parts=False), DoorLink(ends[1], takes_parts=True)


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, PART_BYTES + 1, LARGEST_ANSWER_BYTES])
def test_a_frame_of_any_size_arrives_whole(
    ends: tuple[socket.socket, socket.socket], size: int
) -> None:
    arm, door = joined(ends)
    frame = os.urandom(size)
    assert arm.send(Packet(Kind.ANSWER, frame, CONTROLLER))
    arrived = None
    while arrived is None:  # The kernel holds only a part of a long frame at a time.
        arrived = door.receive()
        arm.flush()
    assert arrived == Packet(Kind.ANSWER, frame, CONTROLLER)
    assert not arm.is_full


def test_an_end_that_nobody_reads_takes_a_bounded_number_of_packets(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    arm, _ = joined(ends)
    packet = Packet(Kind.ANSWER, bytes(PART_BYTES), CONTROLLER)
    taken = [arm.send(packet) for _ in range(1_000)]
    assert taken[0]
    assert not taken[-1]
    assert sum(taken) * PART_BYTES < 4 * LARGEST_ANSWER_BYTES


def test_a_packet_that_was_lost_or_repeated_is_noticed(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    arm, raw = DoorLink(ends[0], takes_parts=True), ends[1]
    arm.send(Packet(Kind.ANSWER, b"one"))
    packet = raw.recv(PART_BYTES)
    raw.send(packet)
    raw.send(packet)
    assert arm.receive() == Packet(Kind.ANSWER, b"one")
    with pytest.raises(WireError, match="expected packet 1, found 0"):
        arm.receive()


@pytest.mark.parametrize("packet", [b"x", b"\xff" * 11, b"\x00" * 40])
def test_bytes_that_are_no_packet_are_refused(
    ends: tuple[socket.socket, socket.socket], packet: bytes
) -> None:
    arm, raw = DoorLink(ends[0], takes_parts=True), ends[1]
    raw.send(packet)
    with pytest.raises(WireError, match="expected a packet of the door"):
        arm.receive()


def test_the_end_of_the_other_process_ends_the_link(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    arm, raw = DoorLink(ends[0], takes_parts=True), ends[1]
    raw.close()
    with pytest.raises(EOFError):
        arm.receive()


def test_a_connection_that_floods_has_its_rate_and_others_keep_theirs() -> None:
    clock = VirtualClock()
    rate = RateLimit(clock)
    assert sum(rate.admits(7) for _ in range(10 * BURST_FRAMES)) == BURST_FRAMES
    assert rate.admits(8)
    for _ in range(100):
        clock.advance_ns(10_000_000)
        assert sum(rate.admits(7) for _ in range(100)) == FRAMES_PER_S // 100


def test_the_arms_process_takes_no_frame_in_parts(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    arm, door = joined(ends)
    door.send(Packet(Kind.REQUEST, bytes(PART_BYTES + 1), CONTROLLER))
    with pytest.raises(WireError, match="expected a whole frame"):
        arm.receive()
