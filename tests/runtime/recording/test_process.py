"""The writing process: when it syncs, and how much it keeps while its disk hangs."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from threading import Thread

import msgspec
import pytest
from tests.runtime.recording.conftest import MS, read_whole

from gatort.runtime.clock import VirtualClock
from gatort.runtime.recording import process
from gatort.runtime.recording.messages import (
    CHANNELS,
    RunRecord,
    StepMessage,
    json_schema,
    to_metadata,
)
from gatort.runtime.recording.process import (
    HEADER,
    ChannelRecord,
    MetadataRecord,
    Start,
    _File,
    _Packets,
    _receive,
    _write_packets,
)
from gatort.runtime.spec import PolicySpec


def start(path: Path, spec: PolicySpec, clock: VirtualClock) -> Start:
    channels = [
        ChannelRecord(topic, msgspec.Raw(msgspec.json.encode(json_schema(kind, spec))))
        for topic, kind in CHANNELS.items()
    ]
    run = RunRecord.of("scripted", spec, "", clock)
    return Start(str(path), channels, [MetadataRecord("run", to_metadata(run))])


def step_packet() -> bytes:
    data = msgspec.json.encode(StepMessage(state="run", values=[0.0]))
    return HEADER.pack(list(CHANNELS).index("/step"), 1, 0, len(data)) + data


def test_half_a_second_after_a_chunk_began_it_is_due_for_its_sync(
    path: Path, spec: PolicySpec, clock: VirtualClock
) -> None:
    with path.open("wb") as file:
        written = _File(file, start(path, spec, clock), clock)
        clock.advance_ns(499 * MS)
        assert written.left_s == pytest.approx(1e-3)
        clock.advance_ns(1 * MS)
        assert written.left_s == 0.0

        written.add(step_packet())
        written.sync()
        assert written.left_s == 0.5
        assert read_whole(path).counts == {"/step": 1}  # before the file has its end
        written.finish()


def test_a_chunk_that_is_due_is_synced_after_the_next_packet(
    path: Path, spec: PolicySpec, clock: VirtualClock
) -> None:
    packets = _Packets()
    packets.put(step_packet())
    packets.put(None)
    with path.open("wb") as file:
        written = _File(file, start(path, spec, clock), clock)
        clock.advance_ns(500 * MS)
        _write_packets(written, packets)
        assert read_whole(path).counts == {"/step": 1}
        written.finish()


def test_a_receiving_thread_that_fails_ends_the_writing_one() -> None:
    class NoMemory(_Packets):
        def put(self, packet: bytes | None) -> None:
            if packet is not None:
                raise MemoryError
            super().put(packet)

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    packets = NoMemory()
    with ours, theirs:
        ours.send(b"packet")
        with pytest.raises(MemoryError):
            _receive(theirs, packets)
    assert packets.get(0) is None


def test_a_disk_that_hangs_makes_the_sender_wait_before_it_uses_up_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "_MOST_WAITING_BYTES", 1 << 22)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    packets = _Packets()
    packet = bytes(1 << 16)
    receiver = Thread(target=_receive, args=(theirs, packets))
    most = (1 << 22) // len(packet) + 200  # The link holds fewer than 200 packets.
    sent = 0
    with theirs:
        with ours, suppress(TimeoutError):
            receiver.start()
            ours.settimeout(0.2)  # Nothing is written meanwhile.
            while sent < most:
                ours.send(packet)
                sent += 1

        received = 0
        while packets.get() is not None:
            received += 1
        receiver.join()
    assert received == sent < most
