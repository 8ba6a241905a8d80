"""MuJoCo behind the contract of a simulator.

Call `choose_gl` before this file is first imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import mujoco
import numpy as np
from numpy.typing import NDArray

from gatort.runtime.errors import RobotError
from gatort.runtime.robots.dynamics import ROTOR_INERTIA_KGM2
from gatort.runtime.robots.panda import GRIPPER_OPEN_M

from .look import Look
from .mujoco_look import MujocoCameras
from .simulator import NOMINAL, ArmModel, ArmState, Array, Cube, Physics, Pose, Scene, Simulator

_ARM: Final = slice(0, 7)
_FINGERS: Final = slice(7, 9)
PANDA_XML: Final = Path(__file__).with_name("panda.xml")
_warnings: list[str] = []


def load_model(scene: Scene, cubes: Sequence[Cube] = ()) -> mujoco.MjModel:
    """Compile a scene, and give cubes their sizes.

    MuJoCo's warnings are collected for `MujocoSimulator.settle`, which raises them.
    """
    mujoco.set_mju_user_warning(_warnings.append)  # MuJoCo would write a log file otherwise.
    model = mujoco.MjModel.from_xml_string(
        scene.xml.read_text(encoding="utf-8"), assets={PANDA_XML.name: PANDA_XML.read_bytes()}
    )

    for cube in cubes:
        _resize(model, model.geom(cube.name).id, cube.edge_m)
    return model


def _resize(model: mujoco.MjModel, geom: int, edge_m: float) -> None:
    half = edge_m / 2
    model.geom_size[geom] = half
    model.geom_rbound[geom] = half * np.sqrt(3)
    model.geom_aabb[geom] = (0, 0, 0, half, half, half)


def show_positions(model: mujoco.MjModel, data: mujoco.MjData, positions: Array) -> None:
    """Put everything where `Simulator.positions` says, ready to be drawn."""
    data.qpos[:] = positions[: model.nq]
    targets = positions[model.nq :].reshape(model.nmocap, 7)
    data.mocap_pos[:] = targets[:, :3]
    data.mocap_quat[:] = targets[:, 3:]
    mujoco.mj_forward(model, data)


def positions_of(data: mujoco.MjData) -> Array:
    """Return a row of numbers as `Simulator.positions` describes."""
    targets = np.hstack([data.mocap_pos, data.mocap_quat])  # (targets, 7)
    return np.concatenate([data.qpos, targets.ravel()])


class MujocoSimulator(Simulator):
    """A Panda-like arm in MuJoCo.

    Raises:
        RobotError: from `settle` when the physics has diverged.
    """

    name = "MuJoCo"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self.model = load_model(scene)
        self.data = mujoco.MjData(self.model)
        self._physics = NOMINAL
        self._tool = self.model.site("tool").id
        self._cubes = {name: self.model.body(name).id for name in scene.cubes}
        self._geoms = {name: self.model.geom(name).id for name in scene.cubes}
        self._targets = {name: int(self.model.body(name).mocapid[0]) for name in scene.targets}
        self._pads = [self.model.geom(name).id for name in ("left_pad", "right_pad")]
        self._jacobian = np.zeros((6, self.model.nv))
        self._mass_matrix = np.zeros((self.model.nv, self.model.nv))
        self._cameras = MujocoCameras(self.model, list(self._geoms.values()))

    def close(self) -> None:
        """Free the OpenGL context."""
        self._cameras.close()

    # -- Placing -------------------------------------------------------------------------------

    def place_arm(self, joints_rad: Array) -> None:
        """See `Simulator.place_arm`."""
        _warnings.clear()
        data = self.data
        mujoco.mj_resetData(self.model, data)
        data.qpos[_ARM] = joints_rad
        data.qpos[_FINGERS] = data.ctrl[:] = GRIPPER_OPEN_M / 2

    def begin(self, joints_rad: Array, speeds_rad_s: Array, width_m: float) -> None:
        """See `Simulator.begin`."""
        self.place_arm(joints_rad)
        data = self.data
        data.qvel[_ARM] = speeds_rad_s
        data.qpos[_FINGERS] = data.ctrl[:] = width_m / 2
        mujoco.mj_forward(self.model, data)  # A step reads the Coriolis forces of now.

    def place_cubes(self, cubes: Sequence[Cube]) -> None:
        """See `Simulator.place_cubes`."""
        for cube in cubes:
            self._shape(cube)
        # mj_setConst puts the data that it is given at the reference pose, so it gets data of its
        # own.
        mujoco.mj_setConst(self.model, mujoco.MjData(self.model))

        for cube in cubes:
            self._put(cube)
        mujoco.mj_forward(self.model, self.data)

    def _shape(self, cube: Cube) -> None:
        model, body, geom = self.model, self._cubes[cube.name], self._geoms[cube.name]
        _resize(model, geom, cube.edge_m)
        model.geom_friction[geom, 0] = cube.friction
        model.body_mass[body] = cube.mass_kg
        model.body_inertia[body] = cube.mass_kg * cube.edge_m**2 / 6

    def _put(self, cube: Cube) -> None:
        model, data = self.model, self.data
        joint = model.body_jntadr[self._cubes[cube.name]]
        start, speed = model.jnt_qposadr[joint], model.jnt_dofadr[joint]
        half_yaw = cube.yaw_rad / 2
        data.qpos[start : start + 3] = cube.position
        data.qpos[start + 3 : start + 7] = (np.cos(half_yaw), 0, 0, np.sin(half_yaw))
        data.qvel[speed : speed + 6] = 0

    def move_target(self, name: str, position: Array) -> None:
        """See `Simulator.move_target`."""
        self.data.mocap_pos[self._targets[name]] = position

    def show(self, joints_rad: Array, width_m: float, cubes: Mapping[str, Pose]) -> None:
        """Put arm, hand and cubes at any poses, ready to be drawn. Other cubes stay.

        Args:
            joints_rad: joints of the arm, (7,).
            width_m: opening of the hand.
            cubes: poses in W by name.
        """
        model, data = self.model, self.data
        data.qpos[_ARM] = joints_rad
        data.qpos[_FINGERS] = width_m / 2
        for name, pose in cubes.items():
            start = model.jnt_qposadr[model.body_jntadr[self._cubes[name]]]
            data.qpos[start : start + 3] = pose.position
            mujoco.mju_mat2Quat(data.qpos[start + 3 : start + 7], pose.rotation.ravel())
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_camlight(model, data)

    # -- Physics -------------------------------------------------------------------------------

    def use_physics(self, physics: Physics) -> None:
        """See `Simulator.use_physics`."""
        model, self._physics = self.model, physics
        model.dof_armature[_ARM] = physics.rotor_inertia_kgm2
        model.dof_frictionloss[_ARM] = physics.joint_friction_nm
        model.geom_friction[self._pads, 0] = physics.pad_friction
        model.actuator_gainprm[:, 0] = physics.finger_stiffness_n_m
        model.actuator_biasprm[:, 1] = -physics.finger_stiffness_n_m
        model.actuator_forcerange[:] = -physics.finger_force_n, physics.finger_force_n

    def step(self, torque_nm: Array, width_m: float | None) -> None:
        """See `Simulator.step`."""
        data, physics = self.data, self._physics
        applied = data.qfrc_applied[_ARM]
        np.multiply(data.qvel[_ARM], physics.joint_damping_nms_rad, out=applied)
        np.subtract(data.qfrc_bias[_ARM] * physics.gravity_gain, applied, out=applied)
        applied += torque_nm * physics.torque_gain

        if width_m is not None:
            data.ctrl[:] = width_m / 2
        mujoco.mj_step(self.model, data)

    def settle(self) -> None:
        """See `Simulator.settle`."""
        # mj_step leaves positions one step ahead of the poses that follow from them.
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        if _warnings:
            sentence = _warnings[0]
            _warnings.clear()
            raise RobotError(f"the simulation diverged: {sentence}")

    # -- State ---------------------------------------------------------------------------------

    def joints(self) -> tuple[Array, Array]:
        """See `Simulator.joints`."""
        return self.data.qpos[_ARM], self.data.qvel[_ARM]

    def arm(self) -> ArmState:
        """See `Simulator.arm`."""
        data = self.data
        return ArmState(
            joint_position=data.qpos[_ARM],
            joint_velocity=data.qvel[_ARM],
            width_m=float(data.qpos[_FINGERS].sum()),
            tool_position=data.site_xpos[self._tool],
            tool_rotation=data.site_xmat[self._tool].reshape(3, 3),
        )

    def bodies(self) -> Mapping[str, Pose]:
        """See `Simulator.bodies`."""
        data = self.data
        cubes = {
            name: Pose(data.xpos[body], data.xmat[body].reshape(3, 3))
            for name, body in self._cubes.items()
        }
        targets = {
            name: Pose(data.mocap_pos[body], np.eye(3)) for name, body in self._targets.items()
        }
        return cubes | targets

    @property
    def positions(self) -> Array:
        """See `Simulator.positions`."""
        return positions_of(self.data)

    def touching(self, one: str, other: str) -> bool:
        """See `Simulator.touching`."""
        pair = {self._geoms[one], self._geoms[other]}
        return any(set(geoms) == pair for geoms in self.data.contact.geom.tolist())

    def arm_model(self) -> ArmModel:
        """See `Simulator.arm_model`."""
        mujoco.mj_jacSite(self.model, self.data, self._jacobian[:3], self._jacobian[3:], self._tool)
        mujoco.mj_fullM(self.model, self.data, self._mass_matrix)
        # An expert sees the rotors of this trial as little as a policy does, so it gets nominal
        # ones.
        rotors = ROTOR_INERTIA_KGM2 - self._physics.rotor_inertia_kgm2
        return ArmModel(self._jacobian[:, _ARM], self._mass_matrix[_ARM, _ARM] + np.diag(rotors))

    # -- Pictures ------------------------------------------------------------------------------

    def add_camera(self, name: str, height: int, width: int) -> None:
        """See `Simulator.add_camera`."""
        self._cameras.add(name, height, width)

    def use_look(self, look: Look) -> None:
        """See `Simulator.use_look`."""
        self._cameras.use(look)

    def draw(self, name: str) -> NDArray[np.uint8]:
        """See `Simulator.draw`."""
        return self._cameras.draw(self.data, name)
