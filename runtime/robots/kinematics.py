"""Place of the tool, from the joints."""

from __future__ import annotations

from math import cos, pi, sin
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .panda import PANDA_LIMITS

HAND_TURN_RAD: Final = -pi / 4
"""Franka's hand is screwed to the flange with this turn."""


def tool_pose(joints_rad: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the tool of a Panda or an FR3 in W: its position, (3,) m, and R_world_tool, (3, 3).

    Modified DH parameters: Franka Robotics, "Robot and interface specifications". The tool is the
    point between the finger pads; its z axis points out of the hand.

    Args:
        joints_rad: joints, (7,).
    """
    pose = np.eye(4)
    angles = (*joints_rad.tolist(), HAND_TURN_RAD)
    for (a_m, alpha_rad, d_m), angle_rad in zip(PANDA_LIMITS.frames, angles, strict=True):
        ca, sa, cq, sq = cos(alpha_rad), sin(alpha_rad), cos(angle_rad), sin(angle_rad)
        pose = pose @ np.array(
            [
                [cq, -sq, 0.0, a_m],
                [sq * ca, cq * ca, -sa, -sa * d_m],
                [sq * sa, cq * sa, ca, ca * d_m],
                [0.0, 0.0, 0.0, 1.0],
            ]
        )
    return pose[:3, 3], pose[:3, :3]
