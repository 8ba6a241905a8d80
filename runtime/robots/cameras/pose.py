"""Pose of a camera in the world, and its distance from another pose.

W is the world frame: its origin is the arm's base on the table top, and z points up. Camera frames
follow OpenCV: x to the right, y down, z forward.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class OpticalPose:
    """Pose of a camera."""

    position_m: NDArray[np.float64]
    """Optical centre in W, (3,)."""
    rotation: NDArray[np.float64]
    """R_world_camera, (3, 3)."""


@dataclass(frozen=True, slots=True)
class PoseError:
    """Difference of a camera's pose from the wanted one."""

    offset_m: NDArray[np.float64]
    """Found position minus the wanted one, (3,) in W."""
    angle_rad: float
    """Angle of the rotation from the wanted to the found pose."""

    @property
    def distance_m(self) -> float:
        """Distance between the two positions."""
        return float(np.linalg.norm(self.offset_m))


def compare_poses(found: OpticalPose, wanted: OpticalPose) -> PoseError:
    """Return the difference of two poses."""
    turn = wanted.rotation.T @ found.rotation
    sine = np.linalg.norm(
        [turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]
    )
    angle_rad = float(np.arctan2(sine, np.trace(turn) - 1))
    return PoseError(found.position_m - wanted.position_m, angle_rad)
