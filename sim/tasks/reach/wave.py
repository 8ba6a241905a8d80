"""The path of the target: a smooth curve that a seed draws inside the reachable space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from gatort.runtime.robots.panda import HOME_RAD
from gatort.sim.simulators.simulator import Array
from gatort.sim.tasks.task import Layout, Target

LOWEST_M: Final = np.array([0.36, -0.22, 0.14])
HIGHEST_M: Final = np.array([0.60, 0.22, 0.42])
"""Corners of the space of the target, in W. The tool reaches all of it while it points down."""
HOME_TOOL_M: Final = np.array([0.431, 0.0, 0.400])
"""Place of the tool at HOME_RAD, in W."""
START_M: Final = 0.15
"""Shortest distance from HOME_TOOL_M to the target at the start."""
WAVES: Final = 2
"""Sine waves along each axis."""
LONGEST_AMPLITUDE_M: Final = 0.05
"""Largest amplitude of one wave."""
PERIOD_S: Final = (4.0, 8.0)
"""Shortest and longest period of a wave. The target is never faster than 0.16 m/s along an axis."""

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Wave(Target):
    """A target that moves on a sum of sine waves: p(t) = c + Σ a sin(ω t + φ) along each axis."""

    name: str
    centre_m: tuple[float, ...]
    """c in W, (3,)."""
    amplitude_m: Rows
    """a, (WAVES, 3)."""
    frequency_rad_s: Rows
    """ω, (WAVES, 3)."""
    phase_rad: Rows
    """φ, (WAVES, 3)."""

    def position_at(self, time_s: float) -> Array:
        """See `Target.position_at`."""
        waves = np.array(self.amplitude_m) * np.sin(self._angle(time_s))
        place: Array = np.array(self.centre_m) + waves.sum(axis=0)
        return place

    def velocity_at(self, time_s: float) -> Array:
        """See `Target.velocity_at`."""
        frequency = np.array(self.frequency_rad_s)
        waves = np.array(self.amplitude_m) * frequency * np.cos(self._angle(time_s))
        velocity: Array = waves.sum(axis=0)
        return velocity

    def _angle(self, time_s: float) -> Array:
        angle: Array = np.array(self.frequency_rad_s) * time_s + np.array(self.phase_rad)
        return angle


def draw_layout(seed: int) -> Layout:
    """Draw the target's path, which begins away from the tool, and the posture of the arm."""
    rng = np.random.default_rng(seed)
    joints_rad = tuple(float(q) for q in HOME_RAD + rng.uniform(-0.05, 0.05, 7))
    target = _draw_wave(rng)
    while np.linalg.norm(target.position_at(0.0) - HOME_TOOL_M) < START_M:
        target = _draw_wave(rng)
    return Layout(joints_rad=joints_rad, targets=(target,))


def _draw_wave(rng: np.random.Generator) -> Wave:
    shape = (WAVES, 3)
    amplitude_m = rng.uniform(0.0, LONGEST_AMPLITUDE_M, shape)
    reach_m = amplitude_m.sum(axis=0)
    return Wave(
        name="target",
        centre_m=tuple(rng.uniform(LOWEST_M + reach_m, HIGHEST_M - reach_m).tolist()),
        amplitude_m=_rows(amplitude_m),
        frequency_rad_s=_rows(2 * np.pi / rng.uniform(*PERIOD_S, shape)),
        phase_rad=_rows(rng.uniform(-np.pi, np.pi, shape)),
    )


def _rows(array: Array) -> Rows:
    return tuple(tuple(row) for row in array.tolist())
