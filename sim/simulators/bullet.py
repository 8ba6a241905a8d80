"""PyBullet behind the contract of a simulator, with its own Panda.

Its arm has other link masses, other contact and friction, and no rotor inertia. A policy that was
trained in MuJoCo has never seen this arm. The arm is `franka_panda/panda.urdf`
of pybullet_data with collision shapes on every link. Bullet works out the inertias from these
shapes.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from gatort.runtime.errors import RobotError
from gatort.runtime.robots.driver import INNER_PERIOD_NS
from gatort.runtime.robots.panda import GRIPPER_OPEN_M, JOINT_DAMPING_NMS_RAD

from .simulator import (
    FINGER_DAMPING_NS_M,
    FINGER_FORCE_N,
    FINGER_STIFFNESS_N_M,
    ROTOR_INERTIA_KGM2,
    ArmModel,
    ArmState,
    Array,
    Cube,
    Pose,
    Scene,
    Simulator,
)


@contextmanager
def _quietly() -> Iterator[None]:
    """Hold back the output of Bullet's C code. If the block fails, write it to standard error."""
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
"""Same as in panda.xml. The URDF's own grasp target lies 1.6 mm farther out."""
_GRIP_GAIN: Final = FINGER_STIFFNESS_N_M / FINGER_DAMPING_NS_M * INNER_PERIOD_NS * 1e-9
"""Share of the gap to its target that a free finger closes in one step."""
_URDF: Final = Path(pybullet_data.getDataPath(), "franka_panda", "panda.urdf")


class _Simulation:
    """Bullet's functions, bound to one of the simulations that a process may hold."""

    def __init__(self) -> None:
        self._client = pybullet.connect(pybullet.DIRECT)
        if self._client < 0:
            raise RobotError("PyBullet has no room for another simulation in this process")

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(getattr(pybullet, name), physicsClientId=self._client)


class BulletSimulator(Simulator):
    """PyBullet's Panda. It draws no pictures, so a target is a place and nothing else.

    Raises:
        RobotError: from `settle` when the physics has diverged.
    """

    name = "PyBullet"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        with _quietly():
            self._bullet = _Simulation()
        self._cubes: dict[str, int] = {}
        self._targets = {name: np.zeros(3) for name in scene.targets}

    def close(self) -> None:
        """Leave the simulation."""
        if self._bullet.isConnected():
            self._bullet.disconnect()

    # -- Placing -------------------------------------------------------------------------------

    def place_arm(self, joints_rad: Array) -> None:
        """See `Simulator.place_arm`."""
        bullet = self._bullet
        bullet.resetSimulation()
        bullet.setGravity(0, 0, -9.81)
        # Otherwise contacts come in the order of the heap, and the same trial differs from run to
        # run.
        bullet.setPhysicsEngineParameter(
            fixedTimeStep=INNER_PERIOD_NS * 1e-9, deterministicOverlappingPairs=1
        )
        table = bullet.createCollisionShape(pybullet.GEOM_PLANE)
        self._set_friction(bullet.createMultiBody(0, table), 1.0)
        self._load_arm(joints_rad)
        self._grip(GRIPPER_OPEN_M)
        self._couple_fingers()
        self._cubes = {}

    def _load_arm(self, joints_rad: Array) -> None:
        bullet = self._bullet
        with _quietly():
            self._arm = bullet.loadURDF(str(_URDF), useFixedBase=True)
        for link in range(-1, bullet.getNumJoints(self._arm)):
            bullet.changeDynamics(self._arm, link, linearDamping=0, angularDamping=0)
        for joint, position in zip(_MOVING, [*joints_rad, *(GRIPPER_OPEN_M / 2,) * 2], strict=True):
            bullet.resetJointState(self._arm, joint, position)
        # Bullet holds every joint with a motor unless the motor's force is zero.
        bullet.setJointMotorControlArray(
            self._arm, _ARM, pybullet.VELOCITY_CONTROL, forces=[0.0] * len(_ARM)
        )

    def _couple_fingers(self) -> None:
        """Make both fingers move together. Bullet does not read the URDF's `mimic`."""
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

    def place_cubes(self, cubes: Sequence[Cube]) -> None:
        """See `Simulator.place_cubes`."""
        for body in self._cubes.values():
            self._bullet.removeBody(body)
        self._cubes = {cube.name: self._make(cube) for cube in cubes}

    def _make(self, cube: Cube) -> int:
        bullet = self._bullet
        shape = bullet.createCollisionShape(pybullet.GEOM_BOX, halfExtents=[cube.edge_m / 2] * 3)
        turn = [0, 0, math.sin(cube.yaw_rad / 2), math.cos(cube.yaw_rad / 2)]
        body: int = bullet.createMultiBody(
            cube.mass_kg, shape, basePosition=list(cube.position), baseOrientation=turn
        )
        self._set_friction(body, cube.friction)
        return body

    def _set_friction(self, body: int, friction: float) -> None:
        """Set a body's friction. Bullet multiplies two of them, and table and fingers have 1."""
        self._bullet.changeDynamics(
            body, -1, lateralFriction=friction, linearDamping=0, angularDamping=0
        )

    def move_target(self, name: str, position: Array) -> None:
        """See `Simulator.move_target`."""
        self._targets[name][:] = position

    # -- Physics -------------------------------------------------------------------------------

    def step(self, torque_nm: Array, width_m: float | None) -> None:
        """See `Simulator.step`."""
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
        """Return positions and velocities of the nine joints that move."""
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

    def settle(self) -> None:
        """See `Simulator.settle`."""
        position, velocity = self._joints()
        places = [place for place, _ in self._places()]
        if not np.isfinite([*position, *velocity, *itertools.chain(*places)]).all():
            raise RobotError("the simulation diverged: PyBullet's state is not finite")

    # -- State ---------------------------------------------------------------------------------

    def _places(self) -> list[tuple[Sequence[float], Sequence[float]]]:
        """Return place (3,) and quaternion (x, y, z, w) of each cube."""
        return [self._bullet.getBasePositionAndOrientation(body) for body in self._cubes.values()]

    def arm(self) -> ArmState:
        """See `Simulator.arm`."""
        position, velocity = self._joints()
        hand = self._bullet.getLinkState(self._arm, _HAND, computeForwardKinematics=1)
        rotation = _rotation(hand[5])
        return ArmState(
            joint_position=np.array(position[:7]),
            joint_velocity=np.array(velocity[:7]),
            width_m=sum(position[7:]),
            tool_position=np.array(hand[4]) + rotation @ _TOOL_FROM_HAND_M,
            tool_rotation=rotation,
        )

    def bodies(self) -> Mapping[str, Pose]:
        """See `Simulator.bodies`."""
        cubes = {
            name: Pose(np.array(place), _rotation(turn))
            for name, (place, turn) in zip(self._cubes, self._places(), strict=True)
        }
        targets = {name: Pose(place, np.eye(3)) for name, place in self._targets.items()}
        return cubes | targets

    @property
    def positions(self) -> Array:
        """See `Simulator.positions`."""
        cubes = [(*place, w, x, y, z) for place, (x, y, z, w) in self._places()]
        targets = [(*place, 1.0, 0.0, 0.0, 0.0) for place in self._targets.values()]
        return np.array([*self._joints()[0], *itertools.chain(*cubes, *targets)])

    def touching(self, one: str, other: str) -> bool:
        """See `Simulator.touching`."""
        return bool(self._bullet.getContactPoints(self._cubes[one], self._cubes[other]))

    def arm_model(self) -> ArmModel:
        """See `Simulator.arm_model`."""
        bullet, zeros = self._bullet, [0.0] * len(_MOVING)
        position, _ = self._joints()
        tool = _TOOL_FROM_HAND_M.tolist()
        jacobian = np.array(
            bullet.calculateJacobian(self._arm, _HAND, tool, position, zeros, zeros)
        )  # (2, 3, 9)
        mass_matrix = np.array(bullet.calculateMassMatrix(self._arm, position))  # (9, 9)
        # The experts' law is made for an arm with rotors. Without them it would ask the wrist for a
        # tenth of its torque.
        return ArmModel(
            jacobian.reshape(6, -1)[:, :7], mass_matrix[:7, :7] + ROTOR_INERTIA_KGM2 * np.eye(7)
        )


def _rotation(quaternion: Sequence[float]) -> Array:
    """Return the rotation matrix (3, 3) of a quaternion (x, y, z, w)."""
    return np.array(pybullet.getMatrixFromQuaternion(quaternion)).reshape(3, 3)
