"""Layout of a stacking trial: from its seed, blocks on the table and a posture of the arm."""

from __future__ import annotations

from typing import Final

import numpy as np

from gatort.runtime.robots.panda import HOME_RAD
from gatort.sim.simulators.simulator import Cube
from gatort.sim.tasks.task import Layout

BLOCKS: Final = ("red", "blue", "green")
EDGES_M: Final = (0.042, 0.056)
"""Smallest and largest edge of a block."""


def draw_layout(seed: int) -> Layout:
    """Draw blocks and the posture of the arm.

    Blocks lie at least 12 cm apart. Their poses, sizes, masses and frictions are random.
    """
    rng = np.random.default_rng(seed)
    places: list[np.ndarray] = []
    while len(places) < len(BLOCKS):
        place = rng.uniform((0.38, -0.24), (0.64, 0.24))
        if all(np.linalg.norm(place - other) > 0.12 for other in places):
            places.append(place)

    cubes = tuple(_draw_cube(name, place, rng) for name, place in zip(BLOCKS, places, strict=True))
    joints_rad = tuple(float(q) for q in HOME_RAD + rng.uniform(-0.15, 0.15, 7))
    return Layout(joints_rad=joints_rad, cubes=cubes)


def _draw_cube(name: str, place: np.ndarray, rng: np.random.Generator) -> Cube:
    yaw_rad = float(rng.uniform(-np.pi, np.pi))
    edge_m = float(rng.uniform(*EDGES_M))
    return Cube(
        name=name,
        position=(float(place[0]), float(place[1]), edge_m / 2),
        yaw_rad=yaw_rad,
        edge_m=edge_m,
        mass_kg=float(rng.uniform(0.05, 0.15)),
        friction=float(rng.uniform(0.6, 1.0)),
    )
