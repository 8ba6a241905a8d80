"""The simulated arm in MuJoCo: a robot whose physics follows the clock, on the wall or virtual.

`observe` steps the physics up to the clock's present, 1 ms at a time, through the same inner loop that a real
arm runs; between observations nothing moves. So one class serves a run in real time and a trial in lockstep.
"""

from __future__ import annotations

from importlib import resources
from typing import Any, Final

import mujoco
import numpy as np
from numpy.typing import NDArray

from gatort.runtime.clock import Clock
from gatort.runtime.driver import INNER_PERIOD_NS, Driver
from gatort.runtime.errors import RobotError
from gatort.runtime.inner_loop import InnerLoop
from gatort.runtime.safety import State
from gatort.runtime.spec import PolicySpec

from . import expert
from .task import BLOCKS, GRIPPER_OPEN_M, STACK_SPEC, Layout, draw_layout

Array = NDArray[np.float64]

JOINT_DAMPING_NMS_RAD: Final = 3.0
"""Added by the inner loop on every arm joint."""
SUCCESS_NS: Final = 500_000_000
"""How long red must rest on blue with the gripper open and away."""
AWAY_M: Final = 0.06
STACK_GAP_M: Final = 0.005

_ARM: Final = slice(0, 7)
_FINGERS: Final = slice(7, 9)
_warnings: list[str] = []


def load_model() -> mujoco.MjModel:
    """Compile the scene; MuJoCo's warnings are kept for the robot to raise instead of a log file."""
    mujoco.set_mju_user_warning(_warnings.append)
    return mujoco.MjModel.from_xml_string((resources.files("gatort.sim") / "stacking.xml").read_text())


class MujocoRobot(Driver):
    """A Panda-like arm on a table with three blocks.

    Args:
        clock: the one clock; physics never runs ahead of it.
        seed: of the layout; see `reset`.
        spec: which keys are observed; image keys need OpenGL.

    Raises:
        RobotError: from `observe` when the physics has diverged.
    """

    def __init__(self, clock: Clock, seed: int = 0, spec: PolicySpec = STACK_SPEC) -> None:
        super().__init__(spec, clock)
        self.spec = spec
        self.model = load_model()
        self.data = mujoco.MjData(self.model)
        self._tool = self.model.site("tool").id
        self._hand = self.model.body("hand").id
        self._blocks = [self.model.body(name).id for name in BLOCKS]
        self._block_geoms = [self.model.geom(name).id for name in BLOCKS]
        self._edges_m = np.zeros(len(BLOCKS))
        self._jacobian = np.zeros((6, self.model.nv))
        self._mass_matrix = np.zeros((self.model.nv, self.model.nv))
        self._cameras = {
            key.name: mujoco.Renderer(self.model, *key.shape[:2])
            for key in spec.observations
            if key.encoding == "image"
        }
        self.reset(seed)

    # -- Trial ---------------------------------------------------------------------------------------------------

    def reset(self, seed: int) -> None:
        """Lay out the trial of this seed, disarmed, at the clock's present. Bit for bit the same on one machine."""
        _warnings.clear()
        self._lay_out(draw_layout(seed))
        self.inner_loop = InnerLoop(self.spec)
        self._time_ns = self._clock.now_ns()
        self._stacked_since_ns: int | None = None
        self._sequence = 0

    @property
    def succeeded(self) -> bool:
        """Red has rested on blue, gripper open and away, for half a second."""
        return self._stacked_since_ns is not None and self._time_ns - self._stacked_since_ns >= SUCCESS_NS

    def close(self) -> None:
        """Free the OpenGL contexts."""
        for camera in self._cameras.values():
            camera.close()

    def expert_action(self) -> Array:
        """What the scripted expert would do now, (8,)."""
        return expert.act(self._scene())

    def _lay_out(self, layout: Layout) -> None:
        model, data = self.model, self.data
        for i, (body, geom, block) in enumerate(zip(self._blocks, self._block_geoms, layout.blocks, strict=True)):
            half = block.edge_m / 2
            model.geom_size[geom] = half
            model.geom_rbound[geom] = half * np.sqrt(3)
            model.geom_aabb[geom] = (0, 0, 0, half, half, half)
            model.geom_friction[geom, 0] = block.friction
            model.body_mass[body] = block.mass_kg
            model.body_inertia[body] = block.mass_kg * block.edge_m**2 / 6
            self._edges_m[i] = block.edge_m
        mujoco.mj_setConst(model, data)  # This puts the data at the model's reference pose.
        mujoco.mj_resetData(model, data)
        data.qpos[_ARM] = layout.joints_rad
        data.qpos[_FINGERS] = data.ctrl[:] = GRIPPER_OPEN_M / 2
        for body, block in zip(self._blocks, layout.blocks, strict=True):
            start = model.jnt_qposadr[model.body_jntadr[body]]
            data.qpos[start : start + 3] = block.x_m, block.y_m, block.edge_m / 2
            data.qpos[start + 3 : start + 7] = np.cos(block.yaw_rad / 2), 0, 0, np.sin(block.yaw_rad / 2)
        mujoco.mj_forward(model, data)

    # -- Physics -------------------------------------------------------------------------------------------------

    def _advance(self, now_ns: int) -> None:
        data, inner = self.data, self.inner_loop
        applied, bias, speed = data.qfrc_applied[_ARM], data.qfrc_bias[_ARM], data.qvel[_ARM]
        while self._time_ns + INNER_PERIOD_NS <= now_ns:
            command = self._in_effect(self._time_ns)
            np.multiply(speed, -JOINT_DAMPING_NMS_RAD, out=applied)
            applied += bias
            applied += command[_ARM]
            if inner.state is not State.DISARMED:  # Nothing moves before the operator's consent.
                data.ctrl[:] = command[7] / 2
            mujoco.mj_step(self.model, data)
            self._time_ns += INNER_PERIOD_NS
            if self._time_ns // INNER_PERIOD_NS % 10 == 0:
                self._watch_success()
        # mj_step leaves positions one step ahead of what follows from them.
        mujoco.mj_kinematics(self.model, data)
        mujoco.mj_comPos(self.model, data)
        if _warnings:
            sentence = _warnings[0]
            _warnings.clear()
            raise RobotError(f"the simulation diverged: {sentence}")

    def _watch_success(self) -> None:
        if not self._stacked():
            self._stacked_since_ns = None
        elif self._stacked_since_ns is None:
            self._stacked_since_ns = self._time_ns

    def _stacked(self) -> bool:
        red, blue = (self.data.xpos[body] for body in self._blocks[:2])
        offset = red - blue
        gap = offset[2] - self._edges_m[:2].mean()
        resting = abs(gap) < STACK_GAP_M and np.hypot(offset[0], offset[1]) < self._edges_m[:2].min() / 2
        if not resting or abs(blue[2] - self._edges_m[1] / 2) > STACK_GAP_M:
            return False
        away = np.linalg.norm(self.data.site_xpos[self._tool] - red) > AWAY_M
        opened = self.data.qpos[_FINGERS].sum() > self._edges_m[0] + 0.005
        return bool(away and opened and self._red_touches_blue())

    def _red_touches_blue(self) -> bool:
        pair = set(self._block_geoms[:2])
        return any(set(geoms) == pair for geoms in self.data.contact.geom.tolist())

    # -- Reading -------------------------------------------------------------------------------------------------

    def _read(self) -> tuple[int, list[NDArray[Any]]]:
        return self._time_ns, [self._read_key(key.name) for key in self.spec.observations]

    def _read_key(self, name: str) -> NDArray[np.float32] | NDArray[np.uint8]:
        data = self.data
        red, blue = self._blocks[:2]
        match name:
            case "arm/joint_position":
                value = data.qpos[_ARM]
            case "arm/joint_velocity":
                value = data.qvel[_ARM]
            case "blocks/blue_from_red":
                value = data.xpos[blue] - data.xpos[red]
            case "blocks/edge":
                value = self._edges_m[:2]
            case "blocks/red_from_tool":
                value = data.xpos[red] - data.site_xpos[self._tool]
            case "blocks/red_yaw_from_tool":
                value = np.array([self._red_yaw_from_tool()])
            case "gripper/width":
                value = np.array([data.qpos[_FINGERS].sum()])
            case _:
                return self._picture(name)
        reading: NDArray[np.float32] = value.astype(np.float32)
        return reading

    def _picture(self, name: str) -> NDArray[np.uint8]:
        camera = self._cameras[name]
        camera.update_scene(self.data, camera=name.removeprefix("camera/"))
        picture: NDArray[np.uint8] = camera.render()
        return picture

    def _red_yaw_from_tool(self) -> float:
        """Yaw of red's x axis from the tool's x axis about the vertical, folded into ±π/4. rad."""
        red = self.data.xmat[self._blocks[0]].reshape(3, 3)
        # Whichever side of the cube lies flattest stands for its yaw, so that a tipped block has one too.
        axis = red[:, np.argsort(np.abs(red[2]))[0]]
        tool = self.data.site_xmat[self._tool].reshape(3, 3)[:, 0]
        yaw = np.arctan2(axis[1], axis[0]) - np.arctan2(tool[1], tool[0])
        return float((yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4)

    def _scene(self) -> expert.Scene:
        data = self.data
        mujoco.mj_jacSite(self.model, data, self._jacobian[:3], self._jacobian[3:], self._tool)
        mujoco.mj_fullM(self.model, data, self._mass_matrix)
        tool = data.site_xpos[self._tool]
        red, blue = (data.xpos[body] for body in self._blocks[:2])
        return expert.Scene(
            joint_position=data.qpos[_ARM],
            joint_velocity=data.qvel[_ARM],
            tool_rotation=data.site_xmat[self._tool].reshape(3, 3),
            jacobian=self._jacobian[:, _ARM],
            mass_matrix=self._mass_matrix[_ARM, _ARM],
            width_m=float(data.qpos[_FINGERS].sum()),
            red_from_tool=red - tool,
            blue_from_red=blue - red,
            red_yaw_from_tool=self._red_yaw_from_tool(),
            red_edge_m=float(self._edges_m[0]),
            blue_edge_m=float(self._edges_m[1]),
        )
