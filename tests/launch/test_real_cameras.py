"""Cameras of a launch profile around an arm, or around a robot behind the wire."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gatort.launch import cli
from gatort.launch.options import RunOptions, resolve
from gatort.launch.real_cameras import arm_with_cameras, with_own_cameras
from gatort.launch.run_report import robot_sentences
from gatort.runtime.clock import MonotonicClock, VirtualClock
from gatort.runtime.errors import ConfigError, RobotError
from gatort.runtime.remote.client import RemoteRobot, remote_of
from gatort.runtime.remote.memory import MemoryRobotTransport
from gatort.runtime.remote.server import RobotServer
from gatort.runtime.robots.cameras.config import CamerasProfile
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.spec import PolicySpec

pytest.importorskip("cv2")

from gatort.runtime.robots.cameras.opencv import encode


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    picture = tmp_path / "still.png"
    picture.write_bytes(encode(np.full((120, 160, 3), (200, 60, 0), np.uint8), ".png"))
    path = tmp_path / "cell.toml"
    path.write_text(f'[cameras.front]\nsource = "file:{picture}"\nheight_px = 32\nwidth_px = 48\n')
    return path


def test_a_launch_profile_holds_cameras_by_name(profile: Path) -> None:
    front = resolve(RunOptions, None, profile).cameras["front"]
    assert (front.height_px, front.width_px, front.age_limit_ms) == (32, 48, 120.0)
    assert resolve(CamerasProfile, None, profile).cameras["front"] == front


@pytest.mark.parametrize("kind", [RunOptions, CamerasProfile])
def test_an_unknown_key_of_a_camera_is_refused_with_the_closest_one(
    profile: Path, kind: type[RunOptions | CamerasProfile]
) -> None:
    profile.write_text('[cameras.front]\nsource = "file:a.png"\nlatncy_ms = 3.0\n')
    with pytest.raises(
        ConfigError,
        match=r"unknown key 'cameras\.front\.latncy_ms' \(did you mean 'latency_ms'\?\); "
        r"valid keys of cameras\.front are age_limit_ms, crop,",
    ):
        resolve(kind, None, profile)


def test_a_wrong_source_is_refused_with_examples(profile: Path) -> None:
    profile.write_text('[cameras.front]\nsource = "/dev/video0"\n')
    with pytest.raises(
        ConfigError,
        match=r"cameras\.front\.source: expected a source such as v4l2:/dev/video0, .*"
        r"found '/dev/video0'",
    ):
        resolve(CamerasProfile, None, profile)


def test_an_arm_gets_the_cameras_of_its_profile(
    profile: Path, spec: PolicySpec, capfd: pytest.CaptureFixture[str]
) -> None:
    clock = MonotonicClock()
    with arm_with_cameras(ScriptedRobot(spec, clock), profile, clock) as arm:
        observation = arm.observe()
        assert arm.interface.observations[0].name == "camera/front"
        assert observation.values[0].shape == (32, 48, 3)
        assert observation.values[0][0, 0].tolist() == [0, 60, 200]
        arm.close()
    assert "camera/front: " in capfd.readouterr().out


def test_an_arm_without_a_profile_stays_as_it_is(spec: PolicySpec) -> None:
    clock = VirtualClock()
    robot = ScriptedRobot(spec, clock)
    with arm_with_cameras(robot, None, clock) as arm:
        assert arm is robot


def test_an_arm_is_closed_when_a_camera_gives_no_picture(
    profile: Path, spec: PolicySpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []

    class Closing(ScriptedRobot):
        def close(self) -> None:
            closed.append(True)

    monkeypatch.setattr(
        "gatort.runtime.robots.cameras.process.CameraProcess.wait.__defaults__", (0.2,)
    )
    torn = profile.with_name("torn.png")
    torn.write_bytes(b"no picture")
    profile.write_text(f'[cameras.front]\nsource = "file:{torn}"\n')
    clock = MonotonicClock()
    with (
        pytest.raises(RobotError, match=r"expected a picture from file:.*torn\.png"),
        arm_with_cameras(Closing(spec, clock), profile, clock),
    ):
        pass
    assert closed == [True]


def test_a_robot_behind_the_wire_gets_the_cameras_of_the_controller(
    profile: Path, spec: PolicySpec
) -> None:
    clock = VirtualClock(5_000_000_000)
    link = MemoryRobotTransport(clock)
    server = RobotServer(ScriptedRobot(spec, clock), clock, link, name="arm", simulated=True)
    remote = RemoteRobot("memory", clock, transport=link.connect(server.turn))
    cameras = resolve(RunOptions, None, profile).cameras

    robot = with_own_cameras(remote, cameras, MonotonicClock())
    assert robot.observe().values[0].shape == (32, 48, 3)
    assert remote_of(robot) is remote
    assert [line.partition(":")[0] for line in robot_sentences(robot)] == ["wire", "camera/front"]
    robot.close()
    server.close()


def test_a_simulated_robot_takes_no_cameras(
    profile: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "--profile", str(profile)]) == 2
    assert "[cameras] are for a robot at tcp://HOST:PORT" in capsys.readouterr().err
