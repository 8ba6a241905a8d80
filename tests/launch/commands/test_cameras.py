"""`gatort cameras`: lists, measures, compares with the scene, and writes a launch profile."""

from __future__ import annotations

import json
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gatort.launch import cli
from gatort.launch.options import RunOptions, resolve
from gatort.sim.graphics import choose_gl

pytest.importorskip("mujoco")
pytest.importorskip("cv2")

from gatort.runtime.robots.cameras.board import Board
from gatort.runtime.robots.cameras.calibration import CameraLens
from gatort.runtime.robots.cameras.devices import CameraDevice, list_devices
from gatort.runtime.robots.cameras.opencv import cv2
from gatort.runtime.robots.cameras.placement import draw_board

HEIGHT, WIDTH = 480, 640
FINER = 4
"""Each pixel of a photograph is the mean of this many squared."""
SECONDS = ["--seconds", "0.5"]


@pytest.fixture(autouse=True)
def in_an_empty_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def write_live(path: Path, picture: NDArray[np.uint8]) -> str:
    cv2.imwrite(str(path), picture)
    return f"front=file:{path}"


@pytest.fixture
def live(tmp_path: Path) -> str:
    picture = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    return write_live(tmp_path / "live.png", picture)


def test_without_a_device_it_says_how_to_name_a_stream(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatort.launch.commands.cameras.list_devices", list)
    assert cli.main(["cameras"]) == 0
    assert "--source front=http://HOST/stream" in " ".join(capsys.readouterr().out.split())


def test_devices_are_listed_without_their_metadata_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyrealsense2", None)
    for node, index in (("video0", "0"), ("video1", "1"), ("video2", "0")):
        (tmp_path / node).mkdir()
        (tmp_path / node / "name").write_text(f"Camera {node}\n")
        (tmp_path / node / "index").write_text(f"{index}\n")
    assert list_devices(tmp_path) == [
        CameraDevice("v4l2:/dev/video0", "Camera video0"),
        CameraDevice("v4l2:/dev/video2", "Camera video2"),
    ]


def test_a_source_is_measured_and_written_as_a_launch_profile(
    live: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*SECONDS, "--json", "c.json", "--write", "cell.toml"]
    # A pause of the machine may refuse a picture, so the exit status is 0 or 1.
    assert cli.main(["cameras", "--source", live, *flags]) in (0, 1)
    assert "640×480" in capsys.readouterr().out
    measured = json.loads((tmp_path / "c.json").read_text())["cameras"]["front"]
    assert measured["frame_size"] == [WIDTH, HEIGHT]
    assert measured["rate_hz"] > 1
    camera = resolve(RunOptions, None, tmp_path / "cell.toml").cameras["front"]
    assert camera.source == live.removeprefix("front=")
    assert camera.frame_size == (WIDTH, HEIGHT)

    assert cli.main(["cameras", "--profile", "cell.toml", *SECONDS, "--write", "cell.toml"]) == 2
    assert "expected a new file, found one that would be lost" in capsys.readouterr().err


@pytest.mark.skipif(choose_gl() is None, reason="no GL library draws")
def test_the_placement_of_a_camera_at_the_scenes_own_place_has_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gatort.sim.camera_view import simulated_view

    view = simulated_view("stacking", "front", HEIGHT, HEIGHT)
    # Frames are wider than the picture. The kept centre has the field of view of the scene.
    matrix = CameraLens.pinhole(WIDTH, HEIGHT, view.fovy_rad).matrix
    board = Board(columns=5, rows=4, square_m=0.06, marker_m=0.045)
    drawn = draw_board(board)
    middle = np.array(drawn.shape[::-1]) / 2
    paper = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * drawn.shape[::-1] - 0.5
    metres = (paper + 0.5 - middle) * (1, -1) * (board.square_m / 120)
    seen = (board.in_world(metres) - view.pose.position_m) @ view.pose.rotation @ matrix.T
    pixels = (seen[:, :2] / seen[:, 2:] + 0.5) * FINER - 0.5
    warp = cv2.getPerspectiveTransform(paper.astype(np.float32), pixels.astype(np.float32))
    size = (WIDTH * FINER, HEIGHT * FINER)
    fine = cv2.warpPerspective(drawn, warp, size, flags=cv2.INTER_AREA, borderValue=(200,))
    photograph = cv2.resize(fine, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    source = write_live(tmp_path / "live.png", cv2.cvtColor(photograph, cv2.COLOR_GRAY2BGR))

    shape = ["--board.columns", "5", "--board.rows", "4"]
    lengths = ["--board.square-m", "0.06", "--board.marker-m", "0.045"]
    joints = ["--joints", *["0", "-0.4", "0", "-2.3", "0", "1.9", "0.785"]]
    files = ["--picture", "p.png", "--json", "c.json"]
    flags = [*shape, *lengths, *joints, *files, *SECONDS]
    assert cli.main(["cameras", "--source", source, *flags]) in (0, 1)

    placement = json.loads((tmp_path / "c.json").read_text())["cameras"]["front"]["placement"]
    # 12 corners with an error of 0.1 px leave about 3 mm over a metre.
    assert np.linalg.norm(placement["offset_m"]) < 0.01
    assert placement["angle_rad"] < np.radians(0.5)
    assert "from the scene's camera" in " ".join(capsys.readouterr().out.split())
    picture = cv2.imread("p.png")
    assert picture.shape == (HEIGHT, 3 * HEIGHT, 3)
    overlay = picture[:, 2 * HEIGHT :]
    assert 500 < (overlay == (255, 0, 255)).all(axis=2).sum() < 50_000


@pytest.mark.skipif(choose_gl() is None, reason="no GL library draws")
def test_a_picture_without_a_board_is_still_compared(
    live: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["cameras", "--source", live, "--picture", "p.png", *SECONDS]) in (0, 1)
    assert "no placement: expected a ChArUco board" in " ".join(capsys.readouterr().out.split())


def test_a_board_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    before = os.umask(0o022)
    try:
        assert cli.main(["cameras", "--print-board", "board.png"]) == 0
    finally:
        os.umask(before)
    assert capsys.readouterr().out == "board: board.png\n"
    assert Path("board.png").stat().st_mode & 0o777 == 0o644
    assert cv2.imread("board.png", cv2.IMREAD_GRAYSCALE).shape == (600, 840)


@pytest.mark.parametrize(
    ("flags", "pixels_per_m"),
    [([], 3_000), (["--board.kind", "apriltag", "--board.marker-m", "0.16"], 7_500)],
)
def test_a_printed_board_says_its_size_to_the_printer(flags: list[str], pixels_per_m: int) -> None:
    assert cli.main(["cameras", "--print-board", "board.png", *flags]) == 0
    content = Path("board.png").read_bytes()
    place = content.index(b"pHYs") + 4
    across, up, unit = struct.unpack(">IIB", content[place : place + 9])
    assert (across, up, unit) == (pixels_per_m, pixels_per_m, 1)
    assert place < content.index(b"IDAT")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--source", "front"], "expected a source such as"),
        (
            ["--source", "Front=file:a.png"],
            "--source Front=file:a.png: expected a name of small letters",
        ),
        (
            ["--source", "a=file:a.png", "--source", "a=file:b.png", "--print-board", "b.png"],
            "--source a=file:b.png: expected each name once, found 'a' again",
        ),
        (
            ["--source", "a=file:a.png", "--picture", "p.png", "--task", "nix"],
            "expected a task, one of",
        ),
        (["--source", "front=file:a.png", "--picture", "a.jpg"], "ends in .png, found a.jpg"),
        (
            ["--source", "front=file:/no.png"],
            "camera front: expected a film or a picture at /no.png",
        ),
    ],
)
def test_a_wrong_flag_is_refused_with_a_sentence(
    flags: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gatort.runtime.robots.cameras.camera.Camera.wait.__defaults__", (0.2,))
    assert cli.main(["cameras", *flags]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not Path("b.png").exists()


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("v4l2:/dev/absent", "camera x: expected a V4L2 device at /dev/absent, found none"),
        ("file:absent.png", "camera x: expected a film or a picture at absent.png, found none"),
    ],
)
def test_an_absent_device_or_file_is_refused_before_any_camera_is_started(
    source: str,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("gatort.launch.commands.cameras.Camera", None)  # It must not be called.
    assert cli.main(["cameras", "--source", f"x={source}"]) == 2
    assert capsys.readouterr().err.startswith(f"gatort: {sentence}")
