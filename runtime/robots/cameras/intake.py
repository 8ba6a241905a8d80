"""Judgement of each frame, and the newest good picture.

The camera's thread brings frames; the loop reads. Each hands over one immutable record at a time,
so neither waits for the other.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Final

from gatort.runtime.clock import Clock
from gatort.runtime.errors import ObservationError
from gatort.runtime.spec import ObservationKey

from .config import CameraConfig
from .frames import BadFrame, CameraFault, CameraPicture, CameraStatus, VideoFrame
from .opencv import shrink

KEPT_ARRIVALS: Final = 1_024
"""Number of newest arrivals that are kept for statistics."""
CLOCK_DRIFT: Final = 1e-4
"""Largest difference in pace between a source's clock and this one.

Crystals keep within 50 ppm each. A delay of 100 ms that comes to stay is noticed for 17 minutes.
"""


class Intake:
    """Judges the frames of one camera. Makes no threads, so a virtual clock can drive it."""

    def __init__(self, name: str, config: CameraConfig, clock: Clock) -> None:
        self.key = ObservationKey(
            name=f"camera/{name}",
            shape=(config.height_px, config.width_px, 3),
            dtype="uint8",
            unit="1",
            encoding="image",
        )
        """Observation key of the pictures."""
        self.bad: Counter[CameraFault] = Counter()
        """Number of bad frames and broken connections, by fault. The camera's thread counts."""
        self.refused: Counter[CameraFault] = Counter()
        """Number of refused reads, by fault. The reader counts."""
        self.connections = 0
        """Number of times that the source was opened."""
        self.arrivals: deque[tuple[int, int]] = deque(maxlen=KEPT_ARRIVALS)
        """Instant of arrival and stamp of the newest good frames, in ns."""
        self.frame: VideoFrame | None = None
        """Newest good frame in full size."""
        self._config = config
        self._clock = clock
        self._frame_size = config.frame_size
        self._newest: CameraPicture | None = None
        self._trouble: BadFrame | None = None
        """Last trouble since the newest good frame."""
        self._repeats = 0
        self._shortest_ns: int | None = None
        """Smallest difference of arrival and `taken_ns` in this connection."""

    # -- The camera's thread -------------------------------------------------------------------

    def connected(self) -> None:
        """Begin a connection. The source's clock may have begun anew."""
        self.connections += 1
        self._shortest_ns = None

    def refuse(self, bad: BadFrame) -> None:
        """Count a bad frame, or a source that was lost."""
        self.bad[bad.fault] += 1
        self._trouble = bad

    def take(self, frame: VideoFrame) -> None:
        """Show a frame, unless it is a repeat or has the wrong size."""
        bad = self._judge(frame)
        if bad is not None:
            self.refuse(bad)
            return
        last = self._newest
        stamp_ns = frame.arrived_ns - self._config.latency_ns - self._lag_ns(frame)
        pixels = shrink(
            frame.pixels, self._config.crop, self._config.height_px, self._config.width_px
        )
        self.frame = frame
        self.arrivals.append((frame.arrived_ns, stamp_ns))
        self._newest = CameraPicture(
            pixels, stamp_ns, frame.arrived_ns, last.sequence + 1 if last is not None else 1
        )
        self._trouble = None

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
        self._repeats = self._repeats + 1 if repeated else 0
        if repeated:
            times = self._repeats
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

    # -- The reader ----------------------------------------------------------------------------

    def read(self) -> CameraPicture:
        """Return the newest good picture.

        Raises:
            ObservationError: there is none that is fresh; names the camera and the fault.
        """
        picture = self._newest
        trouble = self.trouble(picture)
        if trouble is not None or picture is None:
            fault, sentence = trouble or (CameraFault.ABSENT, "")
            self.refused[fault] += 1
            raise ObservationError(sentence)
        return picture

    def trouble(self, picture: CameraPicture | None) -> tuple[CameraFault, str] | None:
        """Return the fault that keeps `picture` from being shown, with a sentence."""
        found = self._find(picture)
        return (found.fault, f"{self.key.name}: {found.found}") if found is not None else None

    def _find(self, picture: CameraPicture | None) -> BadFrame | None:
        config, trouble = self._config, self._trouble
        if picture is None:
            return trouble or BadFrame(CameraFault.ABSENT, "expected a picture, found none yet")
        if trouble is not None and self._repeats >= config.repeats:
            return trouble

        now_ns = self._clock.now_ns()
        silent_ns = now_ns - picture.arrived_ns
        if silent_ns > config.silence_ns:
            fault = trouble.fault if trouble is not None else CameraFault.SILENT
            cause = f" ({fault}: {trouble.found})" if trouble is not None else ""
            return BadFrame(
                fault,
                f"expected a good frame in the last {config.silence_ms:g} ms, "
                f"found none for {silent_ns * 1e-6:.0f} ms{cause}",
            )
        age_ns = now_ns - picture.stamp_ns
        if age_ns > config.age_limit_ns:
            return BadFrame(
                CameraFault.LATE,
                f"expected a picture of the last {config.age_limit_ms:g} ms, "
                f"found one {age_ns * 1e-6:.0f} ms old",
            )
        return None

    @property
    def status(self) -> CameraStatus:
        """Fault and counters now."""
        picture = self._newest
        fault, sentence = self.trouble(picture) or (None, "")
        return CameraStatus(
            fault=fault,
            sentence=sentence,
            frames=picture.sequence if picture is not None else 0,
            bad=dict(self.bad),
            refused=dict(self.refused),
            connections=self.connections,
        )


def _size(width: int, height: int) -> str:
    return f"{width}×{height}"
