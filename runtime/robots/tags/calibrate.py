"""Calibration of a camera: its lens from pictures of a board, its place from the arm's own hand."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.errors import MissingDependency, ObservationError
from gatort.runtime.robots.cameras.calibration import CameraLens, CameraPlace
from gatort.runtime.robots.cameras.opencv import cv2
from gatort.runtime.robots.cameras.pose import OpticalPose

from .finder import CubePose, TagCorners, fit_pose, residuals_px

try:
    from scipy.optimize import OptimizeResult, least_squares
except ImportError as error:
    raise MissingDependency("calibration needs SciPy: pip install 'gatort[cameras]'") from error

FEWEST_BOARDS: Final = 8
"""Smallest number of pictures of a board for a lens."""
FEWEST_TILTED: Final = 5
"""Smallest number of pictures in which the board is tilted."""
TILTED_RAD: Final = np.radians(15.0)
"""Angle from the picture's plane at which a board counts as tilted. From boards within 2° of it,
the focal length came out a third too large, with a misfit of 0.2 px."""
GUESSED_FOCAL: Final = 0.9
"""Focal length of a lens that is not known yet, in widths of the picture: that of 58°."""
FEWEST_HANDS: Final = 8
"""Smallest number of postures of the hand for a place."""
LARGEST_ERROR_MM: Final = 3.0
"""Largest expected error of a place."""
CORNER_ERROR_PX: Final = 0.25
"""Expected error of a corner of a tag."""

Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BoardView:
    """A board in one picture."""

    points_m: Points
    """Corners on the board, (N, 2)."""
    pixels: Points
    """Corners in the picture, (N, 2)."""


@dataclass(frozen=True, slots=True)
class HandView:
    """A cube that the hand holds, in one picture."""

    tool_position_m: Points
    """Tool in W, (3,)."""
    tool_rotation: Points
    """R_world_tool, (3, 3)."""
    corners: TagCorners
    """Corners of the cube's tags."""


@dataclass(frozen=True, slots=True)
class HandEye:
    """Place of a camera, from views of a cube in the hand."""

    place: CameraPlace
    spread_mm: float
    """Root mean square distance of the cube from its mean place in the hand, as the views have
    it."""


def fit_lens(views: Sequence[BoardView], frame_size: tuple[int, int]) -> CameraLens:
    """Return the lens that fits pictures of a board.

    Raises:
        ObservationError: there are too few pictures, or the board was tilted in too few of them.
    """
    if len(views) < FEWEST_BOARDS:
        raise ObservationError(
            f"expected at least {FEWEST_BOARDS} pictures of the board, found {len(views)}"
        )
    points: Any = [np.pad(view.points_m, ((0, 0), (0, 1))).astype(np.float32) for view in views]
    pixels: Any = [view.pixels.astype(np.float32) for view in views]
    residual_px, matrix, distortion, turns, _ = cv2.calibrateCamera(
        points, pixels, frame_size, np.eye(3), np.zeros(5)
    )
    _require_tilted([_matrix(np.ravel(turn)) for turn in turns])
    return CameraLens(
        frame_size=frame_size,
        focal_px=(matrix[0, 0], matrix[1, 1]),
        centre_px=(matrix[0, 2], matrix[1, 2]),
        distortion=tuple(np.ravel(distortion)[:5].tolist()),
        residual_px=residual_px,
    )


def _require_tilted(rotations: Sequence[Points]) -> None:
    """Refuse pictures of a board that was held flat: they fit any focal length equally well."""
    tilted = sum(_tilt_rad(rotation) > TILTED_RAD for rotation in rotations)
    if tilted < FEWEST_TILTED:
        raise ObservationError(
            f"expected the board tilted by {np.degrees(TILTED_RAD):.0f}° or more in at least "
            f"{FEWEST_TILTED} pictures, found it in {tilted} of {len(rotations)}: tilt it by up to "
            "45°, about different axes"
        )


def guess_tilt_rad(view: BoardView, frame_size: tuple[int, int]) -> float:
    """Return about how far a board is tilted, before the lens is known.

    Args:
        view: the board in one picture.
        frame_size: width and height of the picture.
    """
    width, height = frame_size
    lens = CameraLens(
        frame_size=frame_size,
        focal_px=(GUESSED_FOCAL * width, GUESSED_FOCAL * width),
        centre_px=(width / 2, height / 2),
    )
    points = np.pad(view.points_m, ((0, 0), (0, 1)))  # (N, 3)
    pose = cv2.solvePnP(points, view.pixels, lens.matrix, None, flags=cv2.SOLVEPNP_IPPE)
    return _tilt_rad(_matrix(np.ravel(pose[1])))


def _tilt_rad(rotation: Points) -> float:
    """Return the angle between a board and the plane of the picture."""
    return float(np.arccos(min(abs(rotation[2, 2]), 1.0)))


def fit_place(views: Sequence[HandView], lens: CameraLens) -> HandEye:
    """Return the place of a fixed camera that saw a cube in the hand in several postures.

    The pose of the cube in the hand is unknown too. Both are fitted to the corners in all pictures
    (hand–eye calibration, eye to hand).

    Raises:
        ObservationError: there are too few postures, or they do not tell the place.
    """
    kept = []
    for view in views:
        with suppress(ObservationError):
            kept.append((view, fit_pose("hand", view.corners, lens)))
    if len(kept) < FEWEST_HANDS:
        raise ObservationError(
            f"expected at least {FEWEST_HANDS} postures in which the cube is seen well, "
            f"found {len(kept)}"
        )
    first = _first_guess(kept)
    fitted = least_squares(
        lambda unknown: _misfit(unknown, [view for view, _ in kept], lens),
        np.concatenate([_vector(first.rotation), first.position_m, _in_tool(first, *kept[0])]),
        method="lm",
        x_scale="jac",
    )
    _require_told(fitted)

    pose = OpticalPose(fitted.x[3:6], _matrix(fitted.x[:3]))
    residual_px = float(np.sqrt((fitted.fun.reshape(-1, 2) ** 2).sum(axis=1).mean()))
    places = np.array([_in_tool(pose, *each)[3:] for each in kept])
    spread_m = np.sqrt(((places - places.mean(axis=0)) ** 2).sum(axis=1).mean())
    return HandEye(CameraPlace.of(pose, residual_px), 1e3 * float(spread_m))


def _first_guess(views: Sequence[tuple[HandView, CubePose]]) -> OpticalPose:
    """Return the pose of the camera if the cube's centre is at the tool (Kabsch's algorithm)."""
    tools = np.array([view.tool_position_m for view, _ in views])
    cubes = np.array([pose.position_m for _, pose in views])
    left, _, right = np.linalg.svd((tools - tools.mean(0)).T @ (cubes - cubes.mean(0)))
    mirror = np.diag([1.0, 1.0, np.linalg.det(left @ right)])
    rotation = left @ mirror @ right
    return OpticalPose(tools.mean(0) - rotation @ cubes.mean(0), rotation)


def _require_told(fitted: OptimizeResult) -> None:
    """Refuse postures from which the camera's place follows too loosely."""
    inverse = np.linalg.pinv(fitted.jac.T @ fitted.jac)
    # Corners of small tags are found to a quarter of a pixel.
    error_mm = 1e3 * CORNER_ERROR_PX * float(np.sqrt(np.trace(inverse[3:6, 3:6])))
    if not fitted.success or error_mm > LARGEST_ERROR_MM:
        raise ObservationError(
            f"expected postures that tell the camera's place within {LARGEST_ERROR_MM:g} mm, "
            f"found {error_mm:.0f} mm: move the hand further, and tilt it by 20° and more"
        )


def _misfit(unknown: Points, views: Sequence[HandView], lens: CameraLens) -> Points:
    """Return projected minus found corners of all views, one after the other.

    Args:
        unknown: rotation vector and position of the camera in W, then of the cube in the tool's
            frame, (12,).
        views: the hand in several postures.
        lens: lens of the camera.
    """
    camera, held = _matrix(unknown[:3]), _matrix(unknown[6:9])
    misfits = []
    for view in views:
        rotation = camera.T @ view.tool_rotation
        away = view.tool_position_m - unknown[3:6]
        shift = rotation @ unknown[9:12] + camera.T @ away
        misfits.append(residuals_px(view.corners, _vector(rotation @ held), shift, lens).ravel())
    return np.concatenate(misfits)


def _in_tool(camera: OpticalPose, view: HandView, seen: CubePose) -> Points:
    """Return rotation vector and position of the cube in the tool's frame, (6,)."""
    position = camera.rotation @ seen.position_m + camera.position_m - view.tool_position_m
    rotation = view.tool_rotation.T @ camera.rotation @ seen.rotation
    return np.concatenate([_vector(rotation), view.tool_rotation.T @ position])


def _vector(rotation: Points) -> Points:
    vector: Points = np.ravel(cv2.Rodrigues(rotation)[0])
    return vector


def _matrix(vector: Points) -> Points:
    return np.array(cv2.Rodrigues(np.ascontiguousarray(vector))[0])
