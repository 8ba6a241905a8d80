"""The simulated picture of a camera at given joint angles, for comparison with a real one.

Camera frames follow OpenCV: x to the right, y down, z forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.clock import VirtualClock
from gatort.runtime.errors import ConfigError
from gatort.runtime.robots.cameras.pose import OpticalPose
from gatort.runtime.robots.panda import HOME_RAD

from .make import make_robot
from .tasks import task_named

if TYPE_CHECKING:
    import mujoco

    from .simulators.mujoco import MujocoSimulator

MOST_PIXELS: Final = (480, 640)
"""Largest height and width that the simulator draws."""
_AXES: Final = np.diag([1.0, -1.0, -1.0])
"""R_mujoco_camera: MuJoCo's cameras look along −z, and y points up."""
_CHANGED: Final = 2
"""Smallest change of a colour, of 255, that marks a pixel of the arm."""


@dataclass(frozen=True, slots=True)
class SimulatedView:
    """Picture that the simulator draws, and the camera that it draws with."""

    picture: NDArray[np.uint8]
    """(height, width, 3) RGB."""
    arm: NDArray[np.bool_]
    """(height, width), true where the arm is seen."""
    pose: OpticalPose
    """Pose of the scene's camera at these joint angles."""
    fovy_rad: float
    """Vertical field of view of the picture."""


def simulated_view(
    task: str, camera: str, height: int, width: int, joints_rad: Sequence[float] | None = None
) -> SimulatedView:
    """Draw a camera of a task's scene. The first layout of the task lies on the table.

    Args:
        task: name of the task.
        camera: name of a camera of the scene, such as `front`.
        height: height of the picture, at most 480.
        width: width of the picture, at most 640.
        joints_rad: joint angles (7,). Default: the posture around which trials start.

    Raises:
        ConfigError: there is no such task or camera, or not seven joints.
        MissingDependency: MuJoCo, or a GL library, is absent.
    """
    joints = np.array(HOME_RAD if joints_rad is None else joints_rad, np.float64)  # (7,)
    if joints.shape != HOME_RAD.shape:
        raise ConfigError(f"expected {HOME_RAD.size} joint angles in rad, found {joints.size}")
    chosen = task_named(task)
    interface = chosen.interface_with_cameras  # It makes a GL context.
    if interface is None:
        raise ConfigError(f"expected a task with cameras, found {task!r}: use stacking")
    robot = make_robot("mujoco", chosen, VirtualClock(), interface)
    simulator: MujocoSimulator = robot.simulator  # type: ignore[assignment]  # made above
    try:
        number = _camera_number(simulator.model, camera)
        simulator.add_camera(camera, height, width)
        simulator.place_arm(joints)
        simulator.place_cubes(chosen.layout(0).cubes)
        picture = simulator.draw(camera)
        return SimulatedView(
            picture,
            _arm_in(simulator, camera, picture),
            OpticalPose(
                simulator.data.cam_xpos[number].copy(),
                simulator.data.cam_xmat[number].reshape(3, 3) @ _AXES,
            ),
            float(np.radians(simulator.model.cam_fovy[number])),
        )
    finally:
        robot.close()


def _camera_number(model: mujoco.MjModel, name: str) -> int:
    names = [model.camera(number).name for number in range(model.ncam)]
    if name not in names:
        raise ConfigError(f"expected a camera of the scene ({', '.join(names)}), found {name!r}")
    return names.index(name)


def _arm_in(
    simulator: MujocoSimulator, camera: str, picture: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    """Return the pixels (height, width) that change when the arm becomes invisible."""
    model = simulator.model
    base = model.body("link0").id
    # All bodies of the arm hang from its base, the root of their branch.
    geoms = np.flatnonzero(model.body_rootid[model.geom_bodyid] == base)
    colours = model.geom_rgba[geoms].copy()
    materials = model.geom_matid[geoms].copy()
    model.geom_matid[geoms] = -1
    model.geom_rgba[geoms, 3] = 0.0
    without = simulator.draw(camera)
    model.geom_rgba[geoms] = colours
    model.geom_matid[geoms] = materials
    changed = np.abs(picture.astype(np.int16) - without).max(axis=2)
    arm: NDArray[np.bool_] = changed > _CHANGED
    return arm
