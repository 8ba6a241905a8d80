"""The source that a camera's configuration names."""

from __future__ import annotations

from gatort.runtime.clock import Clock

from .config import CameraConfig
from .frames import FrameSource
from .mjpeg import HttpSource
from .opencv import FileSource, VideoSource
from .realsense import RealSenseSource


def make_source(config: CameraConfig, clock: Clock) -> FrameSource:
    """Make the source of a camera. It is not opened yet.

    Raises:
        MissingDependency: the package for the source is absent.
    """
    match config.address.kind:
        case "file":
            return FileSource(config, clock)
        case "http":
            return HttpSource(config, clock)
        case "realsense":
            return RealSenseSource(config, clock)
        case "v4l2" | "rtsp":
            return VideoSource(config, clock)
