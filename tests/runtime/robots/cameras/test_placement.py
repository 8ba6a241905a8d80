"""The pose of a camera, from a drawn picture of a board whose pose is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gatort.runtime.errors import ObservationError
from gatort.runtime.robots.cameras.board import Board
from gatort.runtime.robots.cameras.calibration import CameraLens
from gatort.runtime.robots.cameras.opencv import cv2
from gatort.runtime.robots.cameras.placement import draw_board, place_camera
from gatort.runtime.robots.cameras.pose import OpticalPose, compare_poses

HEIGHT, WIDTH = 480, 640
LENS = CameraLens.pinhole(WIDTH, HEIGHT, float(np.radians(45.0)))
OVERSAMPLED = 4
CHARUCO = Board(position_m=(0.5, 0.05, 0.01), yaw_rad=0.3)
TAG = Board(kind="apriltag", tag=7, marker_m=0.16, position_m=(0.5, 0.05, 0.01), yaw_rad=-0.4)


def looking(
    position_m: tuple[float, float, float], at_m: tuple[float, float, float]
) -> OpticalPose:
    """A camera that looks at a point, with the world's z axis up in its picture."""
    forward = np.subtract(at_m, position_m)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    rotation = np.column_stack([right, np.cross(forward, right), forward])
    return OpticalPose(np.array(position_m), rotation)


def project(pose: OpticalPose, points: NDArray[np.float64]) -> NDArray[np.float64]:
    seen = (points - pose.position_m) @ pose.rotation @ LENS.matrix.T
    return seen[:, :2] / seen[:, 2:]


def photograph(board: Board, pose: OpticalPose) -> NDArray[np.uint8]:
    """Draw the board on a grey table, each pixel the mean of 16, with a little noise."""
    print_of_it = draw_board(board)
    rows, columns = print_of_it.shape
    charuco = board.kind == "charuco"
    width_m = board.columns * board.square_m if charuco else board.marker_m
    height_m = board.rows * board.square_m if charuco else board.marker_m
    margin = rows // 5  # A tag is found by its white margin.
    grown = np.pad(print_of_it, margin, constant_values=255)
    scale = np.array([width_m / columns, -height_m / rows])
    edge = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * grown.shape[::-1] - margin
    corners = (edge - np.array([columns, rows]) / 2) * scale

    # Pixel centres have whole coordinates, so the edges of the paper are half a pixel further.
    paper = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * grown.shape[::-1] - 0.5
    seen = (project(pose, board.in_world(corners)) + 0.5) * OVERSAMPLED - 0.5
    warp = cv2.getPerspectiveTransform(paper.astype(np.float32), seen.astype(np.float32))
    size = (WIDTH * OVERSAMPLED, HEIGHT * OVERSAMPLED)
    large = cv2.warpPerspective(grown, warp, size, flags=cv2.INTER_AREA, borderValue=(170,))
    small = cv2.resize(large, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    noise = np.random.default_rng(0).normal(0.0, 2.0, small.shape)
    return np.clip(small + noise, 0, 255).astype(np.uint8)


# A tenth of a pixel at 0.8 m and 579 px of focal length is 0.14 mm on the board. Seen over 0.2 m of
# board that leaves a few mm of distance. A tag has 4 corners instead of 24, and twice the error.
@pytest.mark.parametrize(
    ("board", "most_m", "most_deg"), [(CHARUCO, 0.004, 0.3), (TAG, 0.008, 0.6)]
)
@pytest.mark.parametrize("position_m", [(1.25, 0.0, 0.62), (0.7, -0.5, 0.5)])
def test_the_pose_of_a_camera_is_found_within_millimetres(
    board: Board, most_m: float, most_deg: float, position_m: tuple[float, float, float]
) -> None:
    wanted = looking(position_m, (0.5, 0.02, 0.0))
    placement = place_camera(photograph(board, wanted), board, LENS)
    error = compare_poses(placement.pose, wanted)
    assert error.distance_m < most_m
    assert np.degrees(error.angle_rad) < most_deg
    assert placement.corners >= (20 if board.kind == "charuco" else 4)
    assert placement.residual_px < 0.3


def test_a_displaced_and_turned_camera_shows_its_displacement() -> None:
    wanted = looking((1.25, 0.0, 0.62), (0.5, 0.0, 0.0))
    found = looking((1.25, 0.03, 0.62), (0.5, 0.03, 0.0))
    error = compare_poses(found, wanted)
    assert error.offset_m.tolist() == [0.0, 0.03, 0.0]
    assert error.angle_rad < 1e-9

    turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    turned = OpticalPose(wanted.position_m, turn @ wanted.rotation)
    assert compare_poses(turned, wanted).angle_rad == pytest.approx(np.pi / 2)


def test_the_board_lies_with_its_right_edge_along_x_and_its_top_towards_y() -> None:
    board = Board(position_m=(0.5, 0.1, 0.02))
    assert board.in_world(np.array([[0.1, 0.0], [0.0, 0.2]])).tolist() == [
        [0.6, 0.1, 0.02],
        [0.5, pytest.approx(0.3), 0.02],
    ]


@pytest.mark.parametrize(
    ("board", "sentence"),
    [
        (CHARUCO, "expected a ChArUco board of 7×5 squares .* found 0 corners"),
        (TAG, r"expected AprilTag 7 of family 36h11 in the picture, found tags \[\]"),
    ],
)
def test_a_picture_without_the_board_is_refused(board: Board, sentence: str) -> None:
    with pytest.raises(ObservationError, match=sentence):
        place_camera(np.full((HEIGHT, WIDTH), 128, np.uint8), board, LENS)


def test_another_tag_is_not_taken_for_the_board() -> None:
    pose = looking((0.7, -0.5, 0.5), (0.5, 0.02, 0.0))
    other = TAG.model_copy(update={"tag": 8})
    with pytest.raises(ObservationError, match=r"found tags \[8\]"):
        place_camera(photograph(other, pose), TAG, LENS)
