"""A camera in a process of its own: its decoding never takes Python's lock from an arm's loop.

The process writes each report over the one before, in memory that both share. The reader copies it
and checks its CRC, so a report that is being written is never taken, and nobody waits.

    python -m gatort.runtime.robots.cameras.process NAME DESCRIPTOR CONFIGURATION
"""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
import sys
import zlib
from collections import Counter
from typing import Final

import msgspec
import numpy as np

from gatort.runtime.clock import Clock, MonotonicClock
from gatort.runtime.errors import GatortError
from gatort.runtime.process_name import name_process

from .config import CameraConfig
from .frames import BadFrame, CameraFault, CameraPicture, CameraStatus
from .reader import PictureReader

FIRST_PICTURE_S: Final = 10.0
"""Longest wait for the first good picture: the process starts in 1 s, a stream in a few."""
LOOK_NS: Final = 10_000_000
"""Time between two looks for the first picture."""
CLOSE_S: Final = 5.0
"""Longest wait for the end of the process, which is then killed."""
OTHER_BYTES: Final = 65_536
"""Room in a report beside the picture."""
_HEADER: Final = struct.Struct("<II")
"""Number of bytes of the report, and their CRC."""


class CameraReport(msgspec.Struct, frozen=True):
    """State of a camera, from its process to its reader."""

    sequence: int
    """Count of good frames; 0 before the first."""
    stamp_ns: int
    """Stamp of the newest picture."""
    arrived_ns: int
    """Instant at which its frame arrived."""
    pixels: bytes
    """Newest picture, RGB, row by row."""
    trouble: tuple[str, str] | None
    """Fault since the newest picture, and its clause."""
    repeats: int
    """Number of frames in a row that repeated the one before."""
    bad: dict[str, int]
    """Number of bad frames, by fault."""
    connections: int
    """Number of times that the source was opened."""


class ReportSlot:
    """Shared memory with the newest report of one camera."""

    def __init__(self, descriptor: int, config: CameraConfig) -> None:
        """Map the memory behind a file descriptor."""
        size = _HEADER.size + OTHER_BYTES + config.height_px * config.width_px * 3
        if os.fstat(descriptor).st_size < size:
            os.ftruncate(descriptor, size)
        self._memory = mmap.mmap(descriptor, size)

    def write(self, report: CameraReport) -> None:
        """Replace the report."""
        data = msgspec.msgpack.encode(report)
        self._memory[: _HEADER.size + len(data)] = _HEADER.pack(len(data), zlib.crc32(data)) + data

    def read(self) -> CameraReport | None:
        """Return the report, or `None` while one is being written."""
        length, crc = _HEADER.unpack(self._memory[: _HEADER.size])
        data = self._memory[_HEADER.size : _HEADER.size + length]
        if not length or zlib.crc32(data) != crc:
            return None
        return msgspec.msgpack.decode(data, type=CameraReport)

    def close(self) -> None:
        """Unmap the memory. A second call does nothing."""
        self._memory.close()


class CameraProcess(PictureReader):
    """A camera as the loop's process sees it. `read` never waits."""

    def __init__(self, name: str, config: CameraConfig, clock: Clock) -> None:
        """Start the process. The pictures come later; see `wait`.

        Args:
            name: name of the camera.
            config: its source and limits.
            clock: the monotonic clock, which all processes of a machine share.
        """
        super().__init__(name, config, clock)
        descriptor = os.memfd_create(self.key.name)
        self._slot = ReportSlot(descriptor, config)
        # A session of its own: Ctrl-C at the terminal is for the arm's process alone.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, name, str(descriptor), config.model_dump_json()],
            stdin=subprocess.PIPE,
            pass_fds=(descriptor,),
            start_new_session=True,
        )
        os.close(descriptor)
        self._closed = False

    def wait(self, seconds: float = FIRST_PICTURE_S) -> None:
        """Wait for the first good picture.

        Raises:
            RobotError: none came in time; the sentence has the reason.
        """
        until_ns = self._clock.now_ns() + round(seconds * 1e9)
        while not self.status.frames:
            if self._clock.now_ns() >= until_ns or self._process.poll() is not None:
                raise self.no_picture(seconds)
            self._clock.sleep_until_ns(self._clock.now_ns() + LOOK_NS)

    def read(self) -> CameraPicture:
        """See `PictureSource.read`."""
        self._take_report()
        return super().read()

    @property
    def status(self) -> CameraStatus:
        """Fault and counters now."""
        self._take_report()
        return super().status

    def close(self) -> None:
        """End the process. A second call does nothing."""
        if self._closed:
            return
        self._take_report()  # The counters stay readable.
        self._closed = True
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._slot.close()

    def _take_report(self) -> None:
        if self._closed:
            return
        report = self._slot.read()
        if report is not None:
            self._take(report)
        if self.last_trouble is None and self._process.poll() is not None:
            self.last_trouble = BadFrame(
                CameraFault.LOST, "expected a running process of the camera, found it ended"
            )

    def _take(self, report: CameraReport) -> None:
        if report.sequence and (self.newest is None or report.sequence != self.newest.sequence):
            pixels = np.frombuffer(report.pixels, np.uint8).reshape(self.key.shape)
            self.newest = CameraPicture(pixels, report.stamp_ns, report.arrived_ns, report.sequence)
        self.repeats = report.repeats
        self.connections = report.connections
        self.bad = Counter({CameraFault(fault): count for fault, count in report.bad.items()})
        self.last_trouble = (
            BadFrame(CameraFault(report.trouble[0]), report.trouble[1])
            if report.trouble is not None
            else None
        )


def report_of(reader: PictureReader) -> CameraReport:
    """Return the state of a camera in this process as a report."""
    picture, trouble = reader.newest, reader.last_trouble
    return CameraReport(
        sequence=picture.sequence if picture is not None else 0,
        stamp_ns=picture.stamp_ns if picture is not None else 0,
        arrived_ns=picture.arrived_ns if picture is not None else 0,
        pixels=picture.pixels.tobytes() if picture is not None else b"",
        trouble=(trouble.fault, trouble.found) if trouble is not None else None,
        repeats=reader.repeats,
        bad={str(fault): count for fault, count in reader.bad.items()},
        connections=reader.connections,
    )


def main() -> None:
    """Read one camera until the other process closes this one's input."""
    name, descriptor, text = sys.argv[1:]
    name_process("camera")
    config = CameraConfig.model_validate_json(text)
    slot = ReportSlot(int(descriptor), config)
    clock = MonotonicClock()
    try:
        from .camera import Camera

        camera = Camera(name, config, clock, on_change=lambda intake: slot.write(report_of(intake)))
    except GatortError as error:
        absent = PictureReader(name, config, clock)
        absent.last_trouble = BadFrame(CameraFault.LOST, str(error))
        slot.write(report_of(absent))
        return
    sys.stdin.buffer.read()
    camera.close()


if __name__ == "__main__":
    main()
