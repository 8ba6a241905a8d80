"""Robots by name; the simulator is loaded here alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.clock import Clock
from gatort.runtime.errors import MissingDependency
from gatort.runtime.machine import installed_version
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.spec import (
    CONTINUOUS_BINS,
    ObservationKey,
    PolicySpec,
)
from gatort.sim.graphics import choose_gl

if TYPE_CHECKING:
    from gatort.sim.randomisation import Randomisation
    from gatort.sim.robot import StackingRobot
    from gatort.sim.simulators.mujoco import MujocoRobot

SCRIPTED_OBSERVATIONS = 64


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


def scripted_robot(spec: PolicySpec, clock: Clock, seed: int) -> ScriptedRobot:
    """A robot without physics that observes random values within the policy's ranges, drawn before the loop starts.

    What cannot change at any speed keeps its value, so that no observation is refused.
    """
    random = np.random.default_rng(seed)
    still = {key.name: _draw(key, random) for key in spec.observations if key.fastest_per_s}
    script = [
        [still[key.name] if key.name in still else _draw(key, random) for key in spec.observations]
        for _ in range(SCRIPTED_OBSERVATIONS)
    ]

    def read(sequence: int) -> Sequence[NDArray[Any]]:
        return script[sequence % len(script)]

    return ScriptedRobot(spec, clock, read)


def _draw(key: ObservationKey, random: np.random.Generator) -> NDArray[Any]:
    if key.encoding == "image":
        return random.integers(0, 256, key.shape, np.uint8)
    if key.encoding in ("text", "discrete"):
        return random.integers(0, CONTINUOUS_BINS, key.shape, np.int32)
    low, high = (
        (np.reshape(key.low, key.shape), np.reshape(key.high, key.shape))
        if key.low
        else (-1.0, 1.0)
    )
    return random.uniform(low, high, key.shape).astype(np.float32)
