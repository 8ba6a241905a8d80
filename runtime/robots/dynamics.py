"""Tool, Jacobian and mass matrix of a Panda at a posture, without a simulator.

Masses, centres and inertias of the links were identified on a real arm (Gaz et al., RA-L 2019, doi
10.1109/LRA.2019.2931248). The simulated arm (`sim/simulators/panda.xml`) has the same. Letters: 7
joints, 8 bodies, which are the links and the hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from .kinematics import Array, frames_of

ROTOR_INERTIA_KGM2: Final = 0.1
"""Rotor inertia that each arm joint reflects."""

_MASS_KG: Final = np.array(
    [4.970684, 0.646926, 3.228604, 3.587895, 1.225946, 1.666555, 0.735522, 0.76]
)
"""(8,) the hand with its fingers is the last."""
_CENTRE_M: Final = np.array(
    [
        [0.003875, 0.002081, -0.04762],
        [-0.003141, -0.02872, 0.003495],
        [0.027518, 0.039252, -0.066502],
        [-0.05317, 0.104419, 0.027454],
        [-0.011953, 0.041065, -0.038437],
        [0.060149, -0.014117, -0.010517],
        [0.010517, -0.004252, 0.061597],
        [-0.0096, 0.0, -0.0715],
    ]
)
"""(8, 3) centre of each body in the frame of its joint; the hand's is in that of the tool."""
_INERTIA_KGM2: Final = np.array(
    [
        [0.70337, 0.70661, 0.0091170, -0.00013900, 0.0067720, 0.019169],
        [0.0079620, 0.028110, 0.025995, -0.003925, 0.010254, 0.000704],
        [0.037242, 0.036155, 0.010830, -0.004761, -0.011396, -0.012805],
        [0.025853, 0.019552, 0.028323, 0.007796, -0.001332, 0.008641],
        [0.035549, 0.029474, 0.008627, -0.002117, -0.004037, 0.000229],
        [0.001964, 0.004354, 0.005433, 0.000109, -0.001158, 0.000341],
        [0.012516, 0.010027, 0.004815, -0.000428, -0.001196, -0.000741],
        [0.0012, 0.0026, 0.0017, 0.0, 0.0, 0.0],
    ]
)
"""(8, 6) inertia about that centre: xx, yy, zz, xy, xz, yz."""
_TENSOR_KGM2: Final = _INERTIA_KGM2[:, [0, 3, 4, 3, 1, 5, 4, 5, 2]].reshape(8, 3, 3)
_MOVED_BY: Final = np.arange(8)[:, None] >= np.arange(7)
"""(8, 7) true where a joint moves a body."""


@dataclass(frozen=True, slots=True)
class ArmPosture:
    """Kinematics and dynamics of the arm at one posture. W is the frame of its base."""

    tool_position: Array
    """Point between the finger pads in W, (3,) m."""
    tool_rotation: Array
    """R_world_tool, (3, 3)."""
    jacobian: Array
    """Jacobian of the tool in W, (6, 7): linear rows, then angular rows."""
    mass_matrix: Array
    """(7, 7) kg·m², rotors included."""

    @classmethod
    def of(cls, joints_rad: Array) -> ArmPosture:
        """Return the posture of a Panda whose joints are at (7,) rad."""
        frames = frames_of(joints_rad)
        axes, places = frames[:7, :3, 2], frames[:7, :3, 3]  # (7, 3) each
        tool = frames[7]
        linear = np.cross(axes, tool[:3, 3] - places)  # (7, 3)
        return cls(
            tool_position=tool[:3, 3],
            tool_rotation=tool[:3, :3],
            jacobian=np.concatenate([linear, axes], axis=1).T,
            mass_matrix=_mass_matrix(frames, axes, places),
        )


def _mass_matrix(frames: Array, axes: Array, places: Array) -> Array:
    """Return M = Σ m Jᵥᵀ Jᵥ + J_ωᵀ I J_ω over the bodies, and the rotors (7, 7)."""
    rotations = frames[:, :3, :3]  # (8, 3, 3)
    centres = frames[:, :3, 3] + (rotations @ _CENTRE_M[:, :, None])[:, :, 0]  # (8, 3)
    linear = np.cross(axes[None], centres[:, None] - places[None])  # (8, 7, 3)
    linear *= _MOVED_BY[:, :, None]
    angular = np.where(_MOVED_BY[:, :, None], axes[None], 0.0) @ rotations  # (8, 7, 3), in bodies
    moved = (_MASS_KG[:, None, None] * linear) @ linear.transpose(0, 2, 1)  # (8, 7, 7)
    turned = angular @ _TENSOR_KGM2 @ angular.transpose(0, 2, 1)  # (8, 7, 7)
    summed: Array = (moved + turned).sum(axis=0) + ROTOR_INERTIA_KGM2 * np.eye(7)
    return summed
