"""Robots by name; the simulator is loaded here alone."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from gatort.runtime.clock import Clock
from gatort.runtime.errors import MissingDependency
from gatort.runtime.packages import installed_version
from gatort.runtime.spec import (
    PolicySpec,
)
from gatort.sim.graphics import choose_gl

if TYPE_CHECKING:
    from gatort.sim.randomisation import Randomisation
    from gatort.sim.robot import StackingRobot
    from gatort.sim.simulators.mujoco import MujocoRobot


SimulatorName = Literal["mujoco", "pybullet"]
_PACKAGES: dict[SimulatorName, tuple[str, str, str]] = {
    "mujoco": ("mujoco-core", "MuJoCo", "sim"),
    "pybullet": ("pybullet", "PyBullet", "pybullet"),
}
"""Each simulator's package, what it is called, and the extra of gatort that brings it."""


def simulator_installed(name: SimulatorName = "mujoco") -> bool:
    """Whether a simulator is there; nothing is imported."""
    return installed_version(_PACKAGES[name][0]) is not None


def simulated_robot(
    name: SimulatorName,
    spec: PolicySpec,
    clock: Clock,
    seed: int,
    randomisation: Randomisation | None = None,
) -> StackingRobot:
    """The simulated arm at the layout of `seed`, in MuJoCo with cameras if the policy has images.

    Args:
        name: of the simulator.
        spec: what a policy reads and commands; a policy that the arm does not suit is refused when it is to drive.
        clock: when it is.
        seed: of the layout.
        randomisation: what differs from trial to trial beside the layout; nothing trains on PyBullet, so MuJoCo only.

    Raises:
        MissingDependency: the simulator, or for cameras a GL library, is absent.
    """
    if not simulator_installed(name):
        _, called, extra = _PACKAGES[name]
        raise MissingDependency(
            f"the simulated robot needs {called}: pip install 'gatort[{extra}]'"
        )
    if name == "pybullet":
        from gatort.sim.simulators.bullet import BulletRobot

        return BulletRobot(clock, seed)
    return _mujoco_robot(spec, clock, seed, randomisation)


def _mujoco_robot(
    spec: PolicySpec, clock: Clock, seed: int, randomisation: Randomisation | None
) -> MujocoRobot:
    # A MUJOCO_GL that is set is tried even where nothing is drawn: if it fails, so does importing MuJoCo.
    tried = bool(spec.image_tokens) or "MUJOCO_GL" in os.environ
    if tried and choose_gl() is None and spec.image_tokens:
        raise MissingDependency(
            "the policy sees through cameras, and no GL library draws: apt-get install libegl1"
        )
    from gatort.sim.simulators.mujoco import MujocoRobot
    from gatort.sim.tasks.stacking.task import (
        CAMERA_SPEC,
        SPECS,
        STACK_SPEC,
    )

    # A policy that none of them suits is refused with the first key that differs from the nearest.
    nearest = CAMERA_SPEC if spec.image_tokens else STACK_SPEC
    suits = (each for each in SPECS if set(spec.observations) <= set(each.observations))
    return MujocoRobot(clock, seed, next(suits, nearest), randomisation)
