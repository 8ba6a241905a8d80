"""The simulated arm in MuJoCo."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from typing import Final

import mujoco
import numpy as np
from numpy.typing import NDArray

from gatort.runtime.clock import Clock
from gatort.runtime.errors import RobotError
from gatort.runtime.robots.panda import GRIPPER_OPEN_M
from gatort.runtime.safety import Command
from gatort.runtime.spec import PolicySpec
from gatort.sim.randomisation import (
    NOMINAL,
    Physics,
    Randomisation,
)
from gatort.sim.robot import (
    ROTOR_INERTIA_KGM2,
    Array,
    Poses,
    StackingRobot,
)
from gatort.sim.tasks.stacking.task import (
    BLOCKS,
    STACK_SPEC,
    Layout,
)

_ARM: Final = slice(0, 7)
_FINGERS: Final = slice(7, 9)
_warnings: list[str] = []


def load_model(layout: Layout | None = None) -> mujoco.MjModel:
    """Compile the scene, with blocks of a layout's sizes; MuJoCo's warnings are kept for the robot to raise."""
    mujoco.set_mju_user_warning(_warnings.append)  # It would write a log file otherwise.
    model = mujoco.MjModel.from_xml_string(
        (resources.files("gatort.sim.tasks.stacking") / "scene.xml").read_text()
    )
    for name, block in zip(BLOCKS, layout.blocks if layout else (), strict=False):
        _resize(model, model.geom(name).id, block.edge_m)
    return model


def _resize(model: mujoco.MjModel, geom: int, edge_m: float) -> None:
    half = edge_m / 2
    model.geom_size[geom] = half
    model.geom_rbound[geom] = half * np.sqrt(3)
    model.geom_aabb[geom] = (0, 0, 0, half, half, half)


class MujocoRobot(StackingRobot):
    """A Panda-like arm on a table with three blocks.

    Args:
        clock: the one clock; physics never runs ahead of it.
        seed: of the layout; see `reset`.
        spec: which keys are observed; image keys need OpenGL.
        randomisation: what differs from trial to trial beside the layout; nothing when absent.

    Raises:
        RobotError: from `observe` when the physics has diverged.
    """

    def __init__(
        self,
        clock: Clock,
        seed: int = 0,
        spec: PolicySpec = STACK_SPEC,
        randomisation: Randomisation | None = None,
    ) -> None:
        super().__init__(clock, spec)
        self._randomisation = randomisation
        self._physics = NOMINAL
        self.model = load_model()
        self.data = mujoco.MjData(self.model)
        self._tool = self.model.site("tool").id
        self._blocks = [self.model.body(name).id for name in BLOCKS]
        self._block_geoms = [self.model.geom(name).id for name in BLOCKS]
        self._pads = [self.model.geom(name).id for name in ("left_pad", "right_pad")]
        self._jacobian = np.zeros((6, self.model.nv))
        self._mass_matrix = np.zeros((self.model.nv, self.model.nv))
        self._cameras = {
            key.name: mujoco.Renderer(self.model, *key.shape[:2])
            for key in spec.observations
            if key.encoding == "image"
        }
        self.reset(seed)

    def close(self) -> None:
        """Free the OpenGL contexts."""
        for camera in self._cameras.values():
            camera.close()

    # -- Randomisation -------------------------------------------------------------------------------------------

    def reset(self, seed: int) -> None:
        """See `StackingRobot.reset`; the physics is drawn from the seed too where it is randomised."""
        if self._randomisation is not None:
            self._random = self._randomisation.stream(seed)
            self._take_on(self._randomisation.draw(self._random))
        super().reset(seed)

    def _take_on(self, physics: Physics) -> None:
        model, self._physics = self.model, physics
        model.dof_armature[_ARM] = physics.rotor_inertia_kgm2
        model.dof_frictionloss[_ARM] = physics.joint_friction_nm
        model.geom_friction[self._pads, 0] = physics.pad_friction
        model.actuator_gainprm[:, 0] = physics.finger_stiffness_n_m
        model.actuator_biasprm[:, 1] = -physics.finger_stiffness_n_m
        model.actuator_forcerange[:] = -physics.finger_force_n, physics.finger_force_n

    def command(self, command: Command) -> None:
        """See `Robot.command`; takes effect late or early where that is randomised."""
        if self._randomisation is not None:
            lag_ns = round(self._random.uniform(*self._randomisation.action_lag_ms) * 1e6)
            command = replace(command, apply_at_ns=command.apply_at_ns + lag_ns)
        super().command(command)

    def _sensed(self) -> Poses:
        poses, ranges = self._poses(), self._randomisation
        if ranges is None:
            return poses
        rng, bias = self._random, self._physics.block_bias_m
        turn = rng.normal(0.0, ranges.block_noise_rad)
        about_z = np.array(
            [[np.cos(turn), -np.sin(turn), 0.0], [np.sin(turn), np.cos(turn), 0.0], [0.0, 0.0, 1.0]]
        )
        return replace(
            poses,
            joint_position=poses.joint_position + rng.normal(0.0, ranges.joint_noise_rad, 7),
            joint_velocity=poses.joint_velocity + rng.normal(0.0, ranges.joint_noise_rad_s, 7),
            red=poses.red + bias[0] + rng.normal(0.0, ranges.block_noise_m, 3),
            blue=poses.blue + bias[1] + rng.normal(0.0, ranges.block_noise_m, 3),
            red_rotation=about_z @ poses.red_rotation,
        )

    # -- Physics -------------------------------------------------------------------------------------------------

    def _place_arm(self, joints_rad: Array) -> None:
        _warnings.clear()
        data = self.data
        mujoco.mj_resetData(self.model, data)
        data.qpos[_ARM] = joints_rad
        data.qpos[_FINGERS] = data.ctrl[:] = GRIPPER_OPEN_M / 2

    def _place_blocks(self, layout: Layout) -> None:
        model, data, physics = self.model, self.data, self._physics
        for i, (body, geom, block) in enumerate(
            zip(self._blocks, self._block_geoms, layout.blocks, strict=True)
        ):
            mass_kg = block.mass_kg * physics.block_mass[i]
            _resize(model, geom, block.edge_m)
            model.geom_friction[geom, 0] = block.friction * physics.block_friction[i]
            model.body_mass[body] = mass_kg
            model.body_inertia[body] = mass_kg * block.edge_m**2 / 6
        mujoco.mj_setConst(
            model, mujoco.MjData(model)
        )  # In data of its own, which it puts at the reference pose.
        for body, block in zip(self._blocks, layout.blocks, strict=True):
            joint = model.body_jntadr[body]
            start, speed = model.jnt_qposadr[joint], model.jnt_dofadr[joint]
            data.qpos[start : start + 3] = block.x_m, block.y_m, block.edge_m / 2
            data.qpos[start + 3 : start + 7] = (
                np.cos(block.yaw_rad / 2),
                0,
                0,
                np.sin(block.yaw_rad / 2),
            )
            data.qvel[speed : speed + 6] = 0
        mujoco.mj_forward(model, data)

    def _step(self, torque_nm: Array, width_m: float | None) -> None:
        data, physics = self.data, self._physics
        applied = data.qfrc_applied[_ARM]
        np.multiply(data.qvel[_ARM], physics.joint_damping_nms_rad, out=applied)
        np.subtract(data.qfrc_bias[_ARM] * physics.gravity_gain, applied, out=applied)
        applied += torque_nm * physics.torque_gain
        if width_m is not None:
            data.ctrl[:] = width_m / 2
        mujoco.mj_step(self.model, data)

    def _settle(self) -> None:
        # mj_step leaves positions one step ahead of what follows from them.
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        if _warnings:
            sentence = _warnings[0]
            _warnings.clear()
            raise RobotError(f"the simulation diverged: {sentence}")

    def _poses(self) -> Poses:
        data = self.data
        red, blue = self._blocks[:2]
        return Poses(
            joint_position=data.qpos[_ARM],
            joint_velocity=data.qvel[_ARM],
            width_m=float(data.qpos[_FINGERS].sum()),
            tool_position=data.site_xpos[self._tool],
            tool_rotation=data.site_xmat[self._tool].reshape(3, 3),
            red=data.xpos[red],
            blue=data.xpos[blue],
            red_rotation=data.xmat[red].reshape(3, 3),
        )

    @property
    def positions(self) -> Array:
        """See `StackingRobot.positions`."""
        positions: Array = self.data.qpos.copy()
        return positions

    def _red_touches_blue(self) -> bool:
        pair = set(self._block_geoms[:2])
        return any(set(geoms) == pair for geoms in self.data.contact.geom.tolist())

    def _arm_model(self) -> tuple[Array, Array]:
        mujoco.mj_jacSite(self.model, self.data, self._jacobian[:3], self._jacobian[3:], self._tool)
        mujoco.mj_fullM(self.model, self.data, self._mass_matrix)
        # What the expert counts on is nominal: it cannot see this trial's rotors, and neither can a policy.
        rotors = ROTOR_INERTIA_KGM2 - self._physics.rotor_inertia_kgm2
        return self._jacobian[:, _ARM], self._mass_matrix[_ARM, _ARM] + np.diag(rotors)

    def _picture(self, name: str) -> NDArray[np.uint8]:
        camera = self._cameras[name]
        camera.update_scene(self.data, camera=name.removeprefix("camera/"))
        picture: NDArray[np.uint8] = camera.render()
        return picture
