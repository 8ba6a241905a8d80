"""The third look: other links, table and background, and the same physics to the last bit."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from gatort.sim.simulators.mujoco import MujocoSimulator
from gatort.sim.tasks import task_named
from gatort.sim.tasks.seeds import VALIDATION_SEEDS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TASK = task_named("stacking")


@pytest.fixture
def third_look(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script, which is in no package."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield import_module("third_look")
    sys.modules.pop("third_look", None)


@pytest.fixture
def simulators(third_look: ModuleType, tmp_path: Path) -> Iterator[list[MujocoSimulator]]:
    """The nominal look and the third, at the start of the same trial."""
    scenes = [TASK.scene, third_look.in_third_look(TASK, tmp_path).scene]
    made = [MujocoSimulator(scene) for scene in scenes]
    layout = TASK.layout(VALIDATION_SEEDS.start)
    for simulator in made:
        simulator.place_arm(np.array(layout.joints_rad))
        simulator.place_cubes(layout.cubes)
    yield made
    for simulator in made:
        simulator.close()


def test_physics_is_the_nominal_one_bit_for_bit(simulators: list[MujocoSimulator]) -> None:
    red, *others = TASK.layout(VALIDATION_SEEDS.start).cubes
    touched = False
    for simulator in simulators:
        held = replace(red, position=tuple(simulator.arm().tool_position))
        simulator.place_cubes([held, *others])
    for _ in range(400):
        for simulator in simulators:
            simulator.step(np.array([4.0, 12.0, -3.0, 9.0, 1.0, 1.0, 0.5]), 0.0)
        nominal, third = (simulator.data for simulator in simulators)
        np.testing.assert_array_equal(nominal.qpos, third.qpos)
        np.testing.assert_array_equal(nominal.qvel, third.qvel)
        touched = touched or pads_touch(simulators[1])
    assert touched


def pads_touch(simulator: MujocoSimulator) -> bool:
    """Check if a finger pad touches anything."""
    pads = {simulator.model.geom(f"{side}_pad").id for side in ("left", "right")}
    return any(pads & set(pair) for pair in simulator.data.contact.geom.tolist())


@pytest.mark.parametrize("camera", ["front", "wrist"])
def test_links_table_and_background_look_different(
    simulators: list[MujocoSimulator], camera: str
) -> None:
    pictures = []
    for simulator in simulators:
        simulator.settle()
        simulator.add_camera(camera, 64, 64)
        pictures.append(simulator.draw(camera).astype(int))
    changed = np.abs(pictures[0] - pictures[1]).max(axis=2) > 20
    assert changed.mean() > 0.5
    assert pictures[1].std() > 10


def test_every_link_is_drawn_with_a_mesh(simulators: list[MujocoSimulator]) -> None:
    model = simulators[1].model
    links = [f"link{index}" for index in range(8)]
    for name in (*links, "hand", "left_finger", "right_finger"):
        body = model.body(name)
        geoms = range(body.geomadr[0], body.geomadr[0] + body.geomnum[0])
        drawn = [geom for geom in geoms if model.geom_group[geom] < 3]
        assert drawn
        assert all(model.geom_dataid[geom] >= 0 for geom in drawn)
