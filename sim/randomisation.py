"""What training varies from trial to trial beyond the layout, so that a policy does not learn one simulator by heart.

Only training does: a trial has the layout of its seed and nominal physics. Random numbers come from a stream of their
own, so that a layout is the same with and without. After Peng et al. 2018 (arXiv 1710.06537): vary what a simulator
cannot know about the next arm, over ranges that hold the next arm's values well inside them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from pydantic import FiniteFloat

from gatort.runtime.robots.panda import JOINT_DAMPING_NMS_RAD
from gatort.runtime.spec import Strict
from gatort.sim.tasks.stacking.task import BLOCKS

from .robot import (
    FINGER_FORCE_N,
    FINGER_STIFFNESS_N_M,
    PAD_FRICTION,
    ROTOR_INERTIA_KGM2,
    Array,
)

_STREAM: Final = 1
"""Sets this stream of a seed apart from the layout's."""

Range = tuple[FiniteFloat, FiniteFloat]


@dataclass(frozen=True, slots=True)
class Physics:
    """What one trial's arm, blocks and sensors are like; nominal as it stands."""

    joint_damping_nms_rad: Array = field(default_factory=lambda: np.full(7, JOINT_DAMPING_NMS_RAD))
    """(7,)."""
    rotor_inertia_kgm2: Array = field(default_factory=lambda: np.full(7, ROTOR_INERTIA_KGM2))
    """(7,)."""
    joint_friction_nm: Array = field(default_factory=lambda: np.zeros(7))
    """(7,) dry."""
    torque_gain: Array = field(default_factory=lambda: np.ones(7))
    """(7,) torque at a joint over torque asked for."""
    gravity_gain: float = 1.0
    """Compensation over what it should be."""
    block_mass: Array = field(default_factory=lambda: np.ones(len(BLOCKS)))
    """(3,) over the layout's."""
    block_friction: Array = field(default_factory=lambda: np.ones(len(BLOCKS)))
    """(3,) over the layout's."""
    pad_friction: float = PAD_FRICTION
    finger_stiffness_n_m: float = FINGER_STIFFNESS_N_M
    finger_force_n: float = FINGER_FORCE_N
    block_bias_m: Array = field(default_factory=lambda: np.zeros((2, 3)))
    """(2, 3) added to where red and blue are seen, all through the trial."""


NOMINAL: Final = Physics()


class Randomisation(Strict):
    """Ranges that a trial's physics is drawn from, and the size of what changes from tick to tick."""

    joint_damping_nms_rad: Range = (2.5, 5.0)
    """The driver adds 3; bearings and seals add up to 2 that no data sheet gives."""
    rotor_inertia_kgm2: Range = (0.0, 0.2)
    """0.1 in our MuJoCo model, and many models of the arm leave it out; at the wrist it is most of the inertia."""
    joint_friction_nm: tuple[FiniteFloat, ...] = (0.5, 0.5, 0.5, 0.5, 0.1, 0.1, 0.1)
    """(7,) from 0 to this: what is left of Panda's 0.2 to 1 N·m after its own compensation."""
    torque_gain: Range = (0.85, 1.15)
    """Torque constants, and link masses: models of this arm differ by 20 % in them."""
    gravity_gain: Range = (0.98, 1.02)
    """Up to 0.5 N·m of what gravity asks for at the shoulder is compensated too much or too little."""
    block_mass: Range = (0.5, 2.0)
    """Over the layout's 50 to 150 g."""
    block_friction: Range = (0.5, 1.5)
    """Over the layout's 0.6 to 1; simulators combine two surfaces' frictions by maximum, product or mean."""
    pad_friction: Range = (0.6, 1.4)
    """Rubber on wood, dusty and clean."""
    finger_stiffness_n_m: Range = (400.0, 1600.0)
    """The fingers close the gap to their target at 20 to 80 a second, 40 nominal."""
    finger_force_n: Range = (20.0, 70.0)
    """Half the nominal force to all that Franka Hand has."""
    action_lag_ms: Range = (-5.0, 15.0)
    """A command takes effect this much after its time, drawn for each: torque loops and schedulers add lag."""
    block_bias_m: FiniteFloat = 0.002
    """Up to this along each axis, one for the trial: a camera's calibration."""
    block_noise_m: FiniteFloat = 0.001
    """Standard deviation of where a block is seen, from tick to tick."""
    block_noise_rad: FiniteFloat = 0.02
    """Standard deviation of red's yaw."""
    joint_noise_rad: FiniteFloat = 0.001
    """Standard deviation; encoders are finer, elasticity in the gears is not."""
    joint_noise_rad_s: FiniteFloat = 0.02
    """Standard deviation of a velocity that was differenced from positions."""

    def stream(self, seed: int) -> np.random.Generator:
        """Random numbers of a trial, apart from those of its layout."""
        return np.random.default_rng((seed, _STREAM))

    def draw(self, rng: np.random.Generator) -> Physics:
        """Draw one trial's physics."""
        return Physics(
            joint_damping_nms_rad=rng.uniform(*self.joint_damping_nms_rad, 7),
            rotor_inertia_kgm2=rng.uniform(*self.rotor_inertia_kgm2, 7),
            joint_friction_nm=rng.uniform(0.0, self.joint_friction_nm, 7),
            torque_gain=rng.uniform(*self.torque_gain, 7),
            gravity_gain=rng.uniform(*self.gravity_gain),
            block_mass=rng.uniform(*self.block_mass, len(BLOCKS)),
            block_friction=rng.uniform(*self.block_friction, len(BLOCKS)),
            pad_friction=rng.uniform(*self.pad_friction),
            finger_stiffness_n_m=rng.uniform(*self.finger_stiffness_n_m),
            finger_force_n=rng.uniform(*self.finger_force_n),
            block_bias_m=rng.uniform(-self.block_bias_m, self.block_bias_m, (2, 3)),
        )
