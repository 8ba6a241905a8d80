"""The goal that experts share: the tool points down and moves to a place. See `computed_torque`."""

from __future__ import annotations

from typing import Final

import numpy as np

from gatort.runtime.robots.computed_torque import computed_torque
from gatort.sim.simulators.simulator import ArmModel, ArmState, Array

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
    turn = upright(arm.tool_rotation) + np.array([0.0, 0.0, yaw])
    return computed_torque(
        arm.joint_position,
        arm.joint_velocity,
        model.jacobian,
        model.mass_matrix,
        twist=np.concatenate([step, turn]),
        velocity=np.concatenate([velocity_m_s, AT_REST]),
    )


def upright(tool_rotation: Array) -> Array:
    """Return the smallest turn in W, (3,) rad, that makes a slightly tilted tool point down."""
    # The tool's z axis points down: the cross product gives the smallest turn that brings it there.
    return np.cross(tool_rotation[:, 2], np.array([0.0, 0.0, -1.0]))
