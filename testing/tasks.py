"""Contract of tasks: layouts that follow from the seed, valid values, a capable expert."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from gatort.runtime.clock import VirtualClock
from gatort.sim.make import make_robot
from gatort.sim.robot import SimulatedRobot
from gatort.sim.rollout import follow_expert, rollout
from gatort.sim.simulators.simulator import Array
from gatort.sim.tasks.task import Task

SEEDS = range(5)
"""Layouts that the contract tries."""


class TaskContract:
    """Tests that every task passes in MuJoCo. Inherit and override `make_task`."""

    expert_successes = 4
    """Number of the five trials in which the expert must succeed."""

    def make_task(self) -> Task:
        """Return the task under test.

        Raises:
            NotImplementedError: the class under test does not override this method.
        """
        raise NotImplementedError(f"{type(self).__name__}: expected a method make_task()")

    @pytest.fixture
    def task(self) -> Task:
        """Make the task."""
        return self.make_task()

    @pytest.fixture
    def clock(self) -> VirtualClock:
        """Return a clock at zero."""
        return VirtualClock()

    @pytest.fixture
    def robot(self, task: Task, clock: VirtualClock) -> Iterator[SimulatedRobot]:
        """Make a robot in MuJoCo with the task's first interface, and close it after the test."""
        pytest.importorskip("mujoco")
        made = make_robot("mujoco", task, clock)
        yield made
        made.close()

    def test_it_has_a_name_interfaces_and_durations(self, task: Task) -> None:
        """Read the attributes."""
        assert task.name.isidentifier()
        assert task.interfaces
        assert 0 <= task.hold_s < task.seconds

    def test_a_layout_places_every_body_of_the_scene_in_its_order(self, task: Task) -> None:
        """Compare the names in layouts with those in the scene."""
        for seed in SEEDS:
            layout = task.layout(seed)
            assert len(layout.joints_rad) == 7
            assert tuple(cube.name for cube in layout.cubes) == task.scene.cubes
            assert tuple(target.name for target in layout.targets) == task.scene.targets

    def test_a_seed_repeats_its_layout_and_another_seed_differs(
        self, robot: SimulatedRobot
    ) -> None:
        """Observe the start of each trial twice."""
        starts = []
        for seed in (*SEEDS, *SEEDS):
            robot.reset(seed)
            values = [value.ravel() for value in robot.observe().values]
            starts.append(np.concatenate(values).tobytes())
        assert starts[: len(SEEDS)] == starts[len(SEEDS) :]
        assert len(set(starts)) == len(SEEDS)

    def test_no_trial_has_succeeded_when_it_begins(self, robot: SimulatedRobot) -> None:
        """Reset to each layout and ask for success."""
        for seed in SEEDS:
            robot.reset(seed)
            robot.observe()
            assert not robot.succeeded

    def test_observed_values_have_the_shapes_and_the_ranges_of_their_keys(
        self, robot: SimulatedRobot
    ) -> None:
        """Compare the values of each trial's first observation with the robot's interface."""
        for seed in SEEDS:
            robot.reset(seed)
            observation = robot.observe()
            for key, value in zip(robot.interface.observations, observation.values, strict=True):
                assert (key.name, value.shape) == (key.name, key.shape)
                assert value.dtype == np.dtype(key.dtype)
                assert np.isfinite(value).all()
                if key.low:
                    assert (np.array(key.low) <= value.ravel()).all(), key.name
                    assert (value.ravel() <= np.array(key.high)).all(), key.name

    def test_every_interface_gives_its_keys(self, task: Task, clock: VirtualClock) -> None:
        """Make a robot with each interface and observe once."""
        for spec in task.interfaces.values():
            robot = make_robot("mujoco", task, clock, spec)
            shapes = [value.shape for value in robot.observe().values]
            assert shapes == [key.shape for key in spec.observations]
            assert task.interface_for(spec).observations == spec.observations
            robot.close()

    def test_the_expert_commands_finite_values_for_every_actuator(
        self, robot: SimulatedRobot
    ) -> None:
        """Ask the expert at the start of each trial."""
        for seed in SEEDS:
            robot.reset(seed)
            robot.observe()
            action = robot.expert_action()
            assert action.shape == (len(robot.interface.actuators),)
            assert np.isfinite(action).all()

    def test_the_expert_succeeds_in_most_trials(
        self, robot: SimulatedRobot, clock: VirtualClock
    ) -> None:
        """Run the expert without noise."""
        act = follow_expert(0.0, np.random.default_rng(0))
        episodes = [rollout(robot, clock, seed, act) for seed in SEEDS]
        assert sum(episode.succeeded for episode in episodes) >= self.expert_successes

    def test_an_arm_at_rest_does_not_succeed(
        self, robot: SimulatedRobot, clock: VirtualClock
    ) -> None:
        """Command zeros for two seconds."""
        rest = np.zeros(len(robot.interface.actuators))
        assert not rollout(robot, clock, SEEDS[0], lambda *_: rest, seconds=2.0).succeeded

    def test_a_trial_repeats_bit_for_bit_whatever_ran_before(
        self, robot: SimulatedRobot, clock: VirtualClock
    ) -> None:
        """Run the start of one trial twice with the same noise, and another between them."""

        def trial(seed: int) -> list[Array]:
            act = follow_expert(1.0, np.random.default_rng(0))
            episode = rollout(robot, clock, seed, act, seconds=2.0)
            return [*episode.observations, episode.actions, robot.positions]

        once = trial(SEEDS[0])
        trial(SEEDS[1])
        robot.lay_out(SEEDS[2])
        for first, second in zip(once, trial(SEEDS[0]), strict=True):
            np.testing.assert_array_equal(first, second)
