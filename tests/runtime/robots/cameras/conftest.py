"""Numbered frames, and a stream of them on this machine."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from gatort.runtime.clock import MonotonicClock, VirtualClock

pytest.importorskip("cv2")

from gatort.faults.mjpeg_server import MjpegServer
from gatort.runtime.robots.cameras.opencv import encode

MS = 1_000_000


def numbered_frame(number: int, width: int = 160, height: int = 120) -> NDArray[np.uint8]:
    """A blue frame (height, width, 3) BGR whose red grows with its number."""
    frame = np.full((height, width, 3), (200, 60, 0), np.uint8)
    frame[:, :, 2] = 8 * (number % 30)
    return frame


@pytest.fixture(scope="session")
def jpegs() -> list[bytes]:
    return [encode(numbered_frame(number), ".jpg") for number in range(12)]


@pytest.fixture
def server(jpegs: list[bytes]) -> Iterator[MjpegServer]:
    other = encode(numbered_frame(0, 320, 240), ".jpg")
    with MjpegServer(jpegs, other, MonotonicClock()) as made:
        yield made


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(5_000 * MS)
