"""Facts that PyBullet's pictures take from MJCF files are MuJoCo's own."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from gatort.sim.simulators.mujoco import load_model
from gatort.sim.simulators.scene_look import read_bodies, read_cameras
from gatort.sim.tasks import TASKS
from gatort.sim.tasks.task import Task


def test_cameras_are_those_that_mujoco_reads() -> None:
    model = load_model(TASKS["stacking"].scene)
    cameras = read_cameras()
    assert set(cameras) == {model.camera(index).name for index in range(model.ncam)}
    for name, camera in cameras.items():
        theirs = model.camera(name)
        rotation = np.zeros(9)
        mujoco.mju_quat2Mat(rotation, theirs.quat)
        assert model.body(theirs.bodyid[0]).name == camera.body
        np.testing.assert_array_equal(camera.position, theirs.pos)
        np.testing.assert_allclose(camera.rotation.ravel(), rotation, atol=1e-12)  # rounding
        assert camera.fovy_deg == theirs.fovy[0]


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_bodies_have_the_colours_that_mujoco_reads(task: Task) -> None:
    model = load_model(task.scene)
    for name, look in read_bodies(task.scene).items():
        geom = model.geom(name)
        np.testing.assert_allclose(look.rgba, geom.rgba, atol=1e-6)  # single precision
        if name in task.scene.targets:
            assert look.size_m == geom.size[0]
