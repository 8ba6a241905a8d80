"""Place of the tool, from the joints."""

from __future__ import annotations

from math import cos, pi, sin
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .panda import PANDA_LIMITS

Array = NDArray[np.float64]

HAND_TURN_RAD: Final = -pi / 4
"""Franka's hand is screwed to the flange with this turn."""


def frames_of(joints_rad: Array) -> Array:
    """Return the frames of the seven joints and of the tool of a Panda or an FR3 in W, (8, 4, 4).

    Modified DH parameters: Franka Robotics, "Robot and interface specifications". The tool is the
    point between the finger pads; its z axis points out of the hand. Joint i turns about the z axis
    of its frame.

    Args:
        joints_rad: joints, (7,).
    """
    frames = np.empty((len(PANDA_LIMITS.frames), 4, 4))
    pose = np.eye(4)
    angles = (*joints_rad.tolist(), HAND_TURN_RAD)
    turns = zip(PANDA_LIMITS.frames, angles, strict=True)
    for index, ((a_m, alpha_rad, d_m), angle_rad) in enumerate(turns):
        ca, sa, cq, sq = cos(alpha_rad), sin(alpha_rad), cos(angle_rad), sin(angle_rad)
        pose = pose @ np.array(
            [
                [cq, -sq, 0.0, a_m],
                [sq * ca, cq * ca, -sa, -sa * d_m],
                [sq * sa, cq * sa, ca, ca * d_m],
                [0.0, 0.0, 0.0, 1.0],
            ]
        )
        frames[index] = pose
    return frames


def tool_pose(joints_rad: Array) -> tuple[Array, Array]:
    """Return the tool of a Panda or an FR3 in W: its position, (3,) m, and R_world_tool, (3, 3).

    Args:
        joints_rad: joints, (7,).
    """
    tool = frames_of(joints_rad)[-1]
    return tool[:3, 3], tool[:3, :3]
