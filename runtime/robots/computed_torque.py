"""The control law that brings the tool to a goal: joint torques at the rate of the policy.

Computed torque τ = M(q)(Kp·Δq + Kd·(q̇* − q̇)), with Δq and the wanted velocity q̇* from damped
least squares (Siciliano et al., "Robotics: Modelling, Planning and Control", 2009, sections 3.5 and
8.5). A posture in the null space of the tool's task keeps the elbow where trials start.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from .kinematics import Array
from .panda import HOME_RAD, TORQUE_NM

STIFFNESS_PER_S2: Final = 100.0
DAMPING_PER_S: Final = 16.0
LEAST_SQUARES_DAMPING: Final = 0.05
POSTURE_GAIN: Final = 0.1


def computed_torque(
    joint_position: Array,
    joint_velocity: Array,
    jacobian: Array,
    mass_matrix: Array,
    twist: Array,
    velocity: Array,
    damping_nms_rad: float = 0.0,
) -> Array:
    """Return joint torques (7,) in N·m beside gravity, limited to the actuators' range.

    Args:
        joint_position: (7,) rad.
        joint_velocity: (7,) rad/s.
        jacobian: Jacobian of the tool in W, (6, 7).
        mass_matrix: (7, 7) kg·m².
        twist: small motion from the tool to its goal in W, (6,): m, then rad.
        velocity: velocity of the goal in W, (6,): m/s, then rad/s. It is fed forward.
        damping_nms_rad: damping of the joints whose torque at that velocity is fed forward too.
    """
    inverse = jacobian.T @ np.linalg.inv(
        jacobian @ jacobian.T + LEAST_SQUARES_DAMPING**2 * np.eye(6)
    )  # (7, 6)
    posture = POSTURE_GAIN * (HOME_RAD - joint_position)
    motion = inverse @ twist + posture - inverse @ (jacobian @ posture)  # (7,) rad
    wanted = inverse @ velocity  # (7,) rad/s
    too_fast = joint_velocity - wanted

    torque = mass_matrix @ (STIFFNESS_PER_S2 * motion - DAMPING_PER_S * too_fast)
    torque += damping_nms_rad * wanted
    limit = np.array(TORQUE_NM)
    limited: Array = np.clip(torque, -limit, limit)
    return limited
