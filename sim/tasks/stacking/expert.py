"""A scripted expert that stacks with torques, whose phase is a function of what the policy observes.

No timers and no memory: the same observation always gives the same action, so that a policy can learn it.
Joint torques follow the computed-torque law τ = M(q)(Kp·Δq − Kd·q̇) with Δq from damped least squares
(Siciliano et al., "Robotics: Modelling, Planning and Control", 2009, sections 3.5 and 8.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.robots.panda import (
    GRIPPER_OPEN_M,
    TORQUE_NM,
)

from .task import HOME_RAD

Array = NDArray[np.float64]

STIFFNESS_PER_S2: Final = 100.0
DAMPING_PER_S: Final = 16.0
LEAST_SQUARES_DAMPING: Final = 0.05
POSTURE_GAIN: Final = 0.1
LONGEST_STEP_M: Final = 0.08
LONGEST_TURN_RAD: Final = 0.4

# Grasp: the fingers open 80 mm and a block is at most 56 mm wide, so 13 mm aside still closes around it.
GRASP_ASIDE_M: Final = 0.013
GRASP_ABOVE_M: Final = 0.014
GRASP_TURN_RAD: Final = 0.2
HOVER_M: Final = 0.08
"""Height over red at which the tool turns and opens before it comes down."""
CLEAR_M: Final = 0.03
"""The tool moves sideways only this far above red's centre, so that the hand sweeps no block away."""

# Hold: what tells that red is between the fingers.
HOLD_SLACK_M: Final = 0.003
HOLD_OFFSET_M: Final = 0.02

# Place: half a block is at least 21 mm, so 16 mm off centre still rests.
PLACE_ASIDE_M: Final = 0.016
PLACE_ABOVE_M: Final = 0.004
CARRY_HEIGHT_M: Final = 0.05
PRESS_M: Final = 0.010
"""How far below contact the carried block aims, so that a torque error does not leave it hanging."""

# Leave.
OPENED_M: Final = 0.012
LEAVE_M: Final = 0.13


@dataclass(frozen=True, slots=True)
class Scene:
    """What the expert looks at: the policy's observation in full precision, and the arm's model. W is the world."""

    joint_position: Array
    """(7,) rad."""
    joint_velocity: Array
    """(7,) rad/s."""
    tool_rotation: Array
    """(3, 3) R_world_tool."""
    jacobian: Array
    """(6, 7) of the tool in W: linear rows, then angular."""
    mass_matrix: Array
    """(7, 7) kg·m²."""
    width_m: float
    """Gripper opening."""
    red_from_tool: Array
    """(3,) m in W."""
    blue_from_red: Array
    """(3,) m in W."""
    red_yaw_from_tool: float
    """rad, folded into ±π/4 because a cube looks the same after a quarter turn."""
    red_edge_m: float
    blue_edge_m: float


@dataclass(frozen=True, slots=True)
class Goal:
    """Where the tool should go from here, and what the gripper should do."""

    step: Array
    """(3,) m in W from the tool."""
    yaw_rad: float
    """Turn about the vertical."""
    width_m: float


def act(scene: Scene) -> Array:
    """Return the action, (8,): seven joint torques in N·m beside gravity, and a gripper opening in m."""
    goal = choose_goal(scene)
    return np.append(_torque(scene, goal), goal.width_m)


def choose_goal(scene: Scene) -> Goal:
    """Pick the phase from geometry alone: leave, carry, or fetch."""
    if _placed(scene):
        return _leave(scene)
    if _holding(scene):
        return _carry(scene)
    return _fetch(scene)


def _stack_height(scene: Scene) -> float:
    return (scene.red_edge_m + scene.blue_edge_m) / 2


def _placed(scene: Scene) -> bool:
    """Red's centre is over blue and no higher than contact allows."""
    above = -scene.blue_from_red[2] - _stack_height(scene)
    return bool(_aside(scene.blue_from_red) < PLACE_ASIDE_M and -0.01 < above < PLACE_ABOVE_M)


def _holding(scene: Scene) -> bool:
    """The fingers are as close as red allows and red's centre is between them."""
    return bool(
        scene.width_m < scene.red_edge_m + HOLD_SLACK_M
        and _aside(scene.red_from_tool) < HOLD_OFFSET_M
        and abs(scene.red_from_tool[2]) < HOLD_OFFSET_M
    )


def _aside(offset: Array) -> float:
    """Horizontal length of an offset (3,) in W, in metres."""
    return float(np.hypot(offset[0], offset[1]))


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))


def _leave(scene: Scene) -> Goal:
    """Open first, then rise straight up; stay there."""
    step = scene.red_from_tool + np.array([0.0, 0.0, LEAVE_M])
    if scene.width_m <= scene.red_edge_m + OPENED_M:
        step = np.zeros(3)
    elif scene.red_from_tool[2] > -0.06:
        step[:2] = 0.0
    return Goal(step=step, yaw_rad=0.0, width_m=GRIPPER_OPEN_M)


def _carry(scene: Scene) -> Goal:
    """Lift red clear of the others, move it over blue, set it down."""
    aside = _aside(scene.blue_from_red)
    above = -scene.blue_from_red[2] - _stack_height(scene)
    step = scene.blue_from_red.copy()
    # Above blue it comes down as it comes near; elsewhere it first rises, and moves only once it is clear.
    step[2] += _stack_height(scene) + _share((aside - 0.010) / 0.02) * CARRY_HEIGHT_M - PRESS_M
    if aside > 0.02:
        step[:2] *= _share((above - 0.01) / 0.02)
    return Goal(step=step, yaw_rad=0.0, width_m=0.0)


def _fetch(scene: Scene) -> Goal:
    """Open, hover over red with the fingers along its sides, come down, close."""
    aside, turn = _aside(scene.red_from_tool), abs(scene.red_yaw_from_tool)
    if (
        aside < GRASP_ASIDE_M
        and abs(scene.red_from_tool[2]) < GRASP_ABOVE_M
        and turn < GRASP_TURN_RAD
    ):
        return Goal(step=scene.red_from_tool, yaw_rad=0.0, width_m=0.0)
    # Whichever is farthest from ready keeps the tool up: place, turn or opening.
    unready = max(
        (aside - 0.010) / 0.03,
        (turn - 0.15) / 0.3,
        (scene.red_edge_m + 0.014 - scene.width_m) / 0.01,
    )
    step = scene.red_from_tool + np.array([0.0, 0.0, _share(unready) * HOVER_M - 0.004])
    if aside > 0.03:
        step[:2] *= _share((-scene.red_from_tool[2] - CLEAR_M) / 0.03)
    return Goal(step=step, yaw_rad=scene.red_yaw_from_tool, width_m=GRIPPER_OPEN_M)


def _torque(scene: Scene, goal: Goal) -> Array:
    """Computed torque towards the goal, at most 8 cm and 0.4 rad away, limited to the actuators' range. (7,) N·m."""
    step = goal.step * min(1.0, LONGEST_STEP_M / (float(np.linalg.norm(goal.step)) + 1e-9))
    yaw = np.clip(goal.yaw_rad, -LONGEST_TURN_RAD, LONGEST_TURN_RAD)
    # The tool's z axis points down: the cross product gives the smallest turn that brings it there.
    tilt = np.cross(scene.tool_rotation[:, 2], np.array([0.0, 0.0, -1.0]))
    twist = np.concatenate([step, tilt + np.array([0.0, 0.0, yaw])])  # (6,)
    jacobian = scene.jacobian
    inverse = jacobian.T @ np.linalg.inv(
        jacobian @ jacobian.T + LEAST_SQUARES_DAMPING**2 * np.eye(6)
    )  # (7, 6)
    posture = POSTURE_GAIN * (HOME_RAD - scene.joint_position)
    motion = inverse @ twist + posture - inverse @ (jacobian @ posture)  # (7,) rad
    torque = scene.mass_matrix @ (STIFFNESS_PER_S2 * motion - DAMPING_PER_S * scene.joint_velocity)
    limit = np.array(TORQUE_NM)
    limited: Array = np.clip(torque, -limit, limit)
    return limited
