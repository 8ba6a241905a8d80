"""A camera in a process of its own: its pictures, its faults and its end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.waiting import becomes

from gatort.faults.mjpeg_server import MjpegServer
from gatort.runtime.clock import MonotonicClock
from gatort.runtime.errors import ObservationError, RobotError
from gatort.runtime.robots.cameras.config import CameraConfig
from gatort.runtime.robots.cameras.frames import CameraFault
from gatort.runtime.robots.cameras.process import CameraProcess, CameraReport, ReportSlot

WITHIN_S = 30


@pytest.fixture
def camera(server: MjpegServer) -> Iterator[CameraProcess]:
    config = CameraConfig(source=server.url, silence_ms=400.0, age_limit_ms=500.0)
    camera = CameraProcess("front", config, MonotonicClock())
    camera.wait(WITHIN_S)
    yield camera
    camera.close()


def test_pictures_come_from_the_process_in_rgb(camera: CameraProcess) -> None:
    first = camera.read()
    assert first.pixels.shape == camera.key.shape
    # JPEG rounds colours by a few steps; the frames are blue, with little green.
    assert abs(first.pixels[:, :, 2].mean() - 200) < 10
    assert becomes(lambda: camera.read().sequence > first.sequence + 3, WITHIN_S)
    assert camera.read().stamp_ns > first.stamp_ns


def test_a_fault_is_named_and_over_when_the_stream_is_well(
    server: MjpegServer, camera: CameraProcess
) -> None:
    server.fault = "tear"
    assert becomes(lambda: camera.status.fault is CameraFault.TORN, WITHIN_S)
    with pytest.raises(ObservationError, match="torn: expected"):
        camera.read()
    assert camera.status.bad[CameraFault.TORN] > 1
    server.fault = "none"
    assert becomes(lambda: camera.status.fault is None, WITHIN_S)


def test_the_process_has_a_readable_name(camera: CameraProcess) -> None:
    assert Path(f"/proc/{camera._process.pid}/comm").read_text() == "gatort-camera\n"


def test_a_process_that_ends_is_a_lost_source(camera: CameraProcess) -> None:
    camera._process.kill()
    assert becomes(lambda: camera.status.fault is CameraFault.LOST, WITHIN_S)
    with pytest.raises(ObservationError, match="running process of the camera, found it ended"):
        camera.read()


def test_the_process_ends_with_the_camera_which_then_refuses(camera: CameraProcess) -> None:
    camera.close()
    camera.close()
    assert camera._process.returncode == 0
    assert camera.status.frames > 0
    assert becomes(lambda: camera.status.fault is CameraFault.SILENT, WITHIN_S)


def test_the_reason_for_no_picture_comes_from_the_process(tmp_path: Path) -> None:
    config = CameraConfig(source=f"file:{tmp_path}/absent.png")
    camera = CameraProcess("front", config, MonotonicClock())
    with pytest.raises(RobotError, match=r"camera/front: expected a film or a picture, found none"):
        camera.wait(3.0)
    camera.close()


def test_a_report_that_is_being_written_is_not_taken() -> None:
    descriptor = os.memfd_create("slot")
    slot = ReportSlot(descriptor, CameraConfig(source="file:a.png"))
    assert slot.read() is None
    pixels = np.full((64, 64, 3), 7, np.uint8).tobytes()
    report = CameraReport(3, 1, 2, pixels, ("torn", "expected a whole JPEG"), 0, {"torn": 1}, 1)
    slot.write(report)
    assert slot.read() == report
    os.pwrite(descriptor, b"\x08", 1_000)  # A byte of the next picture.
    assert slot.read() is None
    slot.close()
    os.close(descriptor)
