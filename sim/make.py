"""Make simulated robots from names. A simulator is loaded once its robot is asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, get_args

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from gatort.runtime.clock import Clock
from gatort.runtime.envelope import ArmLimits
from gatort.runtime.errors import MissingDependency
from gatort.runtime.packages import install_hint, installed_version
from gatort.runtime.remote.address import host_of
from gatort.runtime.spec import Interface, PolicySpec

from .graphics import choose_gl
from .prediction import Predictor, require_panda
from .randomisation import Randomisation
from .robot import SimulatedRobot
from .simulators.simulator import Box, Scene, Simulator
from .tasks import task_named
from .tasks.task import Task
from .view_randomisation import ViewRandomisation

if TYPE_CHECKING:
    from .simulators.mujoco_clearance import MujocoClearance

SimulatorName = Literal["mujoco", "pybullet"]
SIMULATORS: Final[tuple[SimulatorName, ...]] = get_args(SimulatorName)
_PACKAGES: dict[SimulatorName, tuple[str, str, str]] = {
    "mujoco": ("mujoco-core", "MuJoCo", "sim"),
    "pybullet": ("pybullet", "PyBullet", "pybullet"),
}
"""Each simulator's package, its name in a sentence, and the extra of gatort that installs it."""


def _known_robot(robot: str) -> str:
    if robot not in SIMULATORS and host_of(robot) is None:
        choices = f"expected {', '.join(SIMULATORS)} or an address such as tcp://127.0.0.1:5555"
        raise PydanticCustomError("robot", "{choices}", {"choices": choices})
    return robot


RobotName = Annotated[str, AfterValidator(_known_robot)]
"""A simulator in this process, or the address of a `gatort robot`, tcp://HOST:PORT."""

PANDA_XML: Final = Path(__file__).parent / "simulators" / "panda.xml"
"""The arm alone on its table."""


def simulator_installed(name: SimulatorName = "mujoco") -> bool:
    """Check if a simulator is installed, without importing it."""
    return installed_version(_PACKAGES[name][0]) is not None


def make_robot(
    simulator: SimulatorName,
    task: str | Task,
    clock: Clock,
    spec: PolicySpec | None = None,
    seed: int = 0,
    randomisation: Randomisation | None = None,
    view_randomisation: ViewRandomisation | None = None,
) -> SimulatedRobot:
    """Make a simulated arm that has a task.

    Args:
        simulator: name of the physics engine.
        task: name of the task in `gatort.sim.tasks.TASKS`, or a task of your own.
        clock: the clock that physics follows.
        spec: one of the task's interfaces. `task.interface_for(policy.spec)` finds the one for a
            policy. The task's first interface by default.
        seed: layout of the first trial.
        randomisation: variation of physics from trial to trial. Only MuJoCo varies its physics.
        view_randomisation: variation of the pictures from trial to trial. Only MuJoCo varies its
            look.

    Raises:
        ConfigError: there is no such task, or the simulator has no cameras, no randomised physics
            or no randomised look.
        MissingDependency: the simulator, or a GL library for cameras, is absent.
    """
    chosen = task_named(task) if isinstance(task, str) else task
    spec = spec or chosen.interface
    physics = _make_simulator(simulator, chosen.scene, cameras=spec.image_tokens > 0)
    return SimulatedRobot(chosen, physics, clock, spec, seed, randomisation, view_randomisation)


def MujocoRobot(  # noqa: N802  # reads like the class that a user expects
    clock: Clock, seed: int = 0, task: str | Task = "stacking", spec: PolicySpec | None = None
) -> SimulatedRobot:
    """Make a Panda-like arm in MuJoCo. See `make_robot`."""
    return make_robot("mujoco", task, clock, spec, seed)


def BulletRobot(  # noqa: N802  # reads like the class that a user expects
    clock: Clock, seed: int = 0, task: str | Task = "stacking", spec: PolicySpec | None = None
) -> SimulatedRobot:
    """Make PyBullet's Panda. See `make_robot`."""
    return make_robot("pybullet", task, clock, spec, seed)


def make_predictor(interface: Interface, limits: ArmLimits) -> Predictor:
    """Make a MuJoCo arm that predicts where a robot's commands would lead.

    Args:
        interface: keys and actuators of the robot.
        limits: limits of the arm.

    Raises:
        ConfigError: the robot is no Panda and no FR3.
        MissingDependency: MuJoCo is absent.
    """
    require_panda(interface)
    simulator = _make_simulator("mujoco", Scene(PANDA_XML), cameras=False)
    return Predictor(interface, simulator, limits)


def make_clearance(boxes: Sequence[Box]) -> MujocoClearance:
    """Make a MuJoCo arm whose distances to table and boxes can be told.

    Raises:
        MissingDependency: MuJoCo is absent.
    """
    _require_installed("mujoco", "the check of an arm's way")
    _choose_gl_before_mujoco(cameras=False)
    from .simulators.mujoco_clearance import MujocoClearance

    return MujocoClearance(boxes)


def _require_installed(name: SimulatorName, user: str) -> None:
    if not simulator_installed(name):
        package, called, extra = _PACKAGES[name]
        raise MissingDependency(f"{user} needs {called}: {install_hint(package, extra)}")


def _make_simulator(name: SimulatorName, scene: Scene, cameras: bool) -> Simulator:
    _require_installed(name, "the simulated robot")
    if name == "pybullet":
        from .simulators.bullet import BulletSimulator

        return BulletSimulator(scene)

    _choose_gl_before_mujoco(cameras)
    from .simulators.mujoco import MujocoSimulator

    return MujocoSimulator(scene)


def _choose_gl_before_mujoco(cameras: bool) -> None:
    # A MUJOCO_GL that is set is tried even where nothing is drawn: if it fails, so does importing
    # MuJoCo.
    tried = cameras or "MUJOCO_GL" in os.environ
    if tried and choose_gl() is None and cameras:
        raise MissingDependency(
            "the robot's interface has cameras, and no GL library draws: apt-get install libegl1"
        )
