"""Where a command would lead: a simulated arm at the observed joints gets its torques for a period.

The prediction begins at the observed positions and velocities, with the torques of the command
before it. The torques change at the actuators' rate, as in the inner loop. No envelope helps, since
the question is where the policy alone would lead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gatort.runtime.envelope import CYCLE_S, LIMIT_MARGIN_RAD, TOOL_CYCLES, ArmLimits, outside_box
from gatort.runtime.errors import ConfigError
from gatort.runtime.robot import Observation
from gatort.runtime.robots.panda import (
    ACTUATORS,
    GRIPPER_OPEN_M,
    GRIPPER_WIDTH,
    JOINT_POSITION,
    JOINT_VELOCITY,
    JOINTS,
    TORQUE_RATE_NM_S,
)
from gatort.runtime.safety import Command
from gatort.runtime.spec import Interface

from .simulators.simulator import Array, Simulator


@dataclass(frozen=True, slots=True)
class Forecast:
    """Extremes of all predicted periods. Each array has one value per joint, (7,)."""

    ticks: int
    """Number of commands whose period was predicted."""
    broken: int
    """Number of them that would have broken a limit of the arm."""
    first: str | None
    """Sentence on the first of these; `None` without any."""
    torque_nm: Array
    """Largest commanded torque."""
    torque_change_nm: Array
    """Largest change of the commanded torque from tick to tick, from zero on."""
    speed_rad_s: Array
    """Largest predicted speed."""
    room_rad: Array
    """Smallest predicted distance to a joint limit; below zero beyond it."""


class Predictor:
    """A simulated Panda that predicts one period at a time."""

    def __init__(self, interface: Interface, simulator: Simulator, limits: ArmLimits) -> None:
        """Take a simulator of an arm alone.

        Args:
            interface: keys and actuators of the robot.
            simulator: simulator that can begin in motion. `close` closes it.
            limits: limits of the real arm.

        Raises:
            ConfigError: the robot's actuators are not a Panda's, or its joints are not observed.
        """
        require_panda(interface)
        self._names = [key.name for key in interface.observations]
        self._simulator = simulator
        self._limits = limits
        self._low, self._high = np.array(limits.low_rad), np.array(limits.high_rad)
        steps = round(interface.period_ns * 1e-9 / CYCLE_S)
        self._reach_nm = TORQUE_RATE_NM_S * CYCLE_S * np.arange(1, steps + 1)[:, None]
        """(steps, 1) farthest that a torque has changed since the command before."""
        self._before_nm = np.zeros(JOINTS)
        self._ticks = 0
        self._broken = 0
        self._first: str | None = None
        self._torque_nm = np.zeros(JOINTS)
        self._change_nm = np.zeros(JOINTS)
        self._speed_rad_s = np.zeros(JOINTS)
        self._room_rad = np.full(JOINTS, np.inf)

    @property
    def forecast(self) -> Forecast:
        """Extremes so far."""
        return Forecast(
            self._ticks,
            self._broken,
            self._first,
            self._torque_nm.copy(),
            self._change_nm.copy(),
            self._speed_rad_s.copy(),
            self._room_rad.copy(),
        )

    def predict(self, observation: Observation, command: Command) -> str | None:
        """Predict the period of a command that answers an observation.

        Returns:
            A clause on the limit that would break; `None` if none would.
        """
        target_nm = command.values[:JOINTS]
        torques_nm = np.clip(
            target_nm, self._before_nm - self._reach_nm, self._before_nm + self._reach_nm
        )  # (steps, 7)
        positions, velocities = self._simulate(observation, torques_nm, command)
        self._keep(target_nm, positions, velocities)
        reason = self._reason(positions, velocities)
        self._ticks += 1
        if reason is not None:
            self._broken += 1
            self._first = self._first or f"tick {self._ticks}: {reason}"
        return reason

    def _simulate(
        self, observation: Observation, torques_nm: Array, command: Command
    ) -> tuple[Array, Array]:
        """Return positions and velocities, (steps + 1, 7) each, from the observed ones on."""
        seen = dict(zip(self._names, observation.values, strict=True))
        has_hand = len(command.values) > JOINTS
        width_m = float(seen[GRIPPER_WIDTH][0]) if GRIPPER_WIDTH in seen else GRIPPER_OPEN_M
        self._simulator.begin(seen[JOINT_POSITION], seen[JOINT_VELOCITY], width_m)

        positions = np.empty((len(torques_nm) + 1, JOINTS))
        velocities = np.empty_like(positions)
        positions[0], velocities[0] = self._simulator.joints()
        for index, torque_nm in enumerate(torques_nm, 1):
            self._simulator.step(torque_nm, float(command.values[JOINTS]) if has_hand else None)
            positions[index], velocities[index] = self._simulator.joints()
        return positions, velocities

    def _keep(self, target_nm: Array, positions: Array, velocities: Array) -> None:
        self._torque_nm = np.maximum(self._torque_nm, np.abs(target_nm))
        self._change_nm = np.maximum(self._change_nm, np.abs(target_nm - self._before_nm))
        self._speed_rad_s = np.maximum(self._speed_rad_s, np.abs(velocities).max(axis=0))
        room = np.minimum(positions - self._low, self._high - positions).min(axis=0)
        self._room_rad = np.minimum(self._room_rad, room)
        self._before_nm = target_nm.copy()

    def _reason(self, positions: Array, velocities: Array) -> str | None:
        """Return the first limit that breaks: a joint's range, its speed, or the tool's box."""
        room = np.minimum(positions - self._low, self._high - positions)
        for step, joint in np.argwhere(room < LIMIT_MARGIN_RAD)[:1]:
            low, high = self._low[joint], self._high[joint]
            return (
                f"joint {joint + 1} would come to {positions[step, joint]:.3f} rad, "
                f"at its limit ({low:g} to {high:g})"
            )
        fastest = fastest_rad_s(self._limits, positions, velocities)
        for step, joint in np.argwhere(np.abs(velocities) > fastest)[:1]:
            return (
                f"joint {joint + 1} would turn at {abs(velocities[step, joint]):.2f} rad/s, "
                f"above its limit of {fastest[step, joint]:.4g}"
            )
        places = (outside_box(self._limits, at) for at in positions[::TOOL_CYCLES].tolist())
        return next((reason for reason in places if reason is not None), None)

    def close(self) -> None:
        """Free the simulator."""
        self._simulator.close()


def require_panda(interface: Interface) -> None:
    """Check that the simulated Panda can stand for a robot.

    Raises:
        ConfigError: the robot's actuators are not a Panda's, or its joints are not observed.
    """
    actuators = interface.actuators
    if actuators not in (ACTUATORS, ACTUATORS[:JOINTS]):
        names = ", ".join(each.name for each in actuators)
        raise ConfigError(
            "a dry run predicts a Panda or FR3: expected its joint torques, and at most a hand's "
            f"width, as actuators, found {names} with other names, units or ranges"
        )
    keys = [key.name for key in interface.observations]
    if missing := [name for name in (JOINT_POSITION, JOINT_VELOCITY) if name not in keys]:
        raise ConfigError(
            f"a dry run needs the observation key {missing[0]}, found {', '.join(keys)}"
        )


def fastest_rad_s(limits: ArmLimits, position_rad: Array, velocity_rad_s: Array) -> Array:
    """Return each joint's speed limit at its position, in the direction of its velocity.

    It is the envelope's: on an FR3 it falls near the joint limits.
    """
    fastest = np.broadcast_to(np.array(limits.speed_rad_s), position_rad.shape)
    if not limits.stopping_rad_s2:
        return fastest
    room = np.where(
        velocity_rad_s > 0,
        np.array(limits.high_rad) - position_rad,
        position_rad - np.array(limits.low_rad),
    )
    falling = np.sqrt(2 * np.array(limits.stopping_rad_s2) * np.maximum(room, 0))
    slowed: Array = np.clip(falling - np.array(limits.stopping_offset_rad_s), 0, fastest)
    return slowed
