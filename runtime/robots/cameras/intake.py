"""Judgement of each frame of a camera, before anyone reads its picture."""

from __future__ import annotations

from collections import deque
from typing import Final

from gatort.runtime.clock import Clock

from .config import CameraConfig
from .frames import BadFrame, CameraFault, CameraPicture, VideoFrame
from .opencv import shrink
from .reader import PictureReader

KEPT_ARRIVALS: Final = 1_024
"""Number of newest arrivals that are kept for statistics."""
CLOCK_DRIFT: Final = 1e-4
"""Largest difference in pace between a source's clock and this one.

Crystals keep within 50 ppm each. A delay of 100 ms that comes to stay is noticed for 17 minutes.
"""


class Intake(PictureReader):
    """Judges the frames of one camera. Makes no threads, so a virtual clock can drive it."""

    def __init__(self, name: str, config: CameraConfig, clock: Clock) -> None:
        super().__init__(name, config, clock)
        self.arrivals: deque[tuple[int, int]] = deque(maxlen=KEPT_ARRIVALS)
        """Instant of arrival and stamp of the newest good frames, in ns."""
        self.frame: VideoFrame | None = None
        """Newest good frame in full size."""
        self._frame_size = config.frame_size
        self._shortest_ns: int | None = None
        """Smallest difference of arrival and `taken_ns` in this connection."""

    def connected(self) -> None:
        """Begin a connection. The source's clock may have begun anew."""
        self.connections += 1
        self._shortest_ns = None

    def refuse(self, bad: BadFrame) -> None:
        """Count a bad frame, or a source that was lost."""
        self.bad[bad.fault] += 1
        self.last_trouble = bad

    def take(self, frame: VideoFrame) -> None:
        """Show a frame, unless it is a repeat or has the wrong size."""
        bad = self._judge(frame)
        if bad is not None:
            self.refuse(bad)
            return
        last = self.newest
        stamp_ns = frame.arrived_ns - self._config.latency_ns - self._lag_ns(frame)
        pixels = shrink(
            frame.pixels, self._config.crop, self._config.height_px, self._config.width_px
        )
        self.frame = frame
        self.arrivals.append((frame.arrived_ns, stamp_ns))
        self.newest = CameraPicture(
            pixels, stamp_ns, frame.arrived_ns, last.sequence + 1 if last is not None else 1
        )
        self.last_trouble = None

    def _judge(self, frame: VideoFrame) -> BadFrame | None:
        height, width = frame.pixels.shape[:2]
        self._frame_size = self._frame_size or (width, height)
        if (width, height) != self._frame_size:
            return BadFrame(
                CameraFault.WRONG_SIZE,
                f"expected frames of {_size(*self._frame_size)}, found {_size(width, height)}",
            )
        crop = self._config.crop
        if crop is not None and (crop.left + crop.width > width or crop.top + crop.height > height):
            return BadFrame(
                CameraFault.WRONG_SIZE,
                f"expected a frame that holds the crop {tuple(crop)}, "
                f"found one of {_size(width, height)}",
            )
        repeated = self.frame is not None and frame.digest == self.frame.digest
        self.repeats = self.repeats + 1 if repeated else 0
        if repeated:
            times = self.repeats
            return BadFrame(
                CameraFault.REPEATED,
                f"expected a new frame, found the same one {times + 1} times in a row",
            )
        return None

    def _lag_ns(self, frame: VideoFrame) -> int:
        """Return the delay of a frame beyond the shortest one of this connection."""
        if frame.taken_ns is None:
            return 0
        delay_ns = frame.arrived_ns - frame.taken_ns
        if self._shortest_ns is None:
            shortest_ns = delay_ns
        else:
            since_ns = frame.arrived_ns - self.arrivals[-1][0] if self.arrivals else 0
            shortest_ns = min(delay_ns, self._shortest_ns + round(since_ns * CLOCK_DRIFT))
        self._shortest_ns = shortest_ns
        return delay_ns - shortest_ns


def _size(width: int, height: int) -> str:
    return f"{width}×{height}"
