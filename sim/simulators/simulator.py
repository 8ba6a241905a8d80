"""The contract of a simulator: an arm on a table, cubes on it, and targets that touch nothing.

A simulator knows no task. A task gives it a `Scene`, and places the bodies of that scene by name.
W is the world frame: its origin is the arm's base on the table top, and z points up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.errors import ConfigError
from gatort.runtime.robots.dynamics import ROTOR_INERTIA_KGM2
from gatort.runtime.robots.panda import JOINT_DAMPING_NMS_RAD

from .look import PLAIN, Look

Array = NDArray[np.float64]

# Constants of the arm that both simulators share. panda.xml holds them as well.
FINGER_FORCE_N: Final = 35.0
"""Largest force of a closing finger. Franka Hand gives 70 N of continuous force."""
FINGER_STIFFNESS_N_M: Final = 800.0
"""Force per metre between a finger and its target."""
FINGER_DAMPING_NS_M: Final = 20.0
"""Damping of a finger's joint. With the stiffness, a finger closes its gap at a rate of 40 per
second."""
PAD_FRICTION: Final = 1.2
"""Sliding friction of the finger pads."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The bodies that a task adds to arm and table."""

    xml: Path
    """MJCF file that includes panda.xml and describes the bodies, in the order of `cubes`, then
    `targets`."""
    cubes: tuple[str, ...] = ()
    """Names of the bodies that lie on the table. Each is a cube with a free joint and a geom of
    the same name."""
    targets: tuple[str, ...] = ()
    """Names of the bodies that touch nothing and that the task moves. MJCF: a `mocap` body."""


@dataclass(frozen=True, slots=True)
class Cube:
    """A cube at the start of a trial, upright."""

    name: str
    position: tuple[float, float, float]
    """Centre in W, in m."""
    yaw_rad: float
    """Turn about the vertical."""
    edge_m: float
    mass_kg: float
    friction: float
    """Sliding friction with everything that the cube touches."""


@dataclass(frozen=True, slots=True)
class Physics:
    """Properties of the simulated arm and its gripper. The defaults are the nominal ones."""

    joint_damping_nms_rad: Array = field(default_factory=lambda: np.full(7, JOINT_DAMPING_NMS_RAD))
    """Viscous damping of each joint, (7,)."""
    rotor_inertia_kgm2: Array = field(default_factory=lambda: np.full(7, ROTOR_INERTIA_KGM2))
    """Reflected rotor inertia of each joint, (7,)."""
    joint_friction_nm: Array = field(default_factory=lambda: np.zeros(7))
    """Dry friction of each joint, (7,)."""
    torque_gain: Array = field(default_factory=lambda: np.ones(7))
    """Torque at each joint divided by the commanded torque, (7,)."""
    gravity_gain: float = 1.0
    """Gravity compensation divided by the exact value."""
    pad_friction: float = PAD_FRICTION
    """Sliding friction of the finger pads."""
    finger_stiffness_n_m: float = FINGER_STIFFNESS_N_M
    """Force per metre between a finger and its target."""
    finger_force_n: float = FINGER_FORCE_N
    """Largest force of a closing finger."""


NOMINAL: Final = Physics()


@dataclass(frozen=True, slots=True)
class Pose:
    """Position and orientation of a body. The arrays may be views that the next step changes."""

    position: Array
    """Centre in W, (3,) m."""
    rotation: Array
    """R_world_body, (3, 3)."""


@dataclass(frozen=True, slots=True)
class Box:
    """A cube at any pose that the arm must not touch."""

    name: str
    pose: Pose
    edge_m: float


@dataclass(frozen=True, slots=True)
class ArmState:
    """State of arm and gripper. The arrays may be views that the next step changes."""

    joint_position: Array
    """(7,) rad."""
    joint_velocity: Array
    """(7,) rad/s."""
    width_m: float
    """Opening of the gripper."""
    tool_position: Array
    """Point between the finger pads in W, (3,) m."""
    tool_rotation: Array
    """R_world_tool, (3, 3). The tool's z axis points out of the hand."""


@dataclass(frozen=True, slots=True)
class ArmModel:
    """Kinematics and dynamics of the arm at its present posture."""

    jacobian: Array
    """Jacobian of the tool in W, (6, 7): linear rows, then angular rows."""
    mass_matrix: Array
    """(7, 7) kg·m², with nominal rotors."""


class Simulator(ABC):
    """An arm on a table with the bodies of a scene. It steps on request and knows no clock."""

    name: str
    """Name for error messages."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    @abstractmethod
    def place_arm(self, joints_rad: Array) -> None:
        """Start anew: the arm at rest at joints (7,), the gripper open, the bodies anywhere."""

    @abstractmethod
    def place_cubes(self, cubes: Sequence[Cube]) -> None:
        """Place every cube of the scene, at rest. Arm and targets stay where they are."""

    @abstractmethod
    def move_target(self, name: str, position: Array) -> None:
        """Put the centre of a target at (3,) m in W."""

    @abstractmethod
    def step(self, torque_nm: Array, width_m: float | None) -> None:
        """Simulate one millisecond.

        Args:
            torque_nm: joint torques (7,). The simulator adds gravity, Coriolis forces and joint
                damping.
            width_m: new target of the gripper. `None` keeps the last one.
        """

    @abstractmethod
    def settle(self) -> None:
        """Bring poses up to date with the last step.

        Raises:
            RobotError: the physics has diverged.
        """

    @abstractmethod
    def joints(self) -> tuple[Array, Array]:
        """Return positions (7,) in rad and velocities (7,) in rad/s of the arm's joints.

        The arrays may be views that the next step changes.
        """

    @abstractmethod
    def arm(self) -> ArmState:
        """Return the state of the arm."""

    @abstractmethod
    def bodies(self) -> Mapping[str, Pose]:
        """Return the pose of every cube and target, by name."""

    @abstractmethod
    def touching(self, one: str, other: str) -> bool:
        """Check if two cubes are in contact."""

    @abstractmethod
    def arm_model(self) -> ArmModel:
        """Return Jacobian and mass matrix. The arrays may be views that the next call changes."""

    @property
    @abstractmethod
    def positions(self) -> Array:
        """Everything that a film needs, for a model compiled from the same scene.

        A row of 9 + 7·bodies numbers: arm joints (7), fingers (2), then position (3) and quaternion
        (4, w first) of each cube and each target.
        """

    def begin(self, joints_rad: Array, speeds_rad_s: Array, width_m: float) -> None:  # noqa: ARG002
        """Start anew like `place_arm`, with the arm in motion and the gripper open by `width_m`.

        Raises:
            ConfigError: this simulator begins at rest only.
        """
        raise ConfigError(f"{self.name} begins at rest only; use mujoco for an arm in motion")

    def use_physics(self, physics: Physics) -> None:
        """Simulate an arm with these properties from now on.

        Raises:
            ConfigError: this simulator has nominal physics only.
        """
        if physics is not NOMINAL:
            raise ConfigError(
                f"{self.name} simulates nominal physics only; use mujoco for randomised physics"
            )

    def add_camera(self, name: str, height: int, width: int) -> None:
        """Make a camera of the scene ready to draw pictures of this size.

        Raises:
            ConfigError: this simulator draws no pictures.
        """
        raise ConfigError(
            f"{self.name} draws no pictures, so it has no camera {name!r} ({height}×{width}); "
            "use mujoco, or an interface without cameras"
        )

    def use_look(self, look: Look) -> None:
        """Draw this look from now on.

        Raises:
            ConfigError: this simulator has the nominal look only.
        """
        if look is not PLAIN:
            raise ConfigError(
                f"{self.name} has the nominal look only; use mujoco for randomised looks"
            )

    def draw(self, name: str) -> NDArray[np.uint8]:
        """Draw a picture (height, width, 3) with a camera that `add_camera` made ready."""
        raise KeyError(name)

    @abstractmethod
    def close(self) -> None:
        """Free the simulator's memory and windows. A second call does nothing."""
