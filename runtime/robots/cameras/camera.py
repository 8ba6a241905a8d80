"""A camera: a source read by a thread of its own, opened again after each loss."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread
from typing import Final

from gatort.runtime.clock import Clock
from gatort.runtime.spec import ObservationKey

from .config import CameraConfig
from .frames import (
    BadFrame,
    CameraFault,
    CameraPicture,
    CameraStatus,
    FrameSource,
    SourceEnded,
    SourceLost,
    VideoFrame,
)
from .intake import Intake
from .sources import make_source

FIRST_PICTURE_S: Final = 5.0
"""Longest wait for a camera's first good picture."""
FIRST_RETRY_S: Final = 0.1
"""Wait before a lost source is opened again. It doubles with each failure."""
LONGEST_RETRY_S: Final = 2.0
STALLED_NS: Final = 1_000_000_000
"""A source that gives no frame for this long is opened again."""
CLOSE_S: Final = 0.5
"""Longest wait for the thread at the end. A driver that blocks is left behind."""


class Camera:
    """One camera. `read` never waits: it returns the newest picture, or refuses."""

    def __init__(
        self,
        name: str,
        config: CameraConfig,
        clock: Clock,
        source: FrameSource | None = None,
        on_change: Callable[[Intake], None] | None = None,
    ) -> None:
        """Start reading. The pictures come later; see `wait`.

        Args:
            name: name of the camera.
            config: its source and limits.
            clock: clock of the stamps.
            source: source of the frames. By default the one that the configuration names.
            on_change: called in the camera's thread after each frame and each loss.

        Raises:
            MissingDependency: the package for the source is absent.
        """
        self.name = name
        self.config = config
        self.intake = Intake(name, config, clock)
        """Judgement of the frames, with all counters."""
        self._clock = clock
        self._source = source if source is not None else make_source(config, clock)
        self._on_change = on_change
        self._closed = Event()
        self._first = Event()
        # A daemon: a device driver that blocks for ever must not keep the process alive.
        self._thread = Thread(target=self._run, name=self.intake.key.name, daemon=True)
        self._thread.start()

    @property
    def key(self) -> ObservationKey:
        """Observation key of the pictures."""
        return self.intake.key

    @property
    def status(self) -> CameraStatus:
        """Fault and counters now."""
        return self.intake.status

    def wait(self, seconds: float = FIRST_PICTURE_S) -> None:
        """Wait for the first good picture.

        Raises:
            RobotError: none came in time; the sentence has the reason.
        """
        if not self._first.wait(seconds):
            raise self.intake.no_picture(seconds)

    def read(self) -> CameraPicture:
        """Return the newest good picture.

        Raises:
            ObservationError: there is none that is fresh; names the camera and the fault.
        """
        return self.intake.read()

    def close(self) -> None:
        """End the thread. A second call does nothing."""
        self._closed.set()
        self._thread.join(CLOSE_S)

    # -- The thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        retry_s = FIRST_RETRY_S
        while not self._closed.is_set():
            before = self.status.frames
            try:
                self._read_frames()
            except SourceEnded as end:
                self._judge(BadFrame(CameraFault.ENDED, str(end)))
                return
            except SourceLost as loss:
                self._judge(BadFrame(CameraFault.LOST, str(loss)))
            finally:
                self._source.close()
            retry_s = FIRST_RETRY_S if self.status.frames > before else retry_s
            self._closed.wait(retry_s)
            retry_s = min(2 * retry_s, LONGEST_RETRY_S)

    def _read_frames(self) -> None:
        """Read until the end of the camera or the loss of its source."""
        self._source.open()
        self.intake.connected()
        last_ns = self._clock.now_ns()
        while not self._closed.is_set():
            frames = self._source.read()
            now_ns = self._clock.now_ns()
            if frames:
                last_ns = now_ns
            elif now_ns - last_ns > STALLED_NS:
                raise SourceLost(
                    f"expected a frame within {STALLED_NS * 1e-9:g} s, found a stalled source"
                )
            for frame in frames:
                self._judge(frame)

    def _judge(self, frame: VideoFrame | BadFrame) -> None:
        if isinstance(frame, BadFrame):
            self.intake.refuse(frame)
        else:
            self.intake.take(frame)
        if self.intake.frame is not None:
            self._first.set()
        if self._on_change is not None:
            self._on_change(self.intake)
