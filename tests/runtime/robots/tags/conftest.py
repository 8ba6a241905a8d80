"""Cubes, a camera that looks at them, and pictures that are computed without a simulator."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("cv2")

from gatort.runtime.robots.cameras.calibration import CameraCalibration, CameraLens, CameraPlace
from gatort.runtime.robots.cameras.opencv import cv2
from gatort.runtime.robots.cameras.pose import OpticalPose
from gatort.runtime.robots.tags.cubes import TaggedCube
from gatort.runtime.robots.tags.faces import draw_face

CUBES = {
    "red": TaggedCube(edge_m=0.05, tag_m=0.04, first_tag=0),
    "blue": TaggedCube(edge_m=0.045, tag_m=0.036, first_tag=6),
}
LENS = CameraLens(
    frame_size=(960, 720),
    focal_px=(870.0, 868.0),
    centre_px=(483.0, 355.0),
    distortion=(-0.1, 0.05, 0.001, -0.001, 0.0),
)
FACE_PIXELS = 200
FINER = 2
"""Each pixel of a photograph is the mean of this many squared."""


def turned(vector: tuple[float, float, float]) -> NDArray[np.float64]:
    """Return the rotation (3, 3) of a rotation vector in rad."""
    return np.array(cv2.Rodrigues(np.array(vector))[0])


def camera() -> CameraCalibration:
    """Return a camera 0.7 m from the table's middle, which looks at it from in front and above."""
    forward = np.array([-0.75, 0.1, -0.65])
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    rotation = np.column_stack([right, np.cross(forward, right), forward])
    pose = OpticalPose(np.array([0.5, 0.0, 0.0]) - 0.7 * forward, rotation)
    return CameraCalibration(lens=LENS, place=CameraPlace.of(pose))


def photograph(
    poses: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]], seen_by: CameraCalibration
) -> NDArray[np.uint8]:
    """Return the grey picture (height, width) of cubes at positions and rotations in W.

    Each face is warped by the homography of its corners, so distortion inside a face is left out.
    """
    place = seen_by.place
    assert place is not None
    width, height = seen_by.lens.frame_size
    picture = np.full((FINER * height, FINER * width), 120, np.uint8)
    for name, (position, rotation) in poses.items():
        for face in range(6):
            whole = TaggedCube(edge_m=CUBES[name].edge_m, tag_m=0.0001, first_tag=0)
            square = whole.corners_m()[face] * (1, 1, 1)
            centre = square.mean(axis=0)
            square = centre + (square - centre) * CUBES[name].edge_m / 0.0001
            in_world = square @ rotation.T + position
            outward = rotation @ centre
            if outward @ (place.pose.position_m - in_world.mean(axis=0)) <= 0:
                continue
            pixels = project(in_world, seen_by)
            drawn = draw_face(CUBES[name], face, FACE_PIXELS)
            corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float32) * FACE_PIXELS - 0.5
            target = (FINER * (pixels + 0.5) - 0.5).astype(np.float32)
            warp = cv2.getPerspectiveTransform(corners, target)
            cv2.warpPerspective(
                drawn, warp, picture.shape[::-1], dst=picture, borderMode=cv2.BORDER_TRANSPARENT
            )
    small: NDArray[np.uint8] = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    return small


def project(points: NDArray[np.float64], seen_by: CameraCalibration) -> NDArray[np.float64]:
    """Return the pixels (N, 2) of points (N, 3) in W."""
    place = seen_by.place
    assert place is not None
    inverse = place.pose.rotation.T
    turn = cv2.Rodrigues(inverse)[0]
    shift = -inverse @ place.pose.position_m
    lens = seen_by.lens
    found = cv2.projectPoints(points, turn, shift, lens.matrix, np.array(lens.distortion))[0]
    return np.array(found).reshape(-1, 2)
