"""The simulated picture of a camera agrees with the pose that is given beside it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("cv2")

from gatort.runtime.errors import ConfigError
from gatort.runtime.robots.cameras.calibration import CameraLens
from gatort.sim.camera_view import simulated_view
from gatort.sim.graphics import choose_gl
from gatort.sim.tasks import task_named

if choose_gl() is None:
    pytest.skip("no GL library draws", allow_module_level=True)


@pytest.mark.parametrize(("height", "width"), [(480, 480), (240, 320)])
def test_the_green_block_is_seen_where_the_pose_projects_it(height: int, width: int) -> None:
    view = simulated_view("stacking", "front", height, width)
    block = next(cube for cube in task_named("stacking").layout(0).cubes if cube.name == "green")
    matrix = CameraLens.pinhole(width, height, view.fovy_rad).matrix
    seen = matrix @ (view.pose.rotation.T @ (np.array(block.position) - view.pose.position_m))
    red, green, blue = (view.picture[:, :, index].astype(int) for index in range(3))
    rows, columns = np.nonzero(green - np.maximum(red, blue) > 25)
    assert len(rows) > 20
    # The centre of the visible faces is nearer than the block's centre, by half an edge at most.
    half_edge_px = matrix[1, 1] * block.edge_m / 2 / seen[2]
    assert abs(columns.mean() - seen[0] / seen[2]) < half_edge_px
    assert abs(rows.mean() - seen[1] / seen[2]) < half_edge_px


def test_the_arm_is_marked_and_moves_with_its_joints() -> None:
    home = simulated_view("stacking", "front", 120, 120)
    turned = simulated_view("stacking", "front", 120, 120, [0.8, -0.4, 0.0, -2.3, 0.0, 1.9, 0.785])
    assert 0.02 < home.arm.mean() < 0.6
    assert (home.arm != turned.arm).mean() > 0.02
    unchanged = ~home.arm & ~turned.arm
    difference = np.abs(home.picture.astype(int) - turned.picture)[unchanged]
    assert difference.mean() < 2.0  # Only shadows may differ.


def test_the_wrist_camera_moves_with_the_arm() -> None:
    home = simulated_view("stacking", "wrist", 64, 64)
    turned = simulated_view("stacking", "wrist", 64, 64, [0.8, -0.4, 0.0, -2.3, 0.0, 1.9, 0.785])
    assert np.linalg.norm(home.pose.position_m - turned.pose.position_m) > 0.1


def test_an_unknown_camera_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match=r"\(front, view, wrist\), found 'back'"):
        simulated_view("stacking", "back", 64, 64)


def test_a_posture_has_seven_joints() -> None:
    with pytest.raises(ConfigError, match="expected 7 joint angles in rad, found 2"):
        simulated_view("stacking", "front", 64, 64, [0.0, 1.0])
