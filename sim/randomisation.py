"""Variation of physics and sensors from trial to trial.

It keeps a policy from learning one simulator by heart. Only training uses it: a trial has the
layout of its seed and nominal physics. The random numbers come from a stream of their own, so that
a layout is the same with and without. After Peng et al. 2018 (arXiv 1710.06537): vary the
properties that a simulator cannot know about the next arm. Ranges hold that arm's values well
inside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from pydantic import FiniteFloat

from gatort.runtime.robots.dynamics import ROTOR_INERTIA_KGM2
from gatort.runtime.robots.panda import JOINT_DAMPING_NMS_RAD
from gatort.runtime.spec import Strict

from .simulators.simulator import (
    FINGER_FORCE_N,
    FINGER_STIFFNESS_N_M,
    PAD_FRICTION,
    ArmState,
    Array,
    Cube,
    Physics,
    Pose,
)
from .tasks.task import Moment

_STREAM: Final = 1
"""Sets this stream of a seed apart from the layout's."""

Range = tuple[FiniteFloat, FiniteFloat]


@dataclass(frozen=True, slots=True)
class Variation:
    """One trial's arm, cubes and sensors."""

    physics: Physics
    """Properties of the arm."""
    cube_mass: Array
    """Mass of each cube divided by the layout's."""
    cube_friction: Array
    """Friction of each cube divided by the layout's."""
    bias_m: Array
    """Constant error of where each body is seen, (bodies, 3)."""

    def applied_to(self, cubes: Sequence[Cube]) -> tuple[Cube, ...]:
        """Return the layout's cubes with the masses and frictions of this trial."""
        varied = zip(cubes, self.cube_mass, self.cube_friction, strict=True)
        return tuple(
            replace(cube, mass_kg=cube.mass_kg * mass, friction=cube.friction * friction)
            for cube, mass, friction in varied
        )


class Randomisation(Strict):
    """Ranges from which a trial's physics is drawn, and the noise of its sensors."""

    joint_damping_nms_rad: Range = (2.5, 5.0)
    """Damping of each joint. The driver adds 3; bearings and seals add up to 2 that no data
    sheet gives."""
    rotor_inertia_kgm2: Range = (0.0, 0.2)
    """Rotor inertia of each joint: 0.1 in our MuJoCo model, and absent from many models of the
    arm. At the wrist it is most of the inertia."""
    joint_friction_nm: tuple[FiniteFloat, ...] = (0.5, 0.5, 0.5, 0.5, 0.1, 0.1, 0.1)
    """Largest dry friction of each joint, (7,). Panda has 0.2 to 1 N·m before its own
    compensation."""
    torque_gain: Range = (0.85, 1.15)
    """Error of torque constants and link masses. Models of this arm differ by 20 % in them."""
    gravity_gain: Range = (0.98, 1.02)
    """Error of gravity compensation: up to 0.5 N·m at the shoulder."""
    block_mass: Range = (0.5, 2.0)
    """Factor on a block's mass in the layout."""
    block_friction: Range = (0.5, 1.5)
    """Factor on a block's friction. Simulators combine two surfaces' frictions by maximum,
    product or mean."""
    pad_friction: Range = (0.6, 1.4)
    """Friction of the finger pads: rubber on wood, dusty and clean."""
    finger_stiffness_n_m: Range = (400.0, 1600.0)
    """Stiffness of the fingers. They close their gap at a rate of 20 to 80 per second, 40
    nominal."""
    finger_force_n: Range = (20.0, 70.0)
    """Largest force of a finger: from half the nominal force to Franka Hand's limit."""
    action_lag_ms: Range = (-5.0, 15.0)
    """Time from `apply_at` to the command's effect, drawn for each command. Torque loops and
    schedulers add lag."""
    block_bias_m: FiniteFloat = 0.002
    """Largest error of a body's place along each axis, constant in a trial: a camera's
    calibration."""
    block_noise_m: FiniteFloat = 0.001
    """Standard deviation of a body's place from tick to tick."""
    block_noise_rad: FiniteFloat = 0.02
    """Standard deviation of a body's yaw from tick to tick."""
    joint_noise_rad: FiniteFloat = 0.001
    """Standard deviation of a joint's position. Encoders are finer; the elasticity of the gears
    is not."""
    joint_noise_rad_s: FiniteFloat = 0.02
    """Standard deviation of a joint's velocity, which is differenced from positions."""

    def stream(self, seed: int) -> np.random.Generator:
        """Return the random numbers of a trial, independent of those of its layout."""
        return np.random.default_rng((seed, _STREAM))

    def draw(self, rng: np.random.Generator, cubes: int, seen: int) -> Variation:
        """Draw one trial's variation.

        Args:
            rng: the trial's `stream`.
            cubes: number of cubes.
            seen: number of bodies whose poses are observed.
        """
        # The order of the draws is part of what a seed means.
        damping = rng.uniform(*self.joint_damping_nms_rad, 7)
        rotors = rng.uniform(*self.rotor_inertia_kgm2, 7)
        friction = rng.uniform(0.0, self.joint_friction_nm, 7)
        torque_gain = rng.uniform(*self.torque_gain, 7)
        gravity_gain = rng.uniform(*self.gravity_gain)
        cube_mass = rng.uniform(*self.block_mass, cubes)
        cube_friction = rng.uniform(*self.block_friction, cubes)
        physics = Physics(
            joint_damping_nms_rad=damping,
            rotor_inertia_kgm2=rotors,
            joint_friction_nm=friction,
            torque_gain=torque_gain,
            gravity_gain=gravity_gain,
            pad_friction=rng.uniform(*self.pad_friction),
            finger_stiffness_n_m=rng.uniform(*self.finger_stiffness_n_m),
            finger_force_n=rng.uniform(*self.finger_force_n),
        )
        bias_m = rng.uniform(-self.block_bias_m, self.block_bias_m, (seen, 3))
        return Variation(physics, cube_mass, cube_friction, bias_m)

    def blurred(
        self, moment: Moment, seen: Sequence[str], variation: Variation, rng: np.random.Generator
    ) -> Moment:
        """Return a moment as the sensors of this trial see it."""
        turn = rng.normal(0.0, self.block_noise_rad)
        about_z = np.array(
            [[np.cos(turn), -np.sin(turn), 0.0], [np.sin(turn), np.cos(turn), 0.0], [0.0, 0.0, 1.0]]
        )
        arm = self._blurred_arm(moment.arm, rng)

        bodies = dict(moment.bodies)
        for name, bias in zip(seen, variation.bias_m, strict=True):
            pose = bodies[name]
            place = pose.position + bias + rng.normal(0.0, self.block_noise_m, 3)
            bodies[name] = Pose(place, about_z @ pose.rotation)
        return replace(moment, arm=arm, bodies=bodies)

    def _blurred_arm(self, arm: ArmState, rng: np.random.Generator) -> ArmState:
        return replace(
            arm,
            joint_position=arm.joint_position + rng.normal(0.0, self.joint_noise_rad, 7),
            joint_velocity=arm.joint_velocity + rng.normal(0.0, self.joint_noise_rad_s, 7),
        )


NOMINAL_PHYSICS: Final = Randomisation(
    joint_damping_nms_rad=(JOINT_DAMPING_NMS_RAD, JOINT_DAMPING_NMS_RAD),
    rotor_inertia_kgm2=(ROTOR_INERTIA_KGM2, ROTOR_INERTIA_KGM2),
    joint_friction_nm=(0.0,) * 7,
    torque_gain=(1.0, 1.0),
    gravity_gain=(1.0, 1.0),
    block_mass=(1.0, 1.0),
    block_friction=(1.0, 1.0),
    pad_friction=(PAD_FRICTION, PAD_FRICTION),
    finger_stiffness_n_m=(FINGER_STIFFNESS_N_M, FINGER_STIFFNESS_N_M),
    finger_force_n=(FINGER_FORCE_N, FINGER_FORCE_N),
    action_lag_ms=(0.0, 0.0),
    block_bias_m=0.0,
    block_noise_m=0.0,
    block_noise_rad=0.0,
    joint_noise_rad=0.0,
    joint_noise_rad_s=0.0,
)
"""Ranges that hold the nominal arm and perfect sensors alone. Studies widen one of them."""
