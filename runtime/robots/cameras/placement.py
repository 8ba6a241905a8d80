"""Pose of a real camera from one picture of a board that lies at a known place.

Boards: ChArUco (a chessboard with markers) and a single AprilTag, through OpenCV's aruco module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.errors import ObservationError

from .board import Board
from .calibration import CameraLens
from .opencv import cv2
from .pose import OpticalPose

CHARUCO_MARKERS: Final = cv2.aruco.DICT_5X5_100
TAGS: Final = cv2.aruco.DICT_APRILTAG_36h11
FEWEST_CORNERS: Final = 6
"""Smallest number of ChArUco corners: their error of 0.1 px then averages out."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Pose of a camera, estimated from one picture."""

    pose: OpticalPose
    """Estimated pose."""
    corners: int
    """Number of corners that were found."""
    residual_px: float
    """Root mean square distance between found and projected corners."""


def place_camera(picture: NDArray[np.uint8], board: Board, lens: CameraLens) -> Placement:
    """Return the pose of the camera that took a picture of a board.

    Args:
        picture: (height, width) grey or (height, width, 3).
        board: the board and its place.
        lens: lens of the picture.

    Raises:
        ObservationError: the board is not found in the picture.
    """
    grey: Any = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    points, pixels = find_board(grey, board)  # (N, 2) each
    points = board.in_world(points)  # (N, 3)
    camera = lens.matrix, np.array(lens.distortion)

    # IPPE wants the plane at z = 0, so it gets points relative to the board's centre.
    centre = np.array(board.position_m)
    _, turn, shift = cv2.solvePnP(points - centre, pixels, *camera, flags=cv2.SOLVEPNP_IPPE)
    turn, shift = cv2.solvePnPRefineLM(points - centre, pixels, *camera, turn, shift)
    projected = cv2.projectPoints(points - centre, turn, shift, *camera)[0].reshape(-1, 2)
    residual_px = float(np.sqrt(((projected - pixels) ** 2).sum(axis=1).mean()))

    rotation = np.array(cv2.Rodrigues(turn)[0], np.float64)  # R_camera_world
    position = centre - rotation.T @ np.ravel(shift)
    return Placement(OpticalPose(position, rotation.T), len(points), residual_px)


def draw_board(board: Board, square_px: int = 120) -> NDArray[np.uint8]:
    """Return the board (height, width) as it is printed, without a margin."""
    if board.kind == "apriltag":
        tags = cv2.aruco.getPredefinedDictionary(TAGS)
        drawn: Any = cv2.aruco.generateImageMarker(tags, board.tag, 10 * square_px)
    else:
        size = (board.columns * square_px, board.rows * square_px)
        drawn = _charuco(board).generateImage(size, marginSize=0)
    picture: NDArray[np.uint8] = drawn
    return picture


def _charuco(board: Board) -> Any:
    markers = cv2.aruco.getPredefinedDictionary(CHARUCO_MARKERS)
    return cv2.aruco.CharucoBoard(
        (board.columns, board.rows), board.square_m, board.marker_m, markers
    )


def find_board(grey: Any, board: Board) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the corners on the board, (N, 2) in m, and in the picture, (N, 2).

    Raises:
        ObservationError: the board is not found in the picture.
    """
    return _find_tag(grey, board) if board.kind == "apriltag" else _find_chess(grey, board)


def _find_chess(grey: Any, board: Board) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    charuco = _charuco(board)
    corners, numbers, _, _ = cv2.aruco.CharucoDetector(charuco).detectBoard(grey)
    if numbers is None or len(numbers) < FEWEST_CORNERS:
        found = 0 if numbers is None else len(numbers)
        raise ObservationError(
            f"expected a ChArUco board of {board.columns}×{board.rows} squares with at least "
            f"{FEWEST_CORNERS} corners in sight, found {found} corners: check light, size and focus"
        )
    places = np.array(charuco.getChessboardCorners())[np.ravel(numbers), :2]  # y points down
    middle = np.array([board.columns, board.rows]) * board.square_m / 2
    return (places - middle) * (1.0, -1.0), np.array(corners, np.float64).reshape(-1, 2)


def _find_tag(grey: Any, board: Board) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    parameters = cv2.aruco.DetectorParameters()
    parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
    tags = cv2.aruco.getPredefinedDictionary(TAGS)
    corners, numbers, _ = cv2.aruco.ArucoDetector(tags, parameters).detectMarkers(grey)
    found = [] if numbers is None else np.ravel(numbers).tolist()
    if board.tag not in found:
        raise ObservationError(
            f"expected AprilTag {board.tag} of family 36h11 in the picture, found tags {found}"
        )
    half = board.marker_m / 2
    places = np.array([(-half, half), (half, half), (half, -half), (-half, -half)])
    return places, np.array(corners[found.index(board.tag)], np.float64).reshape(-1, 2)
