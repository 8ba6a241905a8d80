"""`gatort poses` and `gatort calibrate`: a profile becomes tags, calibrations and poses."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from tests.sim.test_sensing import JOINTS_ONLY
from tests.waiting import becomes

from gatort.launch import cli
from gatort.sim.graphics import choose_gl

pytest.importorskip("mujoco")
pytest.importorskip("cv2")
pytest.importorskip("scipy")
if choose_gl() is None:
    pytest.skip("no GL library draws", allow_module_level=True)

from gatort.faults.mjpeg_server import MjpegServer
from gatort.launch.commands.calibrate import _collect as collect
from gatort.launch.commands.poses import _table as show_table
from gatort.launch.tag_options import PosesOptions
from gatort.launch.toml_text import toml_text
from gatort.policies.loading import PolicyOptions, load_policy
from gatort.runtime.clock import MonotonicClock, VirtualClock
from gatort.runtime.errors import ObservationError
from gatort.runtime.remote.door import Door
from gatort.runtime.remote.door_link import DoorSettings
from gatort.runtime.remote.server import RobotServer
from gatort.runtime.robot import Observation, Robot
from gatort.runtime.robots.cameras.board import Board
from gatort.runtime.robots.cameras.calibration import CameraCalibration
from gatort.runtime.robots.cameras.config import CameraConfig
from gatort.runtime.robots.cameras.opencv import cv2, encode
from gatort.runtime.robots.cameras.placement import draw_board
from gatort.runtime.robots.panda import ARM_ALONE
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.robots.sensors.sockets import Subscription
from gatort.runtime.robots.tags.stream import MeasuredFrame, PoseStream
from gatort.sim.make import make_robot
from gatort.sim.sensing import with_sensor
from gatort.sim.simulators.mujoco import MujocoSimulator
from gatort.sim.simulators.simulator import Cube
from gatort.sim.tagged_scene import TaggedScene, tagged
from gatort.sim.tasks.stacking.task import Stacking

TASK = Stacking()
LAYOUT = TASK.layout(900_210)
TAGS = tagged(LAYOUT.cubes)
ADDRESS = "tcp://127.0.0.1:0"
LATENCY_MS = 40.0


@pytest.fixture(scope="module")
def scene() -> Iterator[TaggedScene]:
    made = TaggedScene(TASK.scene, TAGS)
    yield made
    made.close()


def photographed(scene: TaggedScene, *cubes: Cube) -> list[bytes]:
    """Return JPEGs of the scene's front camera that differ in one pixel."""
    simulator = MujocoSimulator(TASK.scene)
    simulator.place_arm(np.array(LAYOUT.joints_rad))
    simulator.place_cubes(cubes)
    picture = scene.draw("front", simulator.positions)[..., ::-1].copy()
    frames = []
    for number in range(8):
        picture[0, 0] = 30 * number
        frames.append(encode(picture, ".jpg"))
    return frames


@pytest.fixture(scope="module")
def frames(scene: TaggedScene) -> list[bytes]:
    return photographed(scene, *LAYOUT.cubes)


@pytest.fixture
def server(frames: list[bytes]) -> Iterator[MjpegServer]:
    """A network camera. A test may change the list of frames that it serves."""
    with MjpegServer(list(frames), frames[0], MonotonicClock()) as made:
        yield made


@pytest.fixture(autouse=True)
def in_an_empty_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def write_profile(source: str, cubes: bool = True, **camera: float) -> None:
    tables = {
        "cameras": {"front": {"source": source} | camera},
        "calibrations": {"front": "front.json"},
        "cubes": {name: cube.model_dump() for name, cube in TAGS.items()} if cubes else {},
    }
    text = "\n".join(toml_text(table, name) for name, table in tables.items() if table)
    Path("cell.toml").write_text(text)


def test_poses_of_a_network_camera_are_published_and_shown(
    server: MjpegServer, scene: TaggedScene, capsys: pytest.CaptureFixture[str]
) -> None:
    write_profile(server.url)
    Path("front.json").write_text(scene.calibration("front").text)
    flags = ["--profile", "cell.toml", "--address", ADDRESS, "--seconds", "5"]
    assert cli.main(["poses", *flags]) == 0
    shown = capsys.readouterr().out
    for cube in LAYOUT.cubes:
        row = next(line for line in reversed(shown.splitlines()) if cube.name in line)
        place = [float(cell) for cell in row.split("│")[2:5]]
        np.testing.assert_allclose(place, cube.position, atol=0.004)


@pytest.fixture
def publishing(
    server: MjpegServer, scene: TaggedScene, tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`gatort poses` in a process of its own, whose camera has a latency, and its address."""
    write_profile(server.url, latency_ms=LATENCY_MS, age_limit_ms=500.0)
    Path("front.json").write_text(scene.calibration("front").text)
    printed = tmp_path / "printed.txt"
    command = [sys.executable, "-m", "gatort", "poses", "--profile", "cell.toml"]
    with printed.open("wb") as file:
        process = subprocess.Popen([*command, "--address", ADDRESS], stdout=file, stderr=file)
    try:
        assert becomes(
            lambda: b"gatort run --sensor" in printed.read_bytes() or process.poll() is not None, 60
        )
        found = re.search(r"publishing at (\S+):", printed.read_text())
        assert found is not None, printed.read_text()
        yield process, found[1]
    finally:
        process.kill()
        process.wait()


def test_a_policy_gets_the_keys_of_a_live_stream_until_the_oldest_pose_is_too_old(
    publishing: tuple[subprocess.Popen[bytes], str], server: MjpegServer, scene: TaggedScene
) -> None:
    process, address = publishing
    clock = MonotonicClock()
    policy = load_policy(PolicyOptions(threads=1))
    arm = make_robot("mujoco", TASK, clock, JOINTS_ONLY, 900_210)
    sensor = Subscription(address, clock)
    with (
        closing(sensor),
        closing(with_sensor(arm, address, policy, None, clock)) as robot,
    ):
        names = [key.name for key in robot.interface.observations]
        values = eventually_observed(robot).values
        seen = dict(zip(names, values, strict=True))
        red, blue = (np.array(cube.position) for cube in LAYOUT.cubes[:2])
        np.testing.assert_allclose(seen["blocks/blue_from_red"], blue - red, atol=0.006)

        sensor.wait()
        readings = dict(sensor.update())
        # Each pose has the stamp of its light, and not that of its arrival.
        for name in ("pose/red", "pose/blue"):
            assert clock.now_ns() - readings[name].stamp_ns >= LATENCY_MS * 1e6

        # Red leaves the sight. Blue's poses and the messages stay fresh.
        away = replace(LAYOUT.cubes[0], position=(-2.0, 0.0, 0.025))
        server_frames(server)[:] = photographed(scene, away, *LAYOUT.cubes[1:])
        unseen = r"pose/red: expected .* in 3 s, found it unseen for \d+\.\d s"
        assert becomes(lambda: re.search(unseen, refusal(robot)) is not None, 60)
        later_ns = readings["pose/blue"].stamp_ns + 10**9
        assert becomes(lambda: sensor.update()["pose/blue"].stamp_ns > later_ns, 60)

        server_frames(server)[:] = photographed(scene, *LAYOUT.cubes)
        eventually_observed(robot)
        process.kill()
        silent = "expected a message of the last 200 ms"
        assert becomes(lambda: silent in refusal(robot), 60)


def server_frames(server: MjpegServer) -> list[bytes]:
    frames = server._frames
    assert isinstance(frames, list)
    return frames


def refusal(robot: Robot) -> str:
    """Observe. Return why the observation is refused; empty if it is not."""
    try:
        robot.observe()
    except ObservationError as error:
        return str(error)
    return ""


def eventually_observed(robot: Robot) -> Observation:
    """Return an observation. A busy machine may let a message come too late."""
    seen: list[Observation] = []

    def observe() -> bool:
        with suppress(ObservationError):
            seen.append(robot.observe())
        return bool(seen)

    assert becomes(observe, 60)
    return seen[0]


def test_the_table_says_why_the_tags_of_a_cube_tell_no_pose() -> None:
    unfit = "1 tag seen, 2 are needed"
    assert f"red: {unfit}" in shown_table({"red": unfit}, [])


def shown_table(unfit: dict[str, str], troubles: list[str]) -> str:
    cubes = {name: cube.model_dump() for name, cube in TAGS.items()}
    options = PosesOptions.model_validate({"cubes": cubes})
    console = Console(width=80, file=(shown := io.StringIO()))
    console.print(show_table(MeasuredFrame("front", [], unfit, 60.0), options, {}, 7, troubles))
    return shown.getvalue()


def test_a_camera_that_falls_silent_is_named_below_the_table(
    server: MjpegServer, scene: TaggedScene
) -> None:
    config = CameraConfig(source=server.url, age_limit_ms=500.0, silence_ms=500.0)
    calibrations = {"front": scene.calibration("front")}
    stream = PoseStream(TAGS, {"front": config}, calibrations, ADDRESS, MonotonicClock())
    with closing(stream):
        stream.cameras[0].wait(60)
        assert becomes(lambda: not stream.troubles, 60)
        server.fault = "stall"
        assert becomes(lambda: bool(stream.troubles), 60)
        assert stream.troubles[0].startswith("camera/front: expected a ")
    assert "camera/front: silent" in shown_table({}, ["camera/front: silent"])


def test_a_camera_that_is_not_calibrated_is_refused_with_the_remedy(
    server: MjpegServer, scene: TaggedScene, capsys: pytest.CaptureFixture[str]
) -> None:
    write_profile(server.url)
    lens_alone = CameraCalibration(lens=scene.calibration("front").lens)
    Path("front.json").write_text(lens_alone.text)
    assert cli.main(["poses", "--profile", "cell.toml", "--address", ADDRESS]) == 2
    assert "gatort calibrate front --place" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("edge_m = 0.05", "edge_m = 50", "edge_m: expected a length in m, at most 0.5, such as"),
        ("edge_m = 0.05", 'edge_m = "5 cm"', "such as 0.05 for 50 mm, found '5 cm'"),
        ("loop = true", "frame_size = 640", "frame_size: expected width and height in pixels, su"),
        ("loop = true", "frame_size = [1280]", "such as [1280, 720], found [1280]"),
    ],
)
def test_a_length_or_a_frames_size_in_another_form_is_refused_with_an_example(
    before: str, after: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    front = '[cameras.front]\nsource = "file:none.png"\nloop = true\n'
    red = "[cubes.red]\nedge_m = 0.05\ntag_m = 0.04\nfirst_tag = 0\n"
    Path("cell.toml").write_text((front + red).replace(before, after))
    assert cli.main(["poses", "--profile", "cell.toml"]) == 2
    assert sentence in capsys.readouterr().err


def test_frames_of_another_size_than_the_calibrations_are_refused_with_the_remedy(
    server: MjpegServer, scene: TaggedScene, capsys: pytest.CaptureFixture[str]
) -> None:
    write_profile(server.url)
    Path("front.json").write_text(scene.calibration("front").text.replace("1280,", "640,", 1))
    flags = ["--profile", "cell.toml", "--address", ADDRESS, "--seconds", "30"]
    assert cli.main(["poses", *flags]) == 2
    sentence = " ".join(capsys.readouterr().err.split())
    assert (
        "expected frames of 640×720, for which it was calibrated, found 1280×720: set" in sentence
    )


@pytest.mark.parametrize("command", [["poses"], ["calibrate", "front"]])
def test_a_calibration_of_no_camera_is_refused(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_profile("file:none.png")
    profile = Path("cell.toml")
    profile.write_text(profile.read_text().replace('front = "front.json"', 'frnt = "front.json"'))
    assert cli.main([*command, "--profile", "cell.toml"]) == 2
    sentence = " ".join(capsys.readouterr().err.split())
    assert "[calibrations]: expected cameras of [cameras] (front), found 'frnt'" in sentence


@pytest.mark.parametrize("command", [["poses"], ["calibrate", "front"]])
def test_a_profile_without_tables_is_refused(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty.toml").write_text("")
    assert cli.main([*command, "--profile", "empty.toml"]) == 2
    assert "empty.toml: expected a table [" in capsys.readouterr().err


def test_tags_are_printed_at_their_exact_size() -> None:
    pytest.importorskip("matplotlib")
    write_profile("file:none.png")
    assert cli.main(["poses", "--profile", "cell.toml", "--print-tags", "tags.pdf"]) == 0
    content = Path("tags.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert content.count(b"/Type /Page ") == len(TAGS)
    assert b"/MediaBox [ 0 0 595.2" in content  # 210 mm in points of 1/72 inch


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("first_tag = 6", "first_tag = 5", "found tag 5 on both: let their first_tag differ by 6"),
        ("edge_m = 0.05", "edge_m = 0.057", "cubes.red: expected an edge of 42 to 56 mm, with whi"),
        ("edge_m = 0.05", "edge_m = 0.041", "were trained, found 41 mm"),
    ],
)
def test_tags_of_cubes_that_no_policy_can_stack_are_not_printed(
    before: str, after: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    red = "[cubes.red]\nedge_m = 0.05\ntag_m = 0.04\nfirst_tag = 0\n"
    blue = "[cubes.blue]\nedge_m = 0.042\ntag_m = 0.04\nfirst_tag = 6\n"
    Path("cell.toml").write_text((red + blue).replace(f"{before}\n", f"{after}\n"))
    assert cli.main(["poses", "--profile", "cell.toml", "--print-tags", "tags.pdf"]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not Path("tags.pdf").exists()


def test_the_place_of_a_camera_follows_from_a_board_on_the_table(
    scene: TaggedScene, capsys: pytest.CaptureFixture[str]
) -> None:
    board, truth = Board(), scene.calibration("front")
    Path("board.png").write_bytes(encode(_photograph(board, truth), ".png"))
    write_profile("file:board.png", cubes=False)
    Path("front.json").write_text(CameraCalibration(lens=truth.lens).text)

    assert cli.main(["calibrate", "front", "--profile", "cell.toml", "--place"]) == 0

    found = CameraCalibration.load(Path("front.json")).place
    assert found is not None
    assert truth.place is not None
    assert np.linalg.norm(found.pose.position_m - truth.place.pose.position_m) < 0.01
    assert "the place fits" in capsys.readouterr().out
    assert json.loads(Path("front.json").read_text())["lens"]["frame_size"] == [1280, 720]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            ["front", "--place", "--robot", "tcp://127.0.0.1:1", "--held", "nix"],
            "--held: expected the cube in the hand, one of",
        ),
        (["side"], "expected a camera of [cameras] (front), found 'side'"),
        (["front", "--place", "--held", "red"], "name it with --robot"),
        (["front", "--place", "--robot", "mujoco"], "expected an address such as tcp://"),
        (["front", "--place"], "no-calibration.json: expected a calibrated lens, found no file"),
    ],
)
def test_a_calibration_that_cannot_be_is_refused(
    flags: list[str], sentence: str, scene: TaggedScene, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("board.png").write_bytes(encode(np.full((720, 1280, 3), 99, np.uint8), ".png"))
    write_profile("file:board.png")
    Path("front.json").write_text(scene.calibration("front").text)
    if "no-calibration" in sentence:
        text = Path("cell.toml").read_text().replace("front.json", "no-calibration.json")
        Path("cell.toml").write_text(text)
    assert cli.main(["calibrate", *flags, "--profile", "cell.toml"]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_a_camera_that_is_refused_for_less_than_ten_seconds_costs_no_posture() -> None:
    clock = VirtualClock()
    looks = 0

    def look() -> tuple[str, int]:
        nonlocal looks
        looks += 1
        if 5 <= looks < 50 or looks >= 60:
            raise ObservationError("camera/front: silent")
        return "", 15 - looks

    collect("postures", 15, look, clock)
    assert looks == 50

    looks, began_ns = 60, clock.now_ns()
    with pytest.raises(ObservationError, match="camera/front: silent"):
        collect("postures", 15, look, clock)
    assert clock.now_ns() - began_ns == 10_000_000_000


@pytest.fixture
def arm_alone() -> Iterator[str]:
    """The address of an arm without a hand."""
    clock = MonotonicClock()
    door = Door(DoorSettings(ADDRESS), clock, lambda _: None)
    arm = ScriptedRobot(ARM_ALONE, clock)
    server = RobotServer(arm, clock, door, name="alone", simulated=False)
    serving = Thread(target=server.serve)
    serving.start()
    yield server.endpoint
    server.end()
    serving.join()
    server.close()


def test_an_arm_without_a_hand_holds_no_cube_and_is_refused(
    arm_alone: str, scene: TaggedScene, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("board.png").write_bytes(encode(np.full((720, 1280, 3), 99, np.uint8), ".png"))
    write_profile("file:board.png")
    Path("front.json").write_text(scene.calibration("front").text)
    flags = ["--profile", "cell.toml", "--place", "--robot", arm_alone, "--held", "red"]
    assert cli.main(["calibrate", "front", *flags]) == 2
    refusal = " ".join(capsys.readouterr().err.split())
    assert "--held: expected a robot that offers gripper/width, found arm/joint_pos" in refusal
    assert "leave out --hand none" in refusal


def _photograph(board: Board, camera: CameraCalibration) -> NDArray[np.uint8]:
    """Return the picture (height, width) of a board on the table."""
    assert camera.place is not None
    drawn = draw_board(board)
    height, width = drawn.shape
    half = np.array([board.columns, board.rows]) * board.square_m / 2
    corners = board.in_world(half * [(-1, 1), (1, 1), (1, -1), (-1, -1)])
    seen = (corners - camera.place.pose.position_m) @ camera.place.pose.rotation
    pixels = seen @ camera.lens.matrix.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    whole = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32) - 0.5
    warp = cv2.getPerspectiveTransform(whole, pixels.astype(np.float32))
    picture = np.full(camera.lens.frame_size[::-1], 200, np.uint8)
    cv2.warpPerspective(
        drawn, warp, camera.lens.frame_size, dst=picture, borderMode=cv2.BORDER_TRANSPARENT
    )
    return picture
