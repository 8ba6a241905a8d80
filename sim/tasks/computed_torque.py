"""The control law that experts share: joint torques that bring the tool to a goal.

Computed torque τ = M(q)(Kp·Δq + Kd·(q̇* − q̇)), with Δq and the wanted velocity q̇* from damped
least squares (Siciliano et al., "Robotics: Modelling, Planning and Control", 2009, sections 3.5 and
8.5).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from gatort.runtime.robots.panda import HOME_RAD, TORQUE_NM
from gatort.sim.simulators.simulator import ArmModel, ArmState, Array

STIFFNESS_PER_S2: Final = 100.0
DAMPING_PER_S: Final = 16.0
LEAST_SQUARES_DAMPING: Final = 0.05
POSTURE_GAIN: Final = 0.1
LONGEST_STEP_M: Final = 0.08
LONGEST_TURN_RAD: Final = 0.4
AT_REST: Final = np.zeros(3)


def torque_towards(
    arm: ArmState,
    model: ArmModel,
    step: Array,
    yaw_rad: float = 0.0,
    velocity_m_s: Array = AT_REST,
) -> Array:
    """Return joint torques (7,) in N·m beside gravity, limited to the actuators' range.

    The tool keeps pointing down. A goal farther away than 8 cm or 0.4 rad counts as one at that
    distance.

    Args:
        arm: state of the arm.
        model: its Jacobian and mass matrix.
        step: from the tool to its goal in W, (3,) m.
        yaw_rad: turn of the tool about the vertical.
        velocity_m_s: velocity of the goal in W, (3,), which is fed forward.
    """
    step = step * min(1.0, LONGEST_STEP_M / (float(np.linalg.norm(step)) + 1e-9))
    yaw = np.clip(yaw_rad, -LONGEST_TURN_RAD, LONGEST_TURN_RAD)
    # The tool's z axis points down: the cross product gives the smallest turn that brings it there.
    tilt = np.cross(arm.tool_rotation[:, 2], np.array([0.0, 0.0, -1.0]))
    twist = np.concatenate([step, tilt + np.array([0.0, 0.0, yaw])])  # (6,)

    jacobian = model.jacobian
    inverse = jacobian.T @ np.linalg.inv(
        jacobian @ jacobian.T + LEAST_SQUARES_DAMPING**2 * np.eye(6)
    )  # (7, 6)
    posture = POSTURE_GAIN * (HOME_RAD - arm.joint_position)
    motion = inverse @ twist + posture - inverse @ (jacobian @ posture)  # (7,) rad
    too_fast = arm.joint_velocity - inverse[:, :3] @ velocity_m_s  # (7,) rad/s

    torque = model.mass_matrix @ (STIFFNESS_PER_S2 * motion - DAMPING_PER_S * too_fast)
    limit = np.array(TORQUE_NM)
    limited: Array = np.clip(torque, -limit, limit)
    return limited
