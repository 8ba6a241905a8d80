"""A camera on a real stream over HTTP whose server repeats, tears, stalls, dies and comes back.

The tests assert states and counts that must come true within whole seconds, and no times.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import numpy as np
import pytest
from tests.waiting import becomes

from gatort.faults.mjpeg_server import MjpegServer, StreamFault
from gatort.runtime.clock import MonotonicClock
from gatort.runtime.errors import ObservationError, RobotError
from gatort.runtime.robots.cameras.camera import Camera
from gatort.runtime.robots.cameras.config import CameraConfig
from gatort.runtime.robots.cameras.frames import CameraFault

WITHIN_S = 10
PATIENT = {"silence_ms": 400.0, "age_limit_ms": 500.0}
"""Limits that a pause of a busy machine does not reach."""


@pytest.fixture
def camera(server: MjpegServer) -> Iterator[Camera]:
    camera = Camera("front", CameraConfig(source=server.url, **PATIENT), MonotonicClock())
    camera.wait(WITHIN_S)
    yield camera
    camera.close()


def test_a_picture_has_the_keys_shape_in_rgb(camera: Camera) -> None:
    picture = camera.read().pixels
    assert picture.shape == camera.key.shape == (64, 64, 3)
    assert picture.dtype == np.uint8
    red, green, blue = picture.reshape(-1, 3).mean(axis=0)
    # JPEG rounds colours by a few steps; the frames are blue, with little green.
    assert abs(blue - 200) < 10
    assert abs(green - 60) < 10
    assert red < 110


def test_pictures_follow_each_other(camera: Camera) -> None:
    first = camera.read()
    assert becomes(lambda: camera.status.frames > first.sequence + 3, WITHIN_S)
    assert camera.read().stamp_ns > first.stamp_ns


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ("repeat", CameraFault.REPEATED),
        ("tear", CameraFault.TORN),
        ("wrong_size", CameraFault.WRONG_SIZE),
        ("too_large", CameraFault.TOO_LARGE),
        ("stall", CameraFault.SILENT),
        ("die", CameraFault.LOST),
    ],
)
def test_a_fault_of_the_stream_is_named_refused_and_over_when_the_stream_is_well(
    server: MjpegServer, camera: Camera, fault: StreamFault, named: CameraFault
) -> None:
    server.fault = fault
    assert becomes(lambda: camera.status.fault is named, WITHIN_S), camera.status
    with pytest.raises(ObservationError, match="camera/front: expected"):
        camera.read()
    assert camera.status.refused[named] == 1

    shown = camera.status.frames
    server.fault = "none"
    assert becomes(lambda: camera.status.frames > shown and camera.status.fault is None, WITHIN_S)
    camera.read()


def test_a_stalled_stream_is_opened_again(server: MjpegServer, camera: Camera) -> None:
    server.fault = "stall"
    assert becomes(lambda: camera.status.connections >= 2, WITHIN_S)
    assert camera.status.bad[CameraFault.LOST] >= 1


def test_late_frames_are_refused(server: MjpegServer) -> None:
    config = CameraConfig(source=server.url, silence_ms=400.0, age_limit_ms=150.0)
    camera = Camera("front", config, MonotonicClock())
    camera.wait(WITHIN_S)
    server.fault = "late"
    assert becomes(lambda: camera.status.fault is CameraFault.LATE, WITHIN_S)
    camera.close()


def test_a_server_that_accepts_and_says_nothing_blocks_no_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        camera = Camera("front", CameraConfig(source=url), MonotonicClock())
        with pytest.raises(RobotError, match=r"expected a picture from http://127\.0\.0\.1"):
            camera.wait(0.1)
        camera.close()


def test_a_refused_connection_is_said_with_its_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    camera = Camera("front", CameraConfig(source=f"http://127.0.0.1:{port}/"), MonotonicClock())
    assert becomes(lambda: camera.status.bad.get(CameraFault.LOST, 0) >= 2, WITHIN_S)
    assert "Connection refused" in camera.status.sentence
    camera.close()
