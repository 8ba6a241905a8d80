"""The simulated arm on its table, whatever simulates it: layout, success, observation keys and the expert's view.

Physics follows the clock, on the wall or virtual: `observe` steps it up to the present, 1 ms at a time, through the
same inner loop that a real arm runs; between observations nothing moves. So one class serves a run in real time and a
trial in lockstep. A simulator adds a subclass: `robot_mujoco.py`, `robot_bullet.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.clock import Clock
from gatort.runtime.inner_loop import InnerLoop
from gatort.runtime.robots.driver import (
    INNER_PERIOD_NS,
    Driver,
)
from gatort.runtime.safety import State
from gatort.runtime.spec import PolicySpec
from gatort.sim.tasks.stacking import expert
from gatort.sim.tasks.stacking.task import (
    Layout,
    draw_layout,
)

Array = NDArray[np.float64]

# The arm, alike in both simulators; stacking.xml holds them as well.
ROTOR_INERTIA_KGM2: Final = 0.1
"""Reflected to each arm joint. The expert counts on it everywhere, Bullet's arm, which has none, included."""
FINGER_FORCE_N: Final = 35.0
"""The most that a finger closes with; Franka Hand gives 70 N of continuous force."""
FINGER_STIFFNESS_N_M: Final = 800.0
"""Force per gap between a finger and where it was told to go."""
FINGER_DAMPING_NS_M: Final = 20.0
"""Of a finger's joint: with the stiffness, a gap closes at 40 a second."""
PAD_FRICTION: Final = 1.2

BRAKING_NMS_RAD: Final = np.array([30.0, 30.0, 30.0, 30.0, 0.0, 0.0, 0.0])
"""Beside the usual damping once the arm is latched: Franka's own control brakes an arm that is no longer driven, and
without it a simulated one would coast for a quarter of a metre."""

SUCCESS_NS: Final = 500_000_000
"""How long red must rest on blue with the gripper open and away."""
WATCH_STEPS: Final = 10
"""Success is looked for once in so many inner steps."""
AWAY_M: Final = 0.06
STACK_GAP_M: Final = 0.005


@dataclass(frozen=True, slots=True)
class Poses:
    """Where everything is at one instant; arrays may be views that the next step changes. W is the world."""

    joint_position: Array
    """(7,) rad."""
    joint_velocity: Array
    """(7,) rad/s."""
    width_m: float
    """Gripper opening."""
    tool_position: Array
    """(3,) m in W."""
    tool_rotation: Array
    """(3, 3) R_world_tool."""
    red: Array
    """(3,) m in W, of its centre."""
    blue: Array
    """(3,) m in W, of its centre."""
    red_rotation: Array
    """(3, 3) R_world_red."""

    @property
    def red_yaw_from_tool(self) -> float:
        """Yaw of red's x axis from the tool's x axis about the vertical, folded into ±π/4. rad."""
        # Whichever side of the cube lies flattest stands for its yaw, so that a tipped block has one too.
        axis = self.red_rotation[:, np.argsort(np.abs(self.red_rotation[2]))[0]]
        tool = self.tool_rotation[:, 0]
        yaw = np.arctan2(axis[1], axis[0]) - np.arctan2(tool[1], tool[0])
        return float((yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4)


class StackingRobot(Driver):
    """A Panda-like arm on a table with three blocks; a simulator adds the physics.

    Args:
        clock: the one clock; physics never runs ahead of it.
        spec: which keys are observed.
    """

    def __init__(self, clock: Clock, spec: PolicySpec) -> None:
        super().__init__(spec, clock)
        self.spec = spec
        self.layout: Layout
        """What lies on the table."""
        self._edges_m: Array

    # -- What a simulator adds -------------------------------------------------------------------------------------

    @abstractmethod
    def _place_arm(self, joints_rad: Array) -> None:
        """Start the simulation anew: the arm at rest at joints (7,), the gripper open, the blocks anywhere."""

    @abstractmethod
    def _place_blocks(self, layout: Layout) -> None:
        """Give the blocks their sizes, masses and frictions and put them where the layout says; the arm stays."""

    @abstractmethod
    def _step(self, torque_nm: Array, width_m: float | None) -> None:
        """One millisecond with torques (7,) beside gravity, Coriolis forces and damping, which the simulator adds.

        The gripper goes to `width_m`, and to where it was told last when there is none.
        """

    @abstractmethod
    def _settle(self) -> None:
        """Make poses current after the last step.

        Raises:
            RobotError: the physics has diverged.
        """

    @abstractmethod
    def _poses(self) -> Poses:
        """Where everything is."""

    @property
    @abstractmethod
    def positions(self) -> Array:
        """(30,) as in stacking.xml: arm, fingers, then each block's place and quaternion (w first); for pictures."""

    @abstractmethod
    def _red_touches_blue(self) -> bool:
        """Whether they are in contact."""

    @abstractmethod
    def _arm_model(self) -> tuple[Array, Array]:
        """Jacobian (6, 7) of the tool in W, linear rows first, and mass matrix (7, 7) in kg·m²."""

    # -- Trial ---------------------------------------------------------------------------------------------------

    def reset(self, seed: int) -> None:
        """Lay out the trial of this seed, disarmed, at the clock's present. Bit for bit the same on one machine."""
        layout = draw_layout(seed)
        self._place_arm(np.array(layout.joints_rad))
        self.inner_loop = InnerLoop(self.spec, self.inner_loop.safe_after_ns)
        self._time_ns = self._clock.now_ns()
        self._sequence = 0
        self._lay(layout)

    def lay_blocks(self, seed: int) -> None:
        """Lay out the blocks of another seed while the arm stays where it is; success is watched anew."""
        self.advance()
        self._lay(draw_layout(seed))

    def _lay(self, layout: Layout) -> None:
        self.layout = layout
        self._edges_m = np.array([block.edge_m for block in layout.blocks])
        self._place_blocks(layout)
        self._stacked_since_ns: int | None = None

    @property
    def succeeded(self) -> bool:
        """Red has rested on blue, gripper open and away, for half a second."""
        return (
            self._stacked_since_ns is not None
            and self._time_ns - self._stacked_since_ns >= SUCCESS_NS
        )

    def expert_action(self) -> Array:
        """What the scripted expert would do now, (8,)."""
        return expert.act(self._scene())

    # -- Physics -------------------------------------------------------------------------------------------------

    def _advance(self, now_ns: int) -> None:
        while self._time_ns + INNER_PERIOD_NS <= now_ns:
            command = self._in_effect(self._time_ns)
            torque_nm, width_m = command[:7], float(command[7])
            if self.inner_loop.state is State.LATCHED:
                torque_nm = torque_nm - BRAKING_NMS_RAD * self._poses().joint_velocity
            # Nothing moves before the operator's consent.
            self._step(torque_nm, None if self.inner_loop.state is State.DISARMED else width_m)
            self._time_ns += INNER_PERIOD_NS
            if self._time_ns // INNER_PERIOD_NS % WATCH_STEPS == 0:
                self._watch_success()
        self._settle()

    def _watch_success(self) -> None:
        if not self._stacked(self._poses()):
            self._stacked_since_ns = None
        elif self._stacked_since_ns is None:
            self._stacked_since_ns = self._time_ns

    def _stacked(self, poses: Poses) -> bool:
        red, blue = poses.red, poses.blue
        offset = red - blue
        gap = offset[2] - self._edges_m[:2].mean()
        resting = (
            abs(gap) < STACK_GAP_M and np.hypot(offset[0], offset[1]) < self._edges_m[:2].min() / 2
        )
        if not resting or abs(blue[2] - self._edges_m[1] / 2) > STACK_GAP_M:
            return False
        away = np.linalg.norm(poses.tool_position - red) > AWAY_M
        opened = poses.width_m > self._edges_m[0] + 0.005
        return bool(away and opened and self._red_touches_blue())

    # -- Reading -------------------------------------------------------------------------------------------------

    def _read(self) -> tuple[int, list[NDArray[Any]]]:
        poses = self._sensed()
        return self._time_ns, [self._read_key(key.name, poses) for key in self.spec.observations]

    def _sensed(self) -> Poses:
        """Where the sensors say that everything is."""
        return self._poses()

    def _read_key(self, name: str, poses: Poses) -> NDArray[np.float32] | NDArray[np.uint8]:
        match name:
            case "arm/joint_position":
                value = poses.joint_position
            case "arm/joint_velocity":
                value = poses.joint_velocity
            case "blocks/blue_from_red":
                value = poses.blue - poses.red
            case "blocks/edge":
                value = self._edges_m[:2]
            case "blocks/red_from_tool":
                value = poses.red - poses.tool_position
            case "blocks/red_yaw_from_tool":
                value = np.array([poses.red_yaw_from_tool])
            case "gripper/width":
                value = np.array([poses.width_m])
            case _:
                return self._picture(name)
        reading: NDArray[np.float32] = value.astype(np.float32)
        return reading

    def _picture(self, name: str) -> NDArray[np.uint8]:
        """What a camera sees, where the simulator draws."""
        raise NotImplementedError(name)

    def _scene(self) -> expert.Scene:
        poses = self._poses()
        jacobian, mass_matrix = self._arm_model()
        return expert.Scene(
            joint_position=poses.joint_position,
            joint_velocity=poses.joint_velocity,
            tool_rotation=poses.tool_rotation,
            jacobian=jacobian,
            mass_matrix=mass_matrix,
            width_m=poses.width_m,
            red_from_tool=poses.red - poses.tool_position,
            blue_from_red=poses.blue - poses.red,
            red_yaw_from_tool=poses.red_yaw_from_tool,
            red_edge_m=float(self._edges_m[0]),
            blue_edge_m=float(self._edges_m[1]),
        )
