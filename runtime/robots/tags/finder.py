"""Poses of tagged cubes in one picture of a calibrated camera."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.errors import ObservationError
from gatort.runtime.robots.cameras.calibration import CameraCalibration, CameraLens
from gatort.runtime.robots.cameras.opencv import cv2
from gatort.runtime.robots.cameras.placement import TAGS
from gatort.runtime.wording import counted

from .cubes import TaggedCube, require_own_tags

CELL_PIXELS: Final = 8
"""Pixels of a tag's cell where its bits are read. With OpenCV's 4, a camera missed one cube more in
six on blurred pictures."""
MARGIN_PX: Final = 12
"""Margin around the tags of a cube in which their edges are looked for."""
APRILTAG_CENTRE_PX: Final = 0.5
"""The centre of the first pixel in the coordinates of the slow detector; in OpenCV's it is 0."""
LARGEST_RESIDUAL_PX: Final = 2.0
"""A pose that fits its corners worse than this is dropped: a tag was misread, or sits askew."""
FEWEST_TAGS: Final = 2
"""Smallest number of tags of a pose. One tag alone has two likely poses, and was off by 27 mm."""


@dataclass(frozen=True, slots=True)
class CubePose:
    """Pose of a cube."""

    name: str
    position_m: NDArray[np.float64]
    """Centre, (3,), in W, or in the camera's frame before it is placed."""
    rotation: NDArray[np.float64]
    """Rotation from the cube's frame, (3, 3)."""
    tags: int
    """Number of tags that were seen."""
    residual_px: float
    """Root mean square distance between found and projected corners."""

    @property
    def numbers(self) -> NDArray[np.float64]:
        """Position and quaternion, w first, (7,), as a sensor publishes them."""
        return np.concatenate([self.position_m, _quaternion(self.rotation)])


@dataclass(frozen=True, slots=True)
class TagCorners:
    """Corners of the tags of one cube in one picture."""

    points_m: NDArray[np.float64]
    """(N, 3) in the cube's frame."""
    pixels: NDArray[np.float64]
    """(N, 2) in the picture."""

    @property
    def tags(self) -> int:
        """Number of tags."""
        return len(self.pixels) // 4

    def require_enough(self) -> None:
        """Check that the tags tell a pose.

        Raises:
            ObservationError: they are too few.
        """
        if self.tags < FEWEST_TAGS:
            raise ObservationError(
                f"{counted(self.tags, 'tag')} seen, {FEWEST_TAGS} are needed: turn the cube, so "
                "that the camera sees another face"
            )


class CubeFinder:
    """Finds cubes in pictures.

    A fast detector looks for tags in the whole picture. A slow one then fits lines to the edges
    of the tags around each cube. Refined corners alone, without lines, are off by half a pixel
    towards the dark side, which moved a cube 0.8 m away by 5 mm.
    """

    def __init__(self, cubes: Mapping[str, TaggedCube]) -> None:
        """Prepare the detectors.

        Raises:
            ConfigError: two cubes share a tag.
        """
        require_own_tags(cubes)
        self.unfit: dict[str, str] = {}
        """Cubes of the last picture whose tags told no pose, each with the reason."""
        self._cubes = dict(cubes)
        self._corners_m = {name: cube.corners_m() for name, cube in cubes.items()}
        family = cv2.aruco.getPredefinedDictionary(TAGS)
        self._coarse = cv2.aruco.ArucoDetector(family, _parameters())
        fine = _parameters()
        fine.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_APRILTAG
        self._fine = cv2.aruco.ArucoDetector(family, fine)

    def corners(self, grey: NDArray[np.uint8]) -> dict[str, TagCorners]:
        """Return the tags' corners of each cube that is seen in a picture (height, width)."""
        seen = _detected(self._coarse, grey)
        found = {name: self._corners_of(name, seen, grey) for name in self._cubes}
        return {name: corners for name, corners in found.items() if corners is not None}

    def find(self, grey: NDArray[np.uint8], camera: CameraCalibration) -> list[CubePose]:
        """Return the pose of each cube that is seen in a picture (height, width).

        The poses are in W, or in the camera's frame if its place is unknown.
        """
        poses = []
        self.unfit = {}
        for name, corners in self.corners(grey).items():
            try:
                pose = fit_pose(name, corners, camera.lens)
            except ObservationError as error:
                self.unfit[name] = str(error)
            else:
                poses.append(pose if camera.place is None else _in_world(pose, camera))
        return poses

    def _corners_of(
        self, name: str, seen: Mapping[int, NDArray[np.float64]], grey: NDArray[np.uint8]
    ) -> TagCorners | None:
        tags = [tag for tag in self._cubes[name].tags if tag in seen]
        if not tags:
            return None
        around = np.concatenate([seen[tag] for tag in tags])
        left, top = np.maximum(np.floor(around.min(axis=0)).astype(int) - MARGIN_PX, 0)
        right, bottom = np.ceil(around.max(axis=0)).astype(int) + MARGIN_PX
        fine = _detected(self._fine, np.ascontiguousarray(grey[top:bottom, left:right]))

        corner_px = np.array([left, top]) - APRILTAG_CENTRE_PX
        first = self._cubes[name].first_tag
        kept = [tag for tag in tags if tag in fine]
        if not kept:
            return None
        return TagCorners(
            np.concatenate([self._corners_m[name][tag - first] for tag in kept]),
            np.concatenate([fine[tag] for tag in kept]) + corner_px,
        )


def fit_pose(name: str, corners: TagCorners, lens: CameraLens) -> CubePose:
    """Return the pose of a cube in the camera's frame.

    Raises:
        ObservationError: its corners do not tell it.
    """
    corners.require_enough()
    given = (corners.points_m, corners.pixels, lens.matrix, np.array(lens.distortion))
    _, first_turn, first_shift = cv2.solvePnP(*given, flags=cv2.SOLVEPNP_SQPNP)
    refined: Any = cv2.solvePnPRefineLM(*given, first_turn, first_shift)
    turn, shift = refined
    residual_px = float(np.sqrt((residuals_px(corners, turn, shift, lens) ** 2).sum(1).mean()))
    if not np.isfinite(residual_px) or residual_px > LARGEST_RESIDUAL_PX:
        raise ObservationError(
            f"misfit {residual_px:.1f} px, at most {LARGEST_RESIDUAL_PX:g} px are taken: a tag was "
            "misread, or is on the wrong face"
        )
    return CubePose(
        name,
        np.ravel(shift),
        np.array(cv2.Rodrigues(turn)[0]),
        corners.tags,
        residual_px,
    )


def residuals_px(
    corners: TagCorners, turn: NDArray[np.float64], shift: NDArray[np.float64], lens: CameraLens
) -> NDArray[np.float64]:
    """Return projected minus found corners, (N, 2), for a pose as rotation vector and shift."""
    projected: Any = cv2.projectPoints(
        corners.points_m, turn, shift, lens.matrix, np.array(lens.distortion)
    )[0]
    difference: NDArray[np.float64] = projected.reshape(-1, 2) - corners.pixels
    return difference


def in_grey(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture (height, width, 3) in grey, (height, width)."""
    converted: Any = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    picture: NDArray[np.uint8] = converted
    return picture


def _quaternion(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the quaternion (4,) of a rotation, w first."""
    turn = np.ravel(cv2.Rodrigues(rotation)[0])
    angle = float(np.linalg.norm(turn))
    # sinc keeps the direction where the angle is zero.
    return np.array([np.cos(angle / 2), *(np.sinc(angle / 2 / np.pi) / 2 * turn)])


def _in_world(pose: CubePose, camera: CameraCalibration) -> CubePose:
    if camera.place is None:
        return pose
    placed = camera.place.pose
    return CubePose(
        pose.name,
        placed.rotation @ pose.position_m + placed.position_m,
        placed.rotation @ pose.rotation,
        pose.tags,
        pose.residual_px,
    )


def _parameters() -> cv2.aruco.DetectorParameters:
    parameters = cv2.aruco.DetectorParameters()
    parameters.perspectiveRemovePixelPerCell = CELL_PIXELS
    return parameters


def _detected(detector: Any, grey: NDArray[np.uint8]) -> dict[int, NDArray[np.float64]]:
    """Return the corners (4, 2) of each tag. A tag that is seen twice is left out."""
    corners, numbers, _ = detector.detectMarkers(grey)
    tags: Sequence[int] = [] if numbers is None else np.ravel(numbers).tolist()
    return {
        tag: np.array(square, np.float64).reshape(4, 2)
        for tag, square in zip(tags, corners, strict=True)
        if tags.count(tag) == 1
    }
