"""PyBullet behind the contract of a simulator, with its own Panda.

Its arm has other link masses, other contact and friction, and no rotor inertia. A policy that was
trained in MuJoCo has never seen this arm. The arm is `franka_panda/panda.urdf`
of pybullet_data with collision shapes on every link. Bullet works out the inertias from these
shapes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.errors import RobotError
from gatort.runtime.robots.driver import INNER_PERIOD_NS
from gatort.runtime.robots.dynamics import ROTOR_INERTIA_KGM2
from gatort.runtime.robots.panda import GRIPPER_OPEN_M, JOINT_DAMPING_NMS_RAD

from .bullet_client import PANDA_URDF, BulletClient, pybullet, quietly
from .bullet_look import BulletCameras, Place
from .simulator import (
    FINGER_DAMPING_NS_M,
    FINGER_FORCE_N,
    FINGER_STIFFNESS_N_M,
    ArmModel,
    ArmState,
    Array,
    Cube,
    Pose,
    Scene,
    Simulator,
)

_ARM: Final = list(range(7))
_HAND: Final = 8
_FINGERS: Final = [9, 10]
_MOVING: Final = _ARM + _FINGERS
_TOOL_FROM_HAND_M: Final = np.array([0.0, 0.0, 0.1034])
"""Same as in panda.xml. The URDF's own grasp target lies 1.6 mm farther out."""
_GRIP_GAIN: Final = FINGER_STIFFNESS_N_M / FINGER_DAMPING_NS_M * INNER_PERIOD_NS * 1e-9
"""Share of the gap to its target that a free finger closes in one step."""


class BulletSimulator(Simulator):
    """PyBullet's Panda. A target is a place, and a ball in pictures.

    Raises:
        RobotError: from `settle` when the physics has diverged.
    """

    name = "PyBullet"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._bullet = BulletClient()
        self._cubes: dict[str, int] = {}
        self._edges_m: dict[str, float] = {}
        self._targets = {name: np.zeros(3) for name in scene.targets}
        self._cameras: BulletCameras | None = None

    def close(self) -> None:
        """Leave the simulation."""
        self._bullet.close()
        if self._cameras is not None:
            self._cameras.close()

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
        with quietly():
            # BulletCameras draws, in a simulation of its own. Meshes would only slow this one.
            self._arm = bullet.loadURDF(
                str(PANDA_URDF), useFixedBase=True, flags=pybullet.URDF_IGNORE_VISUAL_SHAPES
            )
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
        self._edges_m = {cube.name: cube.edge_m for cube in cubes}

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

    def _places(self) -> list[Place]:
        """Return the place of each cube."""
        return [self._bullet.getBasePositionAndOrientation(body) for body in self._cubes.values()]

    def joints(self) -> tuple[Array, Array]:
        """See `Simulator.joints`."""
        position, velocity = self._joints()
        return np.array(position[:7]), np.array(velocity[:7])

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

    # -- Pictures ------------------------------------------------------------------------------

    def add_camera(self, name: str, height: int, width: int) -> None:
        """See `Simulator.add_camera`."""
        if self._cameras is None:
            self._cameras = BulletCameras(self.scene)
        self._cameras.add(name, height, width)

    def draw(self, name: str) -> NDArray[np.uint8]:
        """See `Simulator.draw`."""
        if self._cameras is None:
            raise KeyError(name)
        bullet = self._bullet
        links = range(bullet.getNumJoints(self._arm))
        states = bullet.getLinkStates(self._arm, links, computeForwardKinematics=1)

        self._cameras.show_arm([(state[4], state[5]) for state in states])
        for (cube, edge_m), place in zip(self._edges_m.items(), self._places(), strict=True):
            self._cameras.show_cube(cube, edge_m, place)
        for target, position in self._targets.items():
            self._cameras.show_target(target, position.tolist())
        return self._cameras.draw(name)


def _rotation(quaternion: Sequence[float]) -> Array:
    """Return the rotation matrix (3, 3) of a quaternion (x, y, z, w)."""
    return np.array(pybullet.getMatrixFromQuaternion(quaternion)).reshape(3, 3)
