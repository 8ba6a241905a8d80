"""The newest good picture of a camera, and the reason why it must not be shown.

The camera's side replaces one immutable record at a time; the loop reads. Neither waits for the
other.
"""

from __future__ import annotations

from collections import Counter

from gatort.runtime.clock import Clock
from gatort.runtime.errors import ObservationError, RobotError
from gatort.runtime.spec import ObservationKey

from .config import CameraConfig
from .frames import BadFrame, CameraFault, CameraPicture, CameraStatus


class PictureReader:
    """Reads one camera. A subclass brings the pictures."""

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
        """Number of bad frames and broken connections, by fault. The camera's side counts."""
        self.refused: Counter[CameraFault] = Counter()
        """Number of refused reads, by fault. The reader counts."""
        self.connections = 0
        """Number of times that the source was opened."""
        self._config = config
        self._clock = clock
        self.newest: CameraPicture | None = None
        """Newest good picture, fresh or not."""
        self.last_trouble: BadFrame | None = None
        """Last trouble since the newest good frame."""
        self.repeats = 0
        """Number of frames in a row that repeated the one before."""

    def read(self) -> CameraPicture:
        """Return the newest good picture.

        Raises:
            ObservationError: there is none that is fresh; names the camera and the fault.
        """
        picture = self.newest
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
        config, trouble = self._config, self.last_trouble
        if picture is None:
            return trouble or BadFrame(CameraFault.ABSENT, "expected a picture, found none yet")
        if trouble is not None and self.repeats >= config.repeats:
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

    def no_picture(self, seconds: float) -> RobotError:
        """Return the error for a first picture that did not come within `seconds`."""
        return RobotError(
            f"expected a picture from {self._config.address.shown} within {seconds:g} s; "
            f"{self.status.sentence}: check it with `gatort cameras`"
        )

    @property
    def status(self) -> CameraStatus:
        """Fault and counters now."""
        picture = self.newest
        fault, sentence = self.trouble(picture) or (None, "")
        return CameraStatus(
            fault=fault,
            sentence=sentence,
            frames=picture.sequence if picture is not None else 0,
            bad=dict(self.bad),
            refused=dict(self.refused),
            connections=self.connections,
        )
