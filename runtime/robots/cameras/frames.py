"""Frames of a source, pictures of a camera, and the faults of both.

BGR frames (height, width, 3) come from a source. A camera makes RGB pictures of the key's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.errors import RobotError
from gatort.runtime.spec import ObservationKey
from gatort.runtime.wording import counted


class CameraFault(StrEnum):
    """Fault of a camera, as its status names it."""

    ABSENT = "no picture yet"
    REPEATED = "frozen"
    SILENT = "silent"
    LATE = "late"
    TORN = "torn"
    WRONG_SIZE = "wrong size"
    TOO_LARGE = "too large"
    LOST = "source lost"
    ENDED = "source ended"


class SourceLost(RobotError):  # noqa: N818  # the name says the cause
    """The source gives no more frames until it is opened again."""


class SourceEnded(RobotError):  # noqa: N818  # the name says the cause
    """The source has come to its end, as a file does."""


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """One whole frame."""

    pixels: NDArray[np.uint8]
    """(height, width, 3) BGR; belongs to the frame."""
    digest: int
    """Checksum of the bytes as they came, which tells a repeated frame."""
    arrived_ns: int
    """Instant of its arrival on the camera's clock."""
    taken_ns: int | None = None
    """Instant at which the source says that it took the frame, on the source's own clock."""


@dataclass(frozen=True, slots=True)
class BadFrame:
    """A frame that must not be shown."""

    fault: CameraFault
    found: str
    """Clause for a sentence: the expected and the found value."""


class FrameSource(Protocol):
    """A device, file or stream. One thread calls its methods."""

    def open(self) -> None:
        """Connect.

        Raises:
            SourceLost: the source cannot be opened now.
        """
        ...

    def read(self) -> Sequence[VideoFrame | BadFrame]:
        """Wait a short time for frames. Return those that came, oldest first.

        Older good frames that a newer one replaces need not be returned.

        Raises:
            SourceLost: the source broke off.
            SourceEnded: no frame will follow.
        """
        ...

    def close(self) -> None:
        """Release the source, which may be opened again. A second call does nothing."""
        ...


@dataclass(frozen=True, slots=True)
class CameraPicture:
    """One picture for an observation."""

    pixels: NDArray[np.uint8]
    """(height, width, 3) RGB, as the key says."""
    stamp_ns: int
    """Instant at which the scene looked like this, as far as latency and lag tell."""
    arrived_ns: int
    """Instant at which the frame arrived."""
    sequence: int
    """Count of the camera's good frames."""


class PictureSource(Protocol):
    """A camera as the robot's observations see it."""

    @property
    def key(self) -> ObservationKey:
        """Observation key of the pictures."""
        ...

    @property
    def status(self) -> CameraStatus:
        """Fault and counters now."""
        ...

    def read(self) -> CameraPicture:
        """Return the newest good picture, without waiting.

        Raises:
            ObservationError: there is none that is fresh; names the camera and the fault.
        """
        ...

    def close(self) -> None:
        """Release the camera. A second call does nothing."""
        ...


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """A camera at one instant, with counters since it was started."""

    fault: CameraFault | None
    """Present fault; `None` for a camera that gives good pictures."""
    sentence: str
    """Sentence on the present fault; empty without one."""
    frames: int
    """Number of good frames."""
    bad: dict[CameraFault, int]
    """Number of bad frames and of broken connections, by fault."""
    refused: dict[CameraFault, int]
    """Number of reads that were refused, by fault."""
    connections: int
    """Number of times that the source was opened."""

    def __str__(self) -> str:
        faults = ", ".join(f"{count}× {fault}" for fault, count in self.bad.items())
        found = self.sentence.partition(": ")[2]  # Its camera is named before it.
        return (
            f"{found or 'good'}; {counted(self.frames, 'good frame')}, "
            f"opened {self.connections}×" + (f", {faults}" if faults else "")
        )
