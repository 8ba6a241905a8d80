"""Distances between the arm and everything around it, in MuJoCo's model of the arm.

Call `choose_gl` before this file is first imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import mujoco
import numpy as np

from .mujoco import PANDA_XML
from .simulator import Array, Box

FARTHEST_M: Final = 0.3
"""Distances beyond this one are not told apart."""
_ARM_BIT: Final = 2
"""Collision bit of the geoms of arm and gripper."""
_TABLE: Final = "table"
_FIXED: Final = "link0"
"""The link that stands on the table."""
_TURNING: Final = "link1"
"""The link that turns about the vertical. It never comes nearer to the table."""


@dataclass(frozen=True, slots=True)
class Nearest:
    """The nearest obstacle at one posture."""

    distance_m: float
    """Distance to the arm, at most FARTHEST_M; below zero inside the obstacle."""
    part: str
    """Part of the arm that is nearest, such as `link5` or `left_finger`."""
    obstacle: str
    """`table`, or the name of a box."""


class MujocoClearance:
    """A Panda's arm and hand among obstacles at rest."""

    def __init__(self, boxes: Sequence[Box]) -> None:
        """Put boxes beside the arm on its table."""
        spec = mujoco.MjSpec.from_string(PANDA_XML.read_text(encoding="utf-8"))
        for index, box in enumerate(boxes):
            quaternion = np.zeros(4)
            mujoco.mju_mat2Quat(quaternion, box.pose.rotation.ravel())
            spec.worldbody.add_geom(
                name=f"box_{index}",
                type=mujoco.mjtGeom.mjGEOM_BOX,
                size=[box.edge_m / 2] * 3,
                pos=box.pose.position,
                quat=quaternion,
            )
        self._model = model = spec.compile()
        self._data = mujoco.MjData(model)
        obstacles = {
            model.geom(_TABLE).id: _TABLE,
            **{model.geom(f"box_{index}").id: box.name for index, box in enumerate(boxes)},
        }
        bodies = [model.body(number).name for number in model.geom_bodyid]
        arm = [geom for geom in range(model.ngeom) if model.geom_contype[geom] & _ARM_BIT]
        self._pairs = [
            (geom, other, bodies[geom], obstacle)
            for geom in arm
            for other, obstacle in obstacles.items()
            if bodies[geom] != _FIXED and (bodies[geom], obstacle) != (_TURNING, _TABLE)
        ]

    def nearest(self, joints_rad: Array, width_m: float) -> Nearest:
        """Return the nearest obstacle.

        Args:
            joints_rad: joints of the arm, (7,).
            width_m: opening of the hand.
        """
        self._data.qpos[:7] = joints_rad
        self._data.qpos[7:] = width_m / 2
        mujoco.mj_kinematics(self._model, self._data)
        return min(
            (
                Nearest(self._distance_m(geom, other), part, obstacle)
                for geom, other, part, obstacle in self._pairs
            ),
            key=lambda each: each.distance_m,
        )

    def _distance_m(self, geom: int, other: int) -> float:
        return float(mujoco.mj_geomDistance(self._model, self._data, geom, other, FARTHEST_M, None))
