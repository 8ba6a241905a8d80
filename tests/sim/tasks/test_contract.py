"""The contract of tasks, held over the registry: a new task is tested by entering it there."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from gatort.policies.loading import SHIPPED_BUNDLE
from gatort.runtime.bundle import load_manifest
from gatort.runtime.clock import VirtualClock
from gatort.runtime.errors import ConfigError, SpecError
from gatort.sim.make import SimulatorName, make_robot
from gatort.sim.robot import SimulatedRobot
from gatort.sim.rollout import follow_expert, rollout
from gatort.sim.tasks import TASKS, task_named, task_of
from gatort.sim.tasks.seeds import TRAINING_SEEDS, TRIAL_SEEDS, VALIDATION_SEEDS
from gatort.sim.tasks.task import Task

SEED = VALIDATION_SEEDS.start
SIMULATORS: tuple[SimulatorName, ...] = ("mujoco", "pybullet")


class TaskContract:
    """Tests that every task passes. Inherit, and override the fixture `task`."""

    @pytest.fixture
    def task(self) -> Task:
        """Return the task under test."""
        raise NotImplementedError(f"{type(self).__name__}: expected a fixture `task`")

    @pytest.fixture
    def clock(self) -> VirtualClock:
        """Return a clock that shows zero."""
        return VirtualClock()

    @pytest.fixture(params=SIMULATORS)
    def robot(
        self, request: pytest.FixtureRequest, task: Task, clock: VirtualClock
    ) -> Iterator[SimulatedRobot]:
        """Make the robot in each simulator, and close it after the test."""
        made = make_robot(request.param, task, clock, seed=SEED)
        yield made
        made.close()

    def test_a_layout_is_a_function_of_its_seed_alone(self, task: Task) -> None:
        assert [task.layout(seed) for seed in range(20)] == [
            task.layout(seed) for seed in range(20)
        ]
        assert len({task.layout(seed) for seed in range(100)}) == 100

    def test_a_layout_places_every_body_of_the_scene_in_its_order(self, task: Task) -> None:
        layout = task.layout(SEED)
        assert tuple(cube.name for cube in layout.cubes) == task.scene.cubes
        assert tuple(target.name for target in layout.targets) == task.scene.targets
        assert set(task.seen) <= {*task.scene.cubes, *task.scene.targets}

    def test_an_observation_has_the_shapes_dtypes_and_ranges_of_the_specification(
        self, robot: SimulatedRobot
    ) -> None:
        for seed in range(SEED, SEED + 5):
            robot.reset(seed)
            for key, value in zip(robot.spec.observations, robot.observe().values, strict=True):
                assert (value.shape, value.dtype) == (key.shape, np.dtype(key.dtype)), key.name
                assert np.isfinite(value).all(), key.name
                if key.low:
                    assert (np.array(key.low) <= value.ravel()).all(), key.name
                    assert (value.ravel() <= np.array(key.high)).all(), key.name

    def test_every_interface_gives_its_keys(self, task: Task, clock: VirtualClock) -> None:
        for spec in task.interfaces.values():
            robot = make_robot("mujoco", task, clock, spec, SEED)
            assert [value.shape for value in robot.observe().values] == [
                key.shape for key in spec.observations
            ]
            assert task.interface_for(spec).observations == spec.observations
            robot.close()

    @pytest.mark.parametrize("seed", range(SEED, SEED + 4))
    def test_the_expert_succeeds_within_the_trial(
        self, robot: SimulatedRobot, clock: VirtualClock, seed: int
    ) -> None:
        episode = rollout(robot, clock, seed, follow_expert(0.0, np.random.default_rng(0)))
        assert episode.succeeded
        assert episode.ticks < robot.task.seconds * robot.spec.control_hz

    def test_the_expert_succeeds_through_torque_noise(
        self, robot: SimulatedRobot, clock: VirtualClock
    ) -> None:
        # N·m; about the error that a policy's torques have (docs/training.md).
        noisy = follow_expert(0.5, np.random.default_rng(0))
        assert rollout(robot, clock, SEED, noisy).succeeded

    def test_an_arm_that_does_nothing_does_not_succeed(
        self, robot: SimulatedRobot, clock: VirtualClock
    ) -> None:
        for seed in range(SEED, SEED + 3):
            robot.reset(seed)
            assert not robot.succeeded
            assert not robot.task.holds(robot.moment(), robot.simulator.touching)
        assert not rollout(robot, clock, SEED, lambda *_: np.zeros(8), seconds=2.0).succeeded

    def test_the_same_seed_gives_the_same_trial_bit_for_bit(
        self, robot: SimulatedRobot, clock: VirtualClock
    ) -> None:
        def trial(seed: int) -> list[np.ndarray]:
            expert = follow_expert(0.0, np.random.default_rng(0))
            episode = rollout(robot, clock, seed, expert, seconds=2.5)
            return [*episode.observations, episode.actions, robot.positions]

        first = trial(SEED)
        trial(SEED + 1)
        robot.lay_out(SEED + 2)  # A past must leave no trace.
        for one, other in zip(first, trial(SEED), strict=True):
            np.testing.assert_array_equal(one, other)


class TestRegisteredTasks(TaskContract):
    @pytest.fixture(params=TASKS.values(), ids=lambda task: task.name)
    def task(self, request: pytest.FixtureRequest) -> Task:
        return request.param


# -- Names -------------------------------------------------------------------------------------


def test_training_validation_and_trial_seeds_never_meet() -> None:
    ranges = sorted((TRIAL_SEEDS, VALIDATION_SEEDS, TRAINING_SEEDS), key=lambda each: each.start)
    for lower, higher in pairwise(ranges):
        assert lower.stop <= higher.start


def test_a_task_is_registered_under_its_name() -> None:
    assert all(name == task.name for name, task in TASKS.items())


def test_an_unknown_task_is_refused_with_the_valid_names() -> None:
    with pytest.raises(ConfigError, match=r"expected a task, one of stacking.*found 'juggling'"):
        task_named("juggling")


def test_an_unknown_interface_is_refused_with_the_valid_names() -> None:
    with pytest.raises(ConfigError, match="one of stack, camera, gato; found 'sonar'"):
        task_named("stacking").interface_named("sonar")


def test_the_manifest_of_a_policy_names_its_task() -> None:
    manifest = load_manifest(SHIPPED_BUNDLE)
    assert task_of(manifest).name == "stacking"
    assert task_of(manifest, "stacking").name == "stacking"
    with pytest.raises(ConfigError, match="--task juggling: policy 'stack' is for task 'stacking'"):
        task_of(manifest, "juggling")


def test_a_policy_without_a_task_asks_for_one() -> None:
    manifest = load_manifest(SHIPPED_BUNDLE).model_copy(update={"task": None})
    with pytest.raises(ConfigError, match="'stack' names no task: give one with --task"):
        task_of(manifest)
    assert task_of(manifest, "stacking").name == "stacking"


def test_a_policy_that_suits_no_interface_is_refused_with_the_first_difference_from_each() -> None:
    task = task_named("stacking")
    spec = task.interface
    first, *others = spec.observations
    strange = first.model_copy(update={"name": "camera/side"})
    policy = spec.model_copy(update={"observations": (strange, *others)})
    with pytest.raises(SpecError, match="stack: the robot lacks observation key 'camera/side'"):
        task.interface_for(policy)


def test_a_policy_that_reads_fewer_keys_gets_the_interface_that_has_them_all() -> None:
    task = task_named("stacking")
    camera = task.interfaces["camera"]
    one_camera = camera.model_copy(update={"observations": camera.observations[1:]})
    assert task.interface_for(one_camera) is camera
