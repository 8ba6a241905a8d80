"""A scripted expert that stacks with torques. Its phase is a function of the policy's observation.

It has no timers and no memory: the same observation always gives the same action, so that a policy
can learn it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np

from gatort.runtime.robots.panda import GRIPPER_OPEN_M
from gatort.sim.simulators.simulator import ArmModel, ArmState, Array
from gatort.sim.tasks.computed_torque import torque_towards

from .view import BlockView

# Grasp: the fingers open 80 mm and a block is at most 56 mm wide, so 13 mm aside still closes
# around it.
GRASP_ASIDE_M: Final = 0.013
GRASP_ABOVE_M: Final = 0.014
GRASP_TURN_RAD: Final = 0.2
HOVER_M: Final = 0.08
"""Height above red at which the tool turns and opens before it comes down."""
CLEAR_M: Final = 0.03
"""The tool moves sideways only this far above red's centre, so that the hand sweeps no block
away."""

# Hold: how closely the fingers and red must agree.
HOLD_SLACK_M: Final = 0.003
HOLD_OFFSET_M: Final = 0.02

# Place: half a block is at least 21 mm, so 16 mm off centre still rests.
PLACE_ASIDE_M: Final = 0.016
PLACE_ABOVE_M: Final = 0.004
CARRY_HEIGHT_M: Final = 0.05
PRESS_M: Final = 0.010
"""The carried block aims this far below contact, so that a torque error does not leave it
hanging."""

# Leave.
OPENED_M: Final = 0.012
LEAVE_M: Final = 0.13


class Stage(IntEnum):
    """Phase of stacking, in order."""

    FETCH = 0
    CARRY = 1
    LEAVE = 2


@dataclass(frozen=True, slots=True)
class ToolGoal:
    """Goal of the tool, relative to its present pose, and goal of the gripper."""

    step: Array
    """From the tool, in W, (3,) m."""
    yaw_rad: float
    """Turn about the vertical."""
    width_m: float
    """Opening of the gripper."""


def act(view: BlockView, arm: ArmState, model: ArmModel) -> Array:
    """Return the action (8,): joint torques in N·m beside gravity, and a gripper opening in m."""
    goal = choose_goal(view)
    return np.append(torque_towards(arm, model, goal.step, goal.yaw_rad), goal.width_m)


def choose_goal(view: BlockView) -> ToolGoal:
    """Choose the phase from geometry alone: leave, carry, or fetch."""
    match stage_of(view):
        case Stage.LEAVE:
            return _leave(view)
        case Stage.CARRY:
            return _carry(view)
        case Stage.FETCH:
            return _fetch(view)


def stage_of(view: BlockView) -> Stage:
    """Return the phase that the blocks and the gripper are in."""
    if _placed(view):
        return Stage.LEAVE
    return Stage.CARRY if _holding(view) else Stage.FETCH


def way_left_m(view: BlockView) -> float:
    """Return the way to the end of the present phase: to red, to its place on blue, or away."""
    match stage_of(view):
        case Stage.LEAVE:
            return LEAVE_M - float(np.linalg.norm(view.red_from_tool))
        case Stage.CARRY:
            above = np.array([0.0, 0.0, _stack_height(view)])
            return float(np.linalg.norm(view.blue_from_red + above))
        case Stage.FETCH:
            return float(np.linalg.norm(view.red_from_tool))


def _stack_height(view: BlockView) -> float:
    return (view.red_edge_m + view.blue_edge_m) / 2


def _placed(view: BlockView) -> bool:
    """Check if red's centre is over blue and no higher than contact allows."""
    above = -view.blue_from_red[2] - _stack_height(view)
    return bool(_aside(view.blue_from_red) < PLACE_ASIDE_M and -0.01 < above < PLACE_ABOVE_M)


def _holding(view: BlockView) -> bool:
    """Check if the fingers are as close as red allows and red's centre is between them."""
    return bool(
        view.width_m < view.red_edge_m + HOLD_SLACK_M
        and _aside(view.red_from_tool) < HOLD_OFFSET_M
        and abs(view.red_from_tool[2]) < HOLD_OFFSET_M
    )


def _aside(offset: Array) -> float:
    """Return the horizontal length of an offset (3,) in W, in metres."""
    return float(np.hypot(offset[0], offset[1]))


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))


def _leave(view: BlockView) -> ToolGoal:
    """Open first, then rise straight up and stay there."""
    step = view.red_from_tool + np.array([0.0, 0.0, LEAVE_M])
    if view.width_m <= view.red_edge_m + OPENED_M:
        step = np.zeros(3)
    elif view.red_from_tool[2] > -0.06:
        step[:2] = 0.0
    return ToolGoal(step=step, yaw_rad=0.0, width_m=GRIPPER_OPEN_M)


def _carry(view: BlockView) -> ToolGoal:
    """Lift red clear of the others, move it over blue, set it down."""
    aside = _aside(view.blue_from_red)
    above = -view.blue_from_red[2] - _stack_height(view)
    step = view.blue_from_red.copy()
    # Above blue it comes down as it comes near. Elsewhere it first rises, and moves once it is
    # clear.
    step[2] += _stack_height(view) + _share((aside - 0.010) / 0.02) * CARRY_HEIGHT_M - PRESS_M
    if aside > 0.02:
        step[:2] *= _share((above - 0.01) / 0.02)
    return ToolGoal(step=step, yaw_rad=0.0, width_m=0.0)


def _fetch(view: BlockView) -> ToolGoal:
    """Open, hover over red with the fingers along its sides, come down, close."""
    aside, turn = _aside(view.red_from_tool), abs(view.red_yaw_from_tool)
    if (
        aside < GRASP_ASIDE_M
        and abs(view.red_from_tool[2]) < GRASP_ABOVE_M
        and turn < GRASP_TURN_RAD
    ):
        return ToolGoal(step=view.red_from_tool, yaw_rad=0.0, width_m=0.0)
    # The one that is farthest from ready keeps the tool up: place, turn or opening.
    unready = max(
        (aside - 0.010) / 0.03,
        (turn - 0.15) / 0.3,
        (view.red_edge_m + 0.014 - view.width_m) / 0.01,
    )
    step = view.red_from_tool + np.array([0.0, 0.0, _share(unready) * HOVER_M - 0.004])
    if aside > 0.03:
        step[:2] *= _share((-view.red_from_tool[2] - CLEAR_M) / 0.03)
    return ToolGoal(step=step, yaw_rad=view.red_yaw_from_tool, width_m=GRIPPER_OPEN_M)
