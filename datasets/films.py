"""Pictures in mp4 files, through PyAV: episodes one after another, one picture a tick."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, Final, Literal

import av
import numpy as np
from numpy.typing import NDArray

from gatort.runtime.errors import DemonstrationError
from gatort.runtime.wording import counted

from .columns import Column
from .files import open_own

Pictures = NDArray[np.uint8]
FilmQuality = Literal["lossless", "small"]
"""`lossless` keeps every pixel. `small` is lossy H.264 that browsers play."""

_ENCODINGS: Final = {
    # The coder of colours as they are: every pixel comes back, and no browser plays it.
    "lossless": ("libx264rgb", "rgb24", {"crf": "0", "preset": "veryfast", "g": "2"}),
    "small": ("libx264", "yuv420p", {"crf": "18", "preset": "veryfast", "g": "2"}),
}
"""Encoder, pixel format and options. Two pictures a group let a reader jump to any of them."""


class FilmWriter:
    """Writes the pictures of one camera into one file.

    Args:
        path: new file.
        hz: pictures per second.
        shape: (height, width, 3) of a picture.
        quality: way of coding.
    """

    def __init__(self, path: Path, hz: int, shape: tuple[int, ...], quality: FilmQuality) -> None:
        encoder, pixels, options = _ENCODINGS[quality]
        self.pictures = 0
        """Number of pictures written."""
        self._path = path
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        stream: Any = self._container.add_stream(encoder, rate=hz, options=options)
        stream.height, stream.width = shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.thread_count = 1  # The same bytes on every machine.
        self._stream = stream
        self._tick_s = Fraction(1, hz)

    @property
    def bytes(self) -> int:
        """Size of the file so far."""
        return self._path.stat().st_size

    def write(self, pictures: Pictures) -> None:
        """Append pictures (K, height, width, 3)."""
        for picture in pictures:
            frame: Any = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = self.pictures
            frame.time_base = self._tick_s
            self._container.mux(self._stream.encode(frame))
            self.pictures += 1

    def close(self) -> dict[str, Any]:
        """Finish the file, and return its entry in `meta/info.json`."""
        self._container.mux(self._stream.encode(None))
        context = self._stream.codec_context
        entry = {
            "video.height": context.height,
            "video.width": context.width,
            "video.codec": "h264",
            "video.pix_fmt": context.pix_fmt,
            "video.is_depth_map": False,
            "video.fps": int(context.framerate),
            "video.channels": 3,
            "has_audio": False,
        }
        self._container.close()
        return entry


class FilmReader:
    """Reads the pictures of one file in their order.

    Args:
        path: the file.
        column: feature that it holds, with the shape of a picture.
        hz: pictures per second.
    """

    def __init__(self, path: Path, column: Column, hz: float) -> None:
        self._path = path
        self._column = column
        self._hz = hz
        self._file: IO[bytes] = open_own(path, "a film")
        self._pictures = self._decode()

    def read(self, first: int, count: int) -> Pictures:
        """Return pictures (count, height, width, 3). Calls go forward in the file.

        Raises:
            DemonstrationError: the file is damaged, lacks some, or has pictures of another size.
        """
        pictures = np.empty((count, *self._column.shape), np.uint8)
        found = 0
        while found < count:
            index, picture = next(self._pictures, (None, None))
            if index is None or picture is None or index > first + found:
                raise DemonstrationError(
                    f"{self._path}: expected {counted(count, 'picture')} from number {first} on, "
                    f"at {self._hz:g} a second, found only {found}"
                )
            if index == first + found:
                pictures[found] = picture
                found += 1
        return pictures

    def close(self) -> None:
        """Close the file."""
        self._pictures.close()  # type: ignore[attr-defined]
        self._file.close()

    def _decode(self) -> Iterator[tuple[int, Pictures]]:
        """Yield each picture with its number, counted by its time."""
        height, width, _ = self._column.shape
        try:
            # The format is given, since some others name further files to open.
            with av.open(self._file, "r", format="mov") as container:
                if len(container.streams.video) != 1:
                    raise DemonstrationError(f"{self._path}: expected one film, found several")
                stream: Any = container.streams.video[0]
                found = (stream.codec_context.height, stream.codec_context.width)
                if found != (height, width):
                    raise DemonstrationError(
                        f"{self._path}: expected pictures of {width} × {height}, as meta/info.json "
                        f"says, found {found[1]} × {found[0]}"
                    )
                stream.codec_context.thread_count = 1
                for frame in container.decode(stream):
                    if (frame.height, frame.width) != (height, width) or frame.pts is None:
                        raise DemonstrationError(
                            f"{self._path}: expected pictures of one size, found others"
                        )
                    time_s = float(frame.pts * frame.time_base)
                    yield round(time_s * self._hz), frame.to_ndarray(format="rgb24")
        except (av.FFmpegError, ValueError, OSError) as error:
            raise DemonstrationError(
                f"{self._path}: expected a whole mp4 file, found one that cannot be read ({error})"
            ) from error


def resized(pictures: Pictures, height: int, width: int) -> Pictures:
    """Return pictures (K, height, width, 3) of another size, averaged over areas."""
    return np.stack(
        [
            av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            .reformat(width=width, height=height, interpolation="AREA")
            .to_ndarray(format="rgb24")
            for picture in pictures
        ]
    )
