"""From a person's wish to an action: the tool's goal runs ahead, and computed torque follows it.

A velocity alone would sag under gravity's errors and stick in friction, so the wish moves a goal
pose. The goal is never far ahead of the tool. That bounds the force on things in the way, and lets
the arm stop where it is once the person lets go.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from gatort.runtime.errors import ConfigError
from gatort.runtime.robot import Observation
from gatort.runtime.robots.computed_torque import DAMPING_PER_S, computed_torque
from gatort.runtime.robots.dynamics import ArmPosture
from gatort.runtime.robots.kinematics import Array
from gatort.runtime.robots.panda import (
    ACTUATORS,
    GRIPPER_OPEN_M,
    GRIPPER_WIDTH,
    JOINT_DAMPING_NMS_RAD,
    JOINT_POSITION,
    JOINT_VELOCITY,
    JOINTS,
    PANDA_LIMITS,
)
from gatort.runtime.spec import Interface

from .wish import Wish, still

FASTEST_M_S: Final = 0.25
"""Largest speed of the tool under a person: ISO 10218-1's reduced speed."""
FASTEST_RAD_S: Final = 0.8
"""Largest turn of the tool per second."""
ACCELERATION_M_S2: Final = 0.8
"""Largest change of the wanted speed, so that a key does not jerk the arm."""
ACCELERATION_RAD_S2: Final = 2.5
"""Largest change of the wanted turn."""
LEAD_M: Final = 0.02
"""Largest distance from the tool to its goal. An arm that is held back then presses with less
torque than its envelope takes for a collision."""
LEAD_RAD: Final = 0.15
BOX_MARGIN_M: Final = 0.01
"""The goal stays this far within the box that the envelope keeps the tool in."""


class ToolMotion:
    """Goal of the tool under a person, and the actions that follow it."""

    def __init__(self, interface: Interface) -> None:
        """Prepare for a robot.

        Raises:
            ConfigError: the robot is no Panda and no FR3.
        """
        names = [key.name for key in interface.observations]
        if interface.actuators not in (ACTUATORS, ACTUATORS[:JOINTS]) or not (
            {JOINT_POSITION, JOINT_VELOCITY} <= set(names)
        ):
            driven = ", ".join(each.name for each in interface.actuators)
            raise ConfigError(
                f"--takeover drives a Panda or FR3: expected the keys {JOINT_POSITION} and "
                f"{JOINT_VELOCITY}, its joint torques and at most a hand's width, found the keys "
                f"{', '.join(names)} and the actuators {driven}"
            )
        self._position, self._velocity = names.index(JOINT_POSITION), names.index(JOINT_VELOCITY)
        self._width = names.index(GRIPPER_WIDTH) if GRIPPER_WIDTH in names else None
        self._has_hand = len(interface.actuators) > JOINTS
        self._period_s = interface.period_ns * 1e-9
        self._delay_s = interface.action_delay_ns * 1e-9
        self._low_m = np.array(PANDA_LIMITS.box_low_m) + BOX_MARGIN_M
        self._high_m = np.array(PANDA_LIMITS.box_high_m) - BOX_MARGIN_M
        self._place_m = still()
        """Goal of the tool in W, (3,)."""
        self._rotation = np.eye(3)
        """R_world_goal, (3, 3)."""
        self._linear_m_s = still()
        self._angular_rad_s = still()
        self._width_m = 0.0

    def begin(self, observation: Observation, *, is_commanded: bool) -> None:
        """Put the goal where the tool is. The gripper keeps its command, and with it its grip.

        Args:
            observation: the robot's observation, with all its keys.
            is_commanded: false in the first tick, in which the gripper keeps its opening.
        """
        posture = self._posture(observation)
        self._place_m = posture.tool_position.copy()
        self._rotation = posture.tool_rotation.copy()
        self._linear_m_s, self._angular_rad_s = still(), still()
        if is_commanded and self._has_hand:
            self._width_m = float(observation.applied[JOINTS])
        elif self._width is not None:
            self._width_m = float(observation.values[self._width][0])

    def action(self, observation: Observation, wish: Wish) -> Array:
        """Move the goal by one tick, and return the action (A,) that follows it.

        Args:
            observation: the robot's observation, with all its keys.
            wish: velocities and opening that the person wants.
        """
        joints_rad, speeds_rad_s, posture = self._predicted(observation)
        before = np.concatenate([self._linear_m_s, self._angular_rad_s])
        self._move(posture, wish)
        velocity = np.concatenate([self._linear_m_s, self._angular_rad_s])  # (6,)
        # The goal's acceleration is fed forward too: τ = M(a + …).
        forward = velocity + (velocity - before) / (self._period_s * DAMPING_PER_S)
        turn = rotation_vector(self._rotation @ posture.tool_rotation.T)
        torque_nm = computed_torque(
            joints_rad,
            speeds_rad_s,
            posture.jacobian,
            posture.mass_matrix,
            twist=np.concatenate([self._place_m - posture.tool_position, turn]),
            velocity=forward,
            damping_nms_rad=JOINT_DAMPING_NMS_RAD,
        )
        return np.append(torque_nm, self._width_m) if self._has_hand else torque_nm

    def _move(self, posture: ArmPosture, wish: Wish) -> None:
        """Move the goal by one tick, and keep it near the tool and within the box."""
        step_s = self._period_s
        wanted = shortened(wish.linear_m_s, FASTEST_M_S)
        linear = _towards(self._linear_m_s, wanted, ACCELERATION_M_S2 * step_s)
        lead_m = shortened(self._place_m + linear * step_s - posture.tool_position, LEAD_M)
        place_m = np.clip(posture.tool_position + lead_m, self._low_m, self._high_m)
        # A goal that is held back by the tool has no velocity to feed forward.
        self._linear_m_s = shortened((place_m - self._place_m) / step_s, FASTEST_M_S)
        self._place_m = place_m

        wanted = shortened(wish.angular_rad_s, FASTEST_RAD_S)
        angular = _towards(self._angular_rad_s, wanted, ACCELERATION_RAD_S2 * step_s)
        ahead = turned(angular * step_s) @ self._rotation
        lead = shortened(rotation_vector(ahead @ posture.tool_rotation.T), LEAD_RAD)
        rotation = turned(lead) @ posture.tool_rotation
        turn = rotation_vector(rotation @ self._rotation.T)
        self._angular_rad_s = shortened(turn / step_s, FASTEST_RAD_S)
        self._rotation = rotation

        if wish.width_m is not None:
            self._width_m = min(max(wish.width_m, 0.0), GRIPPER_OPEN_M)

    def _predicted(self, observation: Observation) -> tuple[Array, Array, ArmPosture]:
        """Return joints (7,), their speeds (7,) and the posture when the action takes effect.

        Until then the torques in effect go on. Without this, each action answers an arm of 25 ms
        ago, and the tool overshoots its wanted velocity by 70 %.
        """
        joints_rad = observation.values[self._position].astype(np.float64)
        speeds_rad_s = observation.values[self._velocity].astype(np.float64)
        posture = ArmPosture.of(joints_rad)
        torque_nm = observation.applied[:JOINTS] - JOINT_DAMPING_NMS_RAD * speeds_rad_s
        change = np.linalg.solve(posture.mass_matrix, torque_nm) * self._delay_s
        ahead_rad = joints_rad + (speeds_rad_s + change / 2) * self._delay_s
        return ahead_rad, speeds_rad_s + change, ArmPosture.of(ahead_rad)

    def _posture(self, observation: Observation) -> ArmPosture:
        return ArmPosture.of(observation.values[self._position].astype(np.float64))


def shortened(vector: Array, longest: float) -> Array:
    """Return a vector in the same direction that is no longer than `longest`."""
    length = float(np.linalg.norm(vector))
    return vector * (longest / length) if length > longest else vector


def _towards(value: Array, goal: Array, most: float) -> Array:
    return value + shortened(goal - value, most)


def turned(vector_rad: Array) -> Array:
    """Return the rotation (3, 3) about a vector by its length (Rodrigues' formula)."""
    angle = float(np.linalg.norm(vector_rad))
    if angle < 1e-9:
        return np.eye(3)
    x, y, z = vector_rad / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    rotation: Array = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
    return rotation


def rotation_vector(rotation: Array) -> Array:
    """Return the vector (3,) about which a rotation turns by less than half a turn, its length in
    rad.
    """
    skew = np.array(
        [
            rotation[2, 1] - rotation[1, 2],
            rotation[0, 2] - rotation[2, 0],
            rotation[1, 0] - rotation[0, 1],
        ]
    )
    sine = float(np.linalg.norm(skew)) / 2
    if sine < 1e-9:
        return still()
    angle = float(np.arctan2(sine, (np.trace(rotation) - 1) / 2))
    vector: Array = skew * (angle / (2 * sine))
    return vector
