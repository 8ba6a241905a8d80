"""The state policy stacks with nothing but drawn pictures of tagged cubes."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from gatort.sim.graphics import choose_gl

pytest.importorskip("mujoco")
pytest.importorskip("cv2")
if choose_gl() is None:
    pytest.skip("no GL library draws", allow_module_level=True)

from gatort.policies.loading import PolicyOptions, load_policy
from gatort.runtime.clock import VirtualClock
from gatort.runtime.robots.sensors.robot import SensorRobot
from gatort.sim.make import make_robot
from gatort.sim.rendered_tags import LATENCY_NS, RenderedTags
from gatort.sim.task_keys import TaskKeys, pose_of
from gatort.sim.tasks.stacking.task import Stacking

from .test_task_keys import JOINTS_ONLY, LACKING


@pytest.mark.parametrize("seed", range(900_200, 900_204))
def test_the_poses_of_the_first_picture_are_within_four_millimetres(seed: int) -> None:
    clock = VirtualClock()
    arm = make_robot("mujoco", Stacking(), clock, JOINTS_ONLY, seed)
    tags = RenderedTags(arm, clock)
    for name, true in arm.moment().bodies.items():
        found = pose_of(name, tags.update()[f"pose/{name}"])
        assert np.linalg.norm(found.position - true.position) < 0.004
    tags.close()


def test_a_picture_is_published_its_latency_later() -> None:
    clock = VirtualClock()
    arm = make_robot("mujoco", Stacking(), clock, JOINTS_ONLY, 900_200)
    tags = RenderedTags(arm, clock)
    first_ns = tags.stamp_ns
    assert first_ns == clock.now_ns()
    clock.sleep_until_ns(first_ns + LATENCY_NS + 33_000_000 - 1)
    arm.observe()
    tags.update()
    assert tags.stamp_ns == first_ns
    clock.sleep_until_ns(clock.now_ns() + 1_000_001)
    arm.observe()
    tags.update()
    assert tags.stamp_ns == first_ns + 33_000_000
    tags.close()


def test_nothing_of_a_closed_trial_stays_in_memory() -> None:
    """A trial has tens of megabytes of model, scene and pictures, which no cycle may keep alive."""
    alive: list[weakref.ref[object]] = []
    gc.disable()
    try:
        for seed in (900_200, 900_201):
            clock, task = VirtualClock(), Stacking()
            arm = make_robot("mujoco", task, clock, JOINTS_ONLY, seed)
            tags = RenderedTags(arm, clock)
            robot = SensorRobot(arm, TaskKeys(task, LACKING, arm.interface, tags, clock))
            robot.observe()
            alive += [weakref.ref(each) for each in (tags.scene, tags.scene._renderer, arm)]
            robot.close()
            del arm, tags, robot
        assert [each() for each in alive] == [None] * 6
    finally:
        gc.enable()


@pytest.mark.slow
def test_the_state_policy_stacks_on_drawn_pictures() -> None:
    clock, task = VirtualClock(), Stacking()
    arm = make_robot("mujoco", task, clock, JOINTS_ONLY, 900_100)
    tags = RenderedTags(arm, clock)
    robot = SensorRobot(arm, TaskKeys(task, LACKING, arm.interface, tags, clock))
    loop = load_policy(PolicyOptions(threads=1)).control(robot, clock)
    loop.run(400, lambda _: arm.succeeded)
    assert arm.succeeded, loop.refusal
    assert not loop.guard.refused
    robot.close()
