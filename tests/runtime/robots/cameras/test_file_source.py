"""Films and still pictures, written here and decoded for real, on a virtual clock."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gatort.runtime.clock import VirtualClock
from gatort.runtime.robots.cameras.camera import Camera
from gatort.runtime.robots.cameras.config import CameraConfig
from gatort.runtime.robots.cameras.frames import SourceEnded, VideoFrame
from gatort.runtime.robots.cameras.intake import Intake
from gatort.runtime.robots.cameras.opencv import FileSource, encode, shrink

from .conftest import numbered_frame

HZ = 20
FRAMES = 6
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
MJPEG = ("-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj420p")


def write_film(path: Path, codec: tuple[str, ...]) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    raw = b"".join(numbered_frame(4 * number).tobytes() for number in range(FRAMES))
    shape = ("-f", "rawvideo", "-pix_fmt", "bgr24", "-s", "160x120", "-r", str(HZ))
    program = imageio_ffmpeg.get_ffmpeg_exe()
    command = [program, "-v", "error", "-y", *shape, "-i", "-", *codec, str(path)]
    subprocess.run(command, input=raw, check=True)


@pytest.fixture(params=["clip.mp4", "clip.avi"])
def film(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    write_film(path, H264 if path.suffix == ".mp4" else MJPEG)
    return path


def read_all(source: FileSource, most: int = 100) -> list[VideoFrame]:
    frames: list[VideoFrame] = []
    try:
        while len(frames) < most:
            frames += [frame for frame in source.read() if isinstance(frame, VideoFrame)]
    except SourceEnded:
        pass
    return frames


def test_a_film_plays_at_its_rate_on_the_clock_and_ends(film: Path, clock: VirtualClock) -> None:
    source = FileSource(CameraConfig(source=f"file:{film}"), clock)
    source.open()
    frames = read_all(source)
    source.close()
    assert np.diff([frame.arrived_ns for frame in frames]).tolist() == [10**9 // HZ] * (FRAMES - 1)
    reds = [float(frame.pixels[:, :, 2].mean()) for frame in frames]
    # Both codecs move a colour by a few steps of 256; the frames are 32 steps apart.
    assert np.abs(np.array(reds) - 32.0 * np.arange(FRAMES)).max() < 12


def test_a_film_without_a_container_is_read_too(tmp_path: Path, clock: VirtualClock) -> None:
    path = tmp_path / "clip.mjpeg"
    write_film(path, (*MJPEG, "-f", "mjpeg"))
    source = FileSource(CameraConfig(source=f"file:{path}"), clock)
    source.open()
    assert len(read_all(source)) == FRAMES


def test_a_film_in_a_loop_begins_again(film: Path, clock: VirtualClock) -> None:
    source = FileSource(CameraConfig(source=f"file:{film}", loop=True), clock)
    source.open()
    digests = [frame.digest for frame in read_all(source, 2 * FRAMES)]
    source.close()
    assert digests[:FRAMES] == digests[FRAMES:]


def test_a_still_picture_is_shown_again_and_again_without_being_frozen(
    tmp_path: Path, clock: VirtualClock
) -> None:
    path = tmp_path / "still.png"
    path.write_bytes(encode(numbered_frame(7), ".png"))
    config = CameraConfig(source=f"file:{path}")
    source = FileSource(config, clock)
    source.open()
    intake = Intake("front", config, clock)
    for frame in read_all(source, 5):
        intake.take(frame)
    assert intake.read().sequence == 5
    assert intake.bad.total() == 0


def test_the_end_of_a_film_is_the_end_of_the_camera(film: Path, clock: VirtualClock) -> None:
    camera = Camera("front", CameraConfig(source=f"file:{film}"), clock)
    camera._thread.join(10.0)
    assert "found the end of" in str(camera.intake.last_trouble)
    assert camera.status.frames == FRAMES
    camera.close()


def test_a_file_that_is_not_there_is_named(tmp_path: Path, clock: VirtualClock) -> None:
    source = FileSource(CameraConfig(source=f"file:{tmp_path}/absent.png"), clock)
    with pytest.raises(SourceEnded, match=r"found none in .*absent\.png"):
        source.open()


def test_the_centre_of_a_frame_is_kept_and_each_pixel_is_the_mean_of_its_area() -> None:
    frame = np.zeros((128, 256, 3), np.uint8)
    frame[:, :64] = frame[:, 192:] = 255  # Left and right of the centred square.
    frame[::2, 64:192, 0] = 100  # Blue rows that alternate with black ones.
    picture = shrink(frame, None, 64, 64)
    assert picture.shape == (64, 64, 3)
    assert np.unique(picture[:, :, 2]).tolist() == [50]
    assert not picture[:, :, :2].any()


def test_a_given_crop_is_kept() -> None:
    frame = np.zeros((100, 100, 3), np.uint8)
    frame[20:52, 10:42, 2] = 250
    config = CameraConfig(source="file:a.png", crop=(10, 20, 32, 32))
    assert (shrink(frame, config.crop, 16, 16)[:, :, 0] == 250).all()


def test_a_pipe_is_no_film_and_is_not_waited_for(tmp_path: Path, clock: VirtualClock) -> None:
    os.mkfifo(tmp_path / "film.mp4")
    source = FileSource(CameraConfig(source=f"file:{tmp_path}/film.mp4"), clock)
    with pytest.raises(SourceEnded, match=r"found none in .*film\.mp4"):
        source.open()
