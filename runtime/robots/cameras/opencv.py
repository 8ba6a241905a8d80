"""OpenCV, imported here alone. Decoding, resizing, devices, files and RTSP streams."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.clock import Clock
from gatort.runtime.errors import MissingDependency

from .config import CameraConfig, Crop
from .frames import BadFrame, CameraFault, SourceEnded, SourceLost, VideoFrame

# Their warnings repeat in other words what a camera's fault says.
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
try:
    import cv2 as cv2  # noqa: PLC0414  # other files import it from here
except ImportError as error:
    raise MissingDependency("real cameras need OpenCV: pip install 'gatort[cameras]'") from error

# A pool of threads for pictures this small would only take cores from the loop.
cv2.setNumThreads(1)

OPEN_TIMEOUT_MS: Final = 2_000
"""Longest time that a stream may take to open."""
READ_TIMEOUT_MS: Final = 1_000
"""Longest time that a stream may take for a frame."""
FILE_HZ: Final = 25.0
"""Rate of a file that states none."""
_PICTURES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp"})


def shrink(
    pixels: NDArray[np.uint8], crop: Crop | None, height: int, width: int
) -> NDArray[np.uint8]:
    """Return the kept part of a BGR frame as an RGB picture (height, width, 3).

    Each pixel of the picture is the mean of the area that it covers.
    """
    kept = kept_part(pixels, crop, width / height)
    picture: Any = cv2.resize(kept, (width, height), interpolation=cv2.INTER_AREA)
    rgb: NDArray[np.uint8] = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    return rgb


def kept_part(pixels: NDArray[np.uint8], crop: Crop | None, proportion: float) -> NDArray[np.uint8]:
    """Return the cropped frame: `crop`, or the centre with a width of `proportion` heights."""
    left, top, width, height = crop or centre(pixels.shape[1], pixels.shape[0], proportion)
    return pixels[top : top + height, left : left + width]


def centre(width: int, height: int, proportion: float) -> Crop:
    """Return the largest centred part of a frame whose width is `proportion` times its height."""
    kept_width = min(width, max(1, round(height * proportion)))
    kept_height = min(height, max(1, round(width / proportion)))
    return Crop((width - kept_width) // 2, (height - kept_height) // 2, kept_width, kept_height)


def decode_jpeg(data: bytes) -> NDArray[np.uint8] | BadFrame:
    """Return the BGR pixels (height, width, 3) of a JPEG, or its fault."""
    pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        return BadFrame(CameraFault.TORN, "expected a JPEG, found bytes that OpenCV cannot decode")
    decoded: NDArray[np.uint8] = pixels
    return decoded


def read_picture(file: Path) -> NDArray[np.uint8] | None:
    """Return the BGR pixels (height, width, 3) of a picture file, or `None` if there is none."""
    read: Any = cv2.imread(str(file), cv2.IMREAD_COLOR)
    pixels: NDArray[np.uint8] | None = read
    return pixels


def encode(pixels: NDArray[np.uint8], suffix: str) -> bytes:
    """Return BGR pixels (height, width, 3) as the bytes of a file such as `.jpg` or `.png`."""
    _, data = cv2.imencode(suffix, pixels)
    return data.tobytes()


class VideoSource:
    """A V4L2 device or an RTSP stream. `read` blocks until the next frame or a time limit."""

    def __init__(self, config: CameraConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._capture: Any = None

    def open(self) -> None:
        """See `FrameSource.open`."""
        address = self._config.address
        if address.kind == "v4l2":
            self._capture = cv2.VideoCapture(address.place, cv2.CAP_V4L2, self._device_options())
        else:
            limits = [
                *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS),
                *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_TIMEOUT_MS),
            ]
            self._capture = cv2.VideoCapture(address.place, cv2.CAP_FFMPEG, limits)
        if not self._capture.isOpened():
            raise SourceLost(f"expected frames from {address.shown}, found that it does not open")

    def _device_options(self) -> list[int]:
        """Ask for MJPEG, which keeps several cameras on one USB bus at full rate."""
        width, height = self._config.frame_size or (640, 480)
        return [
            *(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")),
            *(cv2.CAP_PROP_FRAME_WIDTH, width),
            *(cv2.CAP_PROP_FRAME_HEIGHT, height),
            *(cv2.CAP_PROP_FPS, self._config.frame_hz),
            *(cv2.CAP_PROP_BUFFERSIZE, 1),
        ]

    def read(self) -> Sequence[VideoFrame | BadFrame]:
        """See `FrameSource.read`."""
        whole, pixels = self._capture.read()
        arrived_ns = self._clock.now_ns()
        if not whole:
            raise SourceLost(
                f"expected a frame from {self._config.address.shown}, found that it broke off"
            )
        taken_ms = self._capture.get(cv2.CAP_PROP_POS_MSEC)
        taken_ns = round(taken_ms * 1e6) if taken_ms > 0 else None
        return [VideoFrame(pixels, digest_of(pixels), arrived_ns, taken_ns)]

    def close(self) -> None:
        """See `FrameSource.close`."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None


class FileSource:
    """A film or a still picture, played at its frame rate on the clock."""

    def __init__(self, config: CameraConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._still: NDArray[np.uint8] | None = None
        self._film: Any = None
        self._hz = FILE_HZ
        self._began_ns = 0
        self._shown = 0
        self._read_frames = 0

    def open(self) -> None:
        """See `FrameSource.open`."""
        file = self._config.file
        if not file.is_file():  # OpenCV would wait for a pipe.
            raise SourceEnded(f"expected a film or a picture, found none in {file}")
        if file.suffix.lower() in _PICTURES:
            self._still = read_picture(file)
            self._hz = float(self._config.frame_hz)
        else:
            self._rewind()
            self._hz = self._film.get(cv2.CAP_PROP_FPS) or FILE_HZ
        if self._still is None and not (self._film is not None and self._film.isOpened()):
            raise SourceEnded(f"expected a film or a picture, found none in {file}")
        self._began_ns = self._clock.now_ns()
        self._shown = 0

    def _rewind(self) -> None:
        self._film = cv2.VideoCapture(str(self._config.file), cv2.CAP_FFMPEG)
        self._read_frames = 0

    def read(self) -> Sequence[VideoFrame | BadFrame]:
        """See `FrameSource.read`. Wait for the instant of the next frame."""
        self._clock.sleep_until_ns(self._began_ns + round(self._shown * 1e9 / self._hz))
        pixels = self._next()
        self._shown += 1
        # A still picture cannot freeze, so each showing counts as new.
        digest = self._shown if self._still is not None else digest_of(pixels)
        return [VideoFrame(pixels, digest, self._clock.now_ns())]

    def _next(self) -> NDArray[np.uint8]:
        if self._still is not None:
            return self._still
        whole, pixels = self._film.read()
        if not whole and self._config.loop and self._read_frames:
            self._rewind()
            whole, pixels = self._film.read()
        if not whole:
            raise SourceEnded(f"expected a frame, found the end of {self._config.file}")
        self._read_frames += 1
        decoded: NDArray[np.uint8] = pixels
        return decoded

    def close(self) -> None:
        """See `FrameSource.close`."""
        if self._film is not None:
            self._film.release()
            self._film = None


def digest_of(pixels: NDArray[np.uint8]) -> int:
    """Return the checksum of a frame. Two frames in a row with the same one are the same."""
    return zlib.crc32(np.ascontiguousarray(pixels).data)
