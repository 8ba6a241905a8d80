"""Every task of the registry keeps the contract of `gatort.testing`, in both simulators."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from gatort.runtime.clock import VirtualClock
from gatort.sim.make import SimulatorName, make_robot
from gatort.sim.robot import SimulatedRobot
from gatort.sim.rollout import follow_expert, rollout
from gatort.sim.tasks import TASKS
from gatort.sim.tasks.seeds import VALIDATION_SEEDS
from gatort.sim.tasks.task import Task
from gatort.testing import TaskContract

SIMULATORS: tuple[SimulatorName, ...] = ("mujoco", "pybullet")


class TestTask(TaskContract):
    @pytest.fixture(params=TASKS.values(), ids=lambda task: task.name)
    def task(self, request: pytest.FixtureRequest) -> Task:
        return request.param

    @pytest.fixture(params=SIMULATORS)
    def robot(
        self, request: pytest.FixtureRequest, task: Task, clock: VirtualClock
    ) -> Iterator[SimulatedRobot]:
        made = make_robot(request.param, task, clock)
        yield made
        made.close()

    def test_a_hundred_layouts_differ(self, task: Task) -> None:
        assert len({task.layout(seed) for seed in range(100)}) == 100

    def test_the_bodies_that_are_seen_stand_in_the_scene(self, task: Task) -> None:
        assert set(task.seen) <= {*task.scene.cubes, *task.scene.targets}

    def test_the_expert_succeeds_through_torque_noise(
        self, robot: SimulatedRobot, clock: VirtualClock
    ) -> None:
        # N·m; about the error that a policy's torques have (docs/training.md).
        noisy = follow_expert(0.5, np.random.default_rng(0))
        assert rollout(robot, clock, VALIDATION_SEEDS.start, noisy).succeeded
