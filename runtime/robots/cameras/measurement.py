"""Measurement of a running camera: rate, age, gaps and faults over a few seconds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gatort.runtime.clock import Clock
from gatort.runtime.durations import Percentiles
from gatort.runtime.errors import ObservationError

from .camera import Camera
from .frames import CameraStatus

READ_NS = 50_000_000
"""Time between two reads: a tick at 20 Hz."""


@dataclass(frozen=True, slots=True)
class CameraMeasurement:
    """One camera over a few seconds."""

    frame_size: tuple[int, int] | None
    """Width and height of the source's frames; `None` without a frame."""
    rate_hz: float
    """Number of good frames per second."""
    gaps: Percentiles
    """Times between two good frames."""
    ages: Percentiles
    """Ages of the pictures that were read at 20 Hz."""
    refused: int
    """Number of reads at 20 Hz that were refused."""
    status: CameraStatus
    """Status and counters at the end."""


def measure(camera: Camera, clock: Clock, seconds: float) -> CameraMeasurement:
    """Read a camera as a control loop does.

    Args:
        camera: running camera.
        clock: clock of the camera.
        seconds: duration.
    """
    began_ns = clock.now_ns()
    ages_ns: list[int] = []
    refused = 0
    for tick in range(1, max(1, round(seconds * 1e9 / READ_NS)) + 1):
        clock.sleep_until_ns(began_ns + tick * READ_NS)
        try:
            ages_ns.append(clock.now_ns() - camera.read().stamp_ns)
        except ObservationError:
            refused += 1

    arrivals_ns = np.array([at for at, _ in list(camera.intake.arrivals)], np.int64)
    arrivals_ns = arrivals_ns[arrivals_ns >= began_ns]
    gaps_ns = np.diff(arrivals_ns)
    frame = camera.intake.frame
    height, width = frame.pixels.shape[:2] if frame is not None else (0, 0)
    return CameraMeasurement(
        frame_size=(width, height) if frame is not None else None,
        rate_hz=1e9 / float(gaps_ns.mean()) if len(gaps_ns) else 0.0,
        gaps=Percentiles.of_ns(gaps_ns),
        ages=Percentiles.of_ns(np.array(ages_ns, np.int64)),
        refused=refused,
        status=camera.status,
    )
