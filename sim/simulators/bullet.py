"""The same task in PyBullet, on its own Panda: other link masses, other contact and friction, no rotor inertia.

A policy that was trained in MuJoCo meets here what it has never seen. The arm is `franka_panda/panda.urdf` of
pybullet_data with collision shapes on every link, and Bullet's own inertias, which it works out from them.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from gatort.runtime.clock import Clock
from gatort.runtime.errors import RobotError
from gatort.runtime.robots.driver import INNER_PERIOD_NS
from gatort.runtime.robots.panda import (
    GRIPPER_OPEN_M,
    JOINT_DAMPING_NMS_RAD,
)
from gatort.sim.robot import (
    FINGER_DAMPING_NS_M,
    FINGER_FORCE_N,
    FINGER_STIFFNESS_N_M,
    ROTOR_INERTIA_KGM2,
    Array,
    Poses,
    StackingRobot,
)
from gatort.sim.tasks.stacking.task import (
    STACK_SPEC,
    Layout,
)


@contextmanager
def _quietly() -> Iterator[None]:
    """Hold back what Bullet's C code prints when it starts; if it fails, what it said goes to standard error."""
    flush = ctypes.CDLL(None).fflush
    with tempfile.TemporaryFile() as said:
        streams = [(number, os.dup(number)) for number in (1, 2)]
        sys.stdout.flush()
        for number, _ in streams:
            os.dup2(said.fileno(), number)
        try:
            yield
            flush(None)
            said.truncate(0)
        finally:
            flush(None)
            for number, kept in streams:
                os.dup2(kept, number)
                os.close(kept)
            said.seek(0)
            sys.stderr.write(said.read().decode(errors="replace"))


with _quietly():
    import pybullet
    import pybullet_data

_ARM: Final = list(range(7))
_HAND: Final = 8
_FINGERS: Final = [9, 10]
_MOVING: Final = _ARM + _FINGERS
_TOOL_FROM_HAND_M: Final = np.array([0.0, 0.0, 0.1034])
"""As in stacking.xml; the URDF's own grasp target lies 1.6 mm farther out."""
_GRIP_GAIN: Final = FINGER_STIFFNESS_N_M / FINGER_DAMPING_NS_M * INNER_PERIOD_NS * 1e-9
"""Share of the gap to its target that a finger closes in one step while nothing is in its way."""
_URDF: Final = Path(pybullet_data.getDataPath(), "franka_panda", "panda.urdf")


class _Simulation:
    """Bullet's functions, all of one simulation among the many that a process may hold."""

    def __init__(self) -> None:
        self._client = pybullet.connect(pybullet.DIRECT)
        if self._client < 0:
            raise RobotError("PyBullet has no room for another simulation in this process")

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(getattr(pybullet, name), physicsClientId=self._client)


class BulletRobot(StackingRobot):
    """PyBullet's Panda on a table with three blocks; draws no pictures.

    Args:
        clock: the one clock; physics never runs ahead of it.
        seed: of the layout; see `reset`.

    Raises:
        RobotError: from `observe` when the physics has diverged.
    """

    def __init__(self, clock: Clock, seed: int = 0) -> None:
        super().__init__(clock, STACK_SPEC)
        with _quietly():
            self._bullet = _Simulation()
            self.reset(seed)

    def close(self) -> None:
        """Leave the simulation."""
        if self._bullet.isConnected():
            self._bullet.disconnect()

    def _place_arm(self, joints_rad: Array) -> None:
        bullet = self._bullet
        bullet.resetSimulation()
        bullet.setGravity(0, 0, -9.81)
        # Without the last, contacts come in the order of the heap, and the same trial differs from run to run.
        bullet.setPhysicsEngineParameter(
            fixedTimeStep=INNER_PERIOD_NS * 1e-9, deterministicOverlappingPairs=1
        )
        table = bullet.createCollisionShape(pybullet.GEOM_PLANE)
        self._make_slippery(bullet.createMultiBody(0, table), 1.0)
        self._arm = bullet.loadURDF(str(_URDF), useFixedBase=True)
        for link in range(-1, bullet.getNumJoints(self._arm)):
            bullet.changeDynamics(self._arm, link, linearDamping=0, angularDamping=0)
        for joint, position in zip(_MOVING, [*joints_rad, *(GRIPPER_OPEN_M / 2,) * 2], strict=True):
            bullet.resetJointState(self._arm, joint, position)
        # Bullet holds every joint with a motor unless it is told not to.
        bullet.setJointMotorControlArray(
            self._arm, _ARM, pybullet.VELOCITY_CONTROL, forces=[0.0] * len(_ARM)
        )
        self._grip(GRIPPER_OPEN_M)
        self._couple_fingers()
        self._blocks: list[int] = []

    def _couple_fingers(self) -> None:
        """Both fingers move together; Bullet does not read the URDF's `mimic`."""
        frame = {
            "jointAxis": [1, 0, 0],
            "parentFramePosition": [0, 0, 0],
            "childFramePosition": [0, 0, 0],
        }
        left, right = _FINGERS
        gear = self._bullet.createConstraint(
            self._arm, left, self._arm, right, pybullet.JOINT_GEAR, **frame
        )
        self._bullet.changeConstraint(gear, gearRatio=-1, erp=0.1, maxForce=50)

    def _place_blocks(self, layout: Layout) -> None:
        bullet = self._bullet
        for body in self._blocks:
            bullet.removeBody(body)
        self._blocks = []
        for block in layout.blocks:
            shape = bullet.createCollisionShape(
                pybullet.GEOM_BOX, halfExtents=[block.edge_m / 2] * 3
            )
            turn = [0, 0, math.sin(block.yaw_rad / 2), math.cos(block.yaw_rad / 2)]
            place = [block.x_m, block.y_m, block.edge_m / 2]
            body = bullet.createMultiBody(
                block.mass_kg, shape, basePosition=place, baseOrientation=turn
            )
            self._make_slippery(body, block.friction)
            self._blocks.append(body)

    def _make_slippery(self, body: int, friction: float) -> None:
        """Bullet multiplies the frictions of what touches: with 1 on table and fingers a block's own is left."""
        self._bullet.changeDynamics(
            body, -1, lateralFriction=friction, linearDamping=0, angularDamping=0
        )

    def _step(self, torque_nm: Array, width_m: float | None) -> None:
        bullet = self._bullet
        position, velocity = self._joints()
        carried = bullet.calculateInverseDynamics(
            self._arm, position, velocity, [0.0] * len(_MOVING)
        )
        torques = [
            asked + carry - JOINT_DAMPING_NMS_RAD * speed
            for asked, carry, speed in zip(torque_nm.tolist(), carried, velocity, strict=False)
        ]
        bullet.setJointMotorControlArray(self._arm, _ARM, pybullet.TORQUE_CONTROL, forces=torques)
        if width_m is not None:
            self._grip(width_m)
        bullet.stepSimulation()

    def _joints(self) -> tuple[list[float], list[float]]:
        """Positions and velocities of the nine joints that move."""
        states = self._bullet.getJointStates(self._arm, _MOVING)
        return [state[0] for state in states], [state[1] for state in states]

    def _grip(self, width_m: float) -> None:
        self._bullet.setJointMotorControlArray(
            self._arm,
            _FINGERS,
            pybullet.POSITION_CONTROL,
            targetPositions=[width_m / 2] * 2,
            forces=[FINGER_FORCE_N] * 2,
            positionGains=[_GRIP_GAIN] * 2,
        )

    def _settle(self) -> None:
        position, velocity = self._joints()
        blocks = [self._bullet.getBasePositionAndOrientation(body)[0] for body in self._blocks]
        if not np.isfinite([*position, *velocity, *itertools.chain(*blocks)]).all():
            raise RobotError("the simulation diverged: PyBullet's state is not finite")

    def _poses(self) -> Poses:
        bullet = self._bullet
        position, velocity = self._joints()
        hand = bullet.getLinkState(self._arm, _HAND, computeForwardKinematics=1)
        rotation = _rotation(hand[5])
        (red, red_turn), (blue, _) = (
            bullet.getBasePositionAndOrientation(body) for body in self._blocks[:2]
        )
        return Poses(
            joint_position=np.array(position[:7]),
            joint_velocity=np.array(velocity[:7]),
            width_m=sum(position[7:]),
            tool_position=np.array(hand[4]) + rotation @ _TOOL_FROM_HAND_M,
            tool_rotation=rotation,
            red=np.array(red),
            blue=np.array(blue),
            red_rotation=_rotation(red_turn),
        )

    @property
    def positions(self) -> Array:
        """See `StackingRobot.positions`."""
        blocks = [self._bullet.getBasePositionAndOrientation(body) for body in self._blocks]
        poses = [(*place, w, x, y, z) for place, (x, y, z, w) in blocks]
        return np.array([*self._joints()[0], *itertools.chain(*poses)])

    def _red_touches_blue(self) -> bool:
        return bool(self._bullet.getContactPoints(*self._blocks[:2]))

    def _arm_model(self) -> tuple[Array, Array]:
        bullet, zeros = self._bullet, [0.0] * len(_MOVING)
        position, _ = self._joints()
        tool = _TOOL_FROM_HAND_M.tolist()
        jacobian = np.array(
            bullet.calculateJacobian(self._arm, _HAND, tool, position, zeros, zeros)
        )  # (2, 3, 9)
        mass_matrix = np.array(bullet.calculateMassMatrix(self._arm, position))  # (9, 9)
        # The expert's law is made for an arm with rotors; without them the wrist's torques would be a tenth of it.
        return jacobian.reshape(6, -1)[:, :7], mass_matrix[:7, :7] + ROTOR_INERTIA_KGM2 * np.eye(7)


def _rotation(quaternion: Sequence[float]) -> Array:
    """Rotation matrix (3, 3) of a quaternion (x, y, z, w)."""
    return np.array(pybullet.getMatrixFromQuaternion(quaternion)).reshape(3, 3)
