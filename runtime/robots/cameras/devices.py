"""Cameras that are connected to this computer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gatort.runtime.errors import MissingDependency

from .realsense import serial_numbers

VIDEO_DEVICES: Final = Path("/sys/class/video4linux")
"""Folder in which Linux lists video devices."""


@dataclass(frozen=True, slots=True)
class CameraDevice:
    """One source of frames that may be opened."""

    source: str
    """Source for a launch profile."""
    name: str
    """Name that the device gives itself."""


def list_devices(folder: Path = VIDEO_DEVICES) -> list[CameraDevice]:
    """Return the cameras of this computer: V4L2 devices, then RealSense cameras.

    A USB camera has a second device for metadata, with index 1. It is left out.
    """
    devices = [
        CameraDevice(f"v4l2:/dev/{entry.name}", _read(entry / "name"))
        for entry in sorted(folder.glob("video*"))
        if _read(entry / "index") in ("0", "")
    ]
    try:
        serials = serial_numbers()
    except MissingDependency:
        serials = []
    return devices + [CameraDevice(f"realsense:{serial}", "RealSense") for serial in serials]


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
