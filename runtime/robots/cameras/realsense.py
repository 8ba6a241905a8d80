"""Colour frames of an Intel RealSense camera, through pyrealsense2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from gatort.runtime.clock import Clock
from gatort.runtime.errors import MissingDependency
from gatort.runtime.packages import install_hint

from .config import CameraConfig
from .frames import BadFrame, SourceLost, VideoFrame
from .opencv import digest_of

READ_TIMEOUT_MS: Final = 1_000
"""Longest wait for a frame."""


def import_realsense() -> Any:
    """Return the module pyrealsense2.

    Raises:
        MissingDependency: it is absent, or a library that it needs is.
    """
    try:
        import pyrealsense2
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"a RealSense camera needs pyrealsense2: {install_hint('pyrealsense2', 'cameras')}"
        ) from error
    except ImportError as error:
        raise MissingDependency(
            f"pyrealsense2 is installed but does not load ({error}): "
            "on Debian, apt-get install libusb-1.0-0"
        ) from error
    return pyrealsense2


def serial_numbers() -> list[str]:
    """Return the serial numbers of the connected cameras.

    Raises:
        MissingDependency: pyrealsense2 is absent or does not load.
    """
    realsense = import_realsense()
    return [
        device.get_info(realsense.camera_info.serial_number)
        for device in realsense.context().query_devices()
    ]


class RealSenseSource:
    """One RealSense camera, found by its serial number."""

    def __init__(self, config: CameraConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._realsense = import_realsense()
        self._pipeline: Any = None

    def open(self) -> None:
        """See `FrameSource.open`."""
        width, height = self._config.frame_size or (640, 480)
        wanted = self._realsense.config()
        wanted.enable_device(self._config.address.place)
        wanted.enable_stream(
            self._realsense.stream.color,
            width,
            height,
            self._realsense.format.bgr8,
            self._config.frame_hz,
        )
        pipeline = self._realsense.pipeline()
        try:
            pipeline.start(wanted)
        except RuntimeError as error:
            raise SourceLost(f"{self._config.address.shown}: {error}") from error
        self._pipeline = pipeline

    def read(self) -> Sequence[VideoFrame | BadFrame]:
        """See `FrameSource.read`."""
        try:
            frame = self._pipeline.wait_for_frames(READ_TIMEOUT_MS).get_color_frame()
        except RuntimeError as error:
            raise SourceLost(f"{self._config.address.shown}: {error}") from error
        arrived_ns = self._clock.now_ns()
        pixels = np.array(frame.get_data(), np.uint8)  # A copy: the library reuses its buffer.
        return [
            VideoFrame(pixels, digest_of(pixels), arrived_ns, round(frame.get_timestamp() * 1e6))
        ]

    def close(self) -> None:
        """See `FrameSource.close`."""
        if self._pipeline is not None:
            self._pipeline.stop()
            self._pipeline = None
