"""Cameras on franka-sim: pictures that arrive show the arm's newest joints and the invented blocks.

The joints come from a file of cycles that the test writes. No franka-sim runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.waiting import eventually

pytest.importorskip("mujoco")
pytest.importorskip("cv2")

from gatort.sim.graphics import choose_gl

if choose_gl() is None:
    pytest.skip("no GL library draws", allow_module_level=True)

from gatort.faults.franka.cameras import (
    CAMERAS,
    LENS,
    PictureServer,
    SceneCameras,
    SceneView,
    SeenBlock,
    SeenHand,
)
from gatort.faults.franka.cycles import DTYPE, newest_cycle
from gatort.runtime.clock import MonotonicClock, VirtualClock
from gatort.runtime.robots.cameras.camera import Camera
from gatort.runtime.robots.cameras.config import CameraConfig
from gatort.runtime.robots.cameras.frames import CameraFault
from gatort.sim.make import make_robot
from gatort.sim.robot import SimulatedRobot
from gatort.sim.simulators.simulator import Pose
from gatort.sim.tasks.stacking.specifications import CAMERA_SPEC

SEED = 5000
JPEG_ERROR = 3.0
"""Largest mean error of a picture, of 255. JPEG and the lens's noise make 1.9, exchanged red and
blue make 5.7, and another posture of the arm makes 13.8 in the wrist camera's picture."""
LATENCY_NS = 30_000_000


@pytest.fixture
def robot() -> Iterator[SimulatedRobot]:
    """The simulated arm at the start of a trial, whose pictures the policy was trained on."""
    with closing(make_robot("mujoco", "stacking", VirtualClock(), CAMERA_SPEC, SEED)) as robot:
        yield robot


@pytest.fixture
def view() -> Iterator[SceneView]:
    with closing(SceneView(SEED)) as view:
        yield view


def hand_of(robot: SimulatedRobot) -> SeenHand:
    moment = robot.moment()
    blocks = [SeenBlock.of(name, pose, is_held=False) for name, pose in moment.bodies.items()]
    return SeenHand(moment.arm.width_m, tuple(blocks))


def joints_of(robot: SimulatedRobot) -> NDArray[np.float64]:
    return robot.moment().arm.joint_position.copy()


def pictures_of(robot: SimulatedRobot) -> dict[str, NDArray[np.uint8]]:
    pictures = robot.look()
    assert pictures is not None
    return dict(zip(CAMERAS, pictures, strict=True))


def mean_error(picture: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.abs(picture.astype(int) - other).mean())


def write_cycle(file: Path, joints_rad: NDArray[np.float64]) -> None:
    cycle = np.zeros(1, DTYPE)
    cycle["position"] = joints_rad
    cycle["read_ns"] = MonotonicClock().now_ns()
    with file.open("ab") as cycles:
        cycles.write(cycle.tobytes())


def test_the_view_draws_the_pictures_of_the_simulated_robot(
    robot: SimulatedRobot, view: SceneView
) -> None:
    drawn = view.draw(joints_of(robot), hand_of(robot))
    for name, picture in pictures_of(robot).items():
        np.testing.assert_array_equal(drawn[name], picture)


def test_a_held_block_follows_the_joints(robot: SimulatedRobot, view: SceneView) -> None:
    red, *others = hand_of(robot).blocks
    moved = joints_of(robot) + 0.2
    held = SeenBlock.of("red", Pose(np.array([0.0, 0.01, 0.0]), np.eye(3)), is_held=True)
    seen = view.draw(moved, SeenHand(0.05, (held, *others)))

    robot.simulator.place_arm(moved)
    robot.simulator.settle()
    arm = robot.simulator.arm()
    where = Pose(arm.tool_position + 0.01 * arm.tool_rotation[:, 1], arm.tool_rotation)
    still = SeenBlock.of("red", where, is_held=False)
    expected = view.draw(moved, SeenHand(0.05, (still, *others)))
    left_behind = view.draw(moved, SeenHand(0.05, (red, *others)))
    for name in CAMERAS:
        np.testing.assert_array_equal(seen[name], expected[name])
        assert mean_error(seen[name], left_behind[name]) > 0


def test_a_camera_reads_the_pictures_that_the_server_sends(
    robot: SimulatedRobot, view: SceneView
) -> None:
    pictures = view.draw(joints_of(robot), hand_of(robot))
    random = np.random.default_rng(0)
    with closing(PictureServer()) as server:
        for name in CAMERAS:
            url = f"http://127.0.0.1:{server.port}/{name}"
            with closing(Camera(name, CameraConfig(source=url), MonotonicClock())) as camera:

                def send(camera: Camera = camera) -> bool:
                    server.accept()
                    exposed = {each: LENS.expose(pictures[each], random) for each in CAMERAS}
                    server.send(exposed, MonotonicClock().now_ns())
                    return camera.status.frames >= 3

                eventually(send)
                newest = camera.intake.newest
                assert newest is not None
                assert mean_error(newest.pixels, pictures[name]) < JPEG_ERROR
                assert mean_error(newest.pixels[:, :, ::-1], pictures[name]) > JPEG_ERROR
                # The scene stands still, and no two frames are equal.
                assert CameraFault.REPEATED not in camera.status.bad


def test_the_process_shows_the_newest_joints(
    robot: SimulatedRobot, view: SceneView, tmp_path: Path
) -> None:
    cycles = tmp_path / "cycles"
    cycles.touch()
    hand, first = hand_of(robot), joints_of(robot)
    clock = MonotonicClock()
    with closing(SceneCameras(cycles, SEED, LATENCY_NS)) as scene:
        scene.show(hand)
        config = CameraConfig(source=scene.url("wrist"))
        with closing(Camera("wrist", config, clock)) as camera:
            for joints in (first, first + 0.2):
                write_cycle(cycles, joints)
                expected = view.draw(joints, hand)["wrist"]

                def shows(expected: NDArray[np.uint8] = expected) -> bool:
                    newest = camera.intake.newest
                    return newest is not None and mean_error(newest.pixels, expected) < JPEG_ERROR

                eventually(shows)


def test_half_a_cycle_at_the_end_of_the_file_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "cycles"
    file.touch()
    with file.open("rb") as cycles:
        assert newest_cycle(cycles.fileno()) is None
        for index in range(3):
            write_cycle(file, np.full(7, float(index)))
        with file.open("ab") as more:
            more.write(b"\x01" * 100)
        newest = newest_cycle(cycles.fileno())
        assert newest is not None
        np.testing.assert_array_equal(newest["position"], np.full(7, 2.0))
