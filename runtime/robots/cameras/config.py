"""Configuration of one camera: a `[cameras.NAME]` table of a launch profile."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    field_validator,
)
from pydantic_core import PydanticCustomError

from gatort.runtime.errors import RobotError
from gatort.runtime.invalid_values import said
from gatort.runtime.spec import PATCH_PIXELS, Strict

SourceKind = Literal["v4l2", "file", "http", "rtsp", "realsense"]
KINDS: Final[tuple[SourceKind, ...]] = get_args(SourceKind)
EXAMPLES: Final = (
    "v4l2:/dev/video0, file:clip.mp4, http://HOST/stream, rtsp://HOST/stream, realsense:SERIAL"
)
_STREAMS: Final = ("http", "rtsp")


def _valid_name(name: str) -> str:
    if re.fullmatch(r"[a-z][a-z0-9_]*", name) is None:
        raise PydanticCustomError(
            "camera_name", "expected a name of small letters, digits and _, a letter first"
        )
    return name


CameraName = Annotated[str, AfterValidator(_valid_name)]
"""Name of a camera; its observation key is `camera/NAME`."""


class SourceAddress(NamedTuple):
    """Parsed address of a source of frames."""

    kind: SourceKind
    place: str
    """Device, file or serial number; the whole URL of a stream."""

    @property
    def shown(self) -> str:
        """Address for messages, without a password."""
        if self.kind not in _STREAMS:
            return f"{self.kind}:{self.place}"
        url = urlsplit(self.place)
        return url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()


def parse_source(text: str) -> SourceAddress:
    """Parse the address of a source.

    Raises:
        PydanticCustomError: the text names no kind of source, or no place.
    """
    kind, _, place = text.partition(":")
    found = next((known for known in KINDS if known == kind), None)
    hosted = found not in _STREAMS or bool(urlsplit(text).hostname)
    if found is None or not place or not hosted:
        raise PydanticCustomError(
            "source", "expected a source such as {examples}", {"examples": EXAMPLES}
        )
    return SourceAddress(found, text if found in _STREAMS else place)


def _valid_source(text: str) -> str:
    parse_source(text)
    return text


def _whole_patches(side_px: int) -> int:
    if side_px % PATCH_PIXELS:
        raise PydanticCustomError(
            "patches", "expected a multiple of {patch} pixels", {"patch": PATCH_PIXELS}
        )
    return side_px


Side = Annotated[PositiveInt, Field(le=1024), AfterValidator(_whole_patches)]


class Crop(NamedTuple):
    """Part of a frame that is kept, in the frame's pixels."""

    left: NonNegativeInt
    top: NonNegativeInt
    width: PositiveInt
    height: PositiveInt


FrameSize = Annotated[
    tuple[PositiveInt, PositiveInt],
    said("expected width and height in pixels, such as [1280, 720]"),
]
"""Width and height of a frame."""


class CameraConfig(Strict):
    """One camera."""

    source: Annotated[str, AfterValidator(_valid_source)]
    """Source of the frames: v4l2:/dev/video0, file:PATH, http://…, rtsp://… or realsense:SERIAL."""
    height_px: Side = 64
    """Height of the picture in an observation."""
    width_px: Side = 64
    """Width of the picture in an observation."""
    frame_size: FrameSize | None = None
    """Width and height of the source's frames. The first frame sets them by default."""
    frame_hz: Annotated[PositiveInt, Field(le=240)] = 30
    """VideoFrame rate asked of a device, and the rate of a still picture."""
    crop: Crop | None = None
    """Left, top, width and height of the kept part. Default: the largest centred part with the
    picture's proportions."""
    latency_ms: Annotated[FiniteFloat, Field(ge=0, le=500)] = 30.0
    """Time from the light to the arrival of a frame. The default is one frame at 30 Hz."""
    age_limit_ms: Annotated[FiniteFloat, Field(gt=0, le=500)] = 120.0
    """Oldest picture that is taken for an observation.

    60 ms of latency, 33 ms between two frames and 27 ms of jitter.
    """
    silence_ms: Annotated[FiniteFloat, Field(gt=0, le=500)] = 75.0
    """Longest time without a good frame. At 30 Hz one frame may be missing, but not two."""
    repeats: PositiveInt = 2
    """Number of frames in a row, equal byte for byte to the one before, at which the camera counts
    as frozen."""
    largest_bytes: Annotated[PositiveInt, Field(le=64_000_000)] = 4_000_000
    """Largest compressed frame of a stream."""
    loop: bool = False
    """Play a file again after its end."""

    @property
    def address(self) -> SourceAddress:
        """Parsed source."""
        return parse_source(self.source)

    @property
    def latency_ns(self) -> int:
        """`latency_ms` in nanoseconds."""
        return round(self.latency_ms * 1e6)

    @property
    def age_limit_ns(self) -> int:
        """`age_limit_ms` in nanoseconds."""
        return round(self.age_limit_ms * 1e6)

    @property
    def silence_ns(self) -> int:
        """`silence_ms` in nanoseconds."""
        return round(self.silence_ms * 1e6)

    @property
    def file(self) -> Path:
        """Path of a file source."""
        place = Path(self.address.place)
        return place.expanduser() if self.address.place.startswith("~/") else place


class CamerasProfile(Strict):
    """A launch profile with cameras alone, for `gatort robot --cameras`."""

    cameras: dict[CameraName, CameraConfig] = Field(default_factory=dict, validate_default=True)
    """Cameras by name."""

    @field_validator("cameras")
    @classmethod
    def _require_one(cls, cameras: dict[str, CameraConfig]) -> dict[str, CameraConfig]:
        if not cameras:
            raise ValueError("expected a table [cameras.NAME], found none; add one")
        return cameras


def require_source(name: str, config: CameraConfig) -> None:
    """Check that the device or the file of a camera exists.

    Raises:
        RobotError: it does not.
    """
    if config.address.kind == "v4l2" and not Path(config.address.place).exists():
        raise RobotError(
            f"camera {name}: expected a V4L2 device at {config.address.place}, found none; "
            "`gatort cameras` lists those that are connected"
        )
    if config.address.kind == "file" and not config.file.exists():
        raise RobotError(
            f"camera {name}: expected a film or a picture at {config.file}, found none; "
            "name another file"
        )
