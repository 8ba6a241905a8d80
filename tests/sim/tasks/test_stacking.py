"""Stacking: layouts, and blocks that are laid out anew around the arm."""

from __future__ import annotations

import numpy as np
import pytest

from gatort.runtime.clock import VirtualClock
from gatort.sim.robot import SimulatedRobot
from gatort.sim.rollout import follow_expert, rollout
from gatort.sim.tasks.seeds import VALIDATION_SEEDS
from gatort.sim.tasks.stacking.layout import draw_layout
from gatort.sim.tasks.stacking.task import Stacking

SEED = VALIDATION_SEEDS.start


def test_layouts_keep_the_blocks_apart() -> None:
    for seed in range(100):
        places = np.array([cube.position[:2] for cube in draw_layout(seed).cubes])
        gaps = np.linalg.norm(places[:, None] - places[None], axis=-1) + np.eye(3)
        assert gaps.min() > 0.12


def test_the_expert_stacks_through_strong_torque_noise(
    robot: SimulatedRobot, clock: VirtualClock
) -> None:
    noisy = follow_expert(2.0, np.random.default_rng(0))  # N·m
    assert rollout(robot, clock, SEED, noisy).succeeded


def block_places(robot: SimulatedRobot) -> np.ndarray:
    return robot.positions[9:].reshape(3, 7)[:, :3]


def places_of(seed: int) -> np.ndarray:
    return np.array([cube.position for cube in draw_layout(seed).cubes])


def test_blocks_are_laid_anew_around_an_arm_that_stays_and_success_is_watched_again(
    robot: SimulatedRobot, clock: VirtualClock
) -> None:
    assert rollout(robot, clock, SEED, follow_expert(0.0, np.random.default_rng(0))).succeeded
    assert robot.succeeded
    before = robot.positions[:9]
    robot.lay_out(SEED + 1)
    assert not robot.succeeded
    np.testing.assert_array_equal(robot.positions[:9], before)
    np.testing.assert_allclose(block_places(robot), places_of(SEED + 1), atol=1e-9)  # m; rounding


@pytest.mark.parametrize("carried_s", [1.9, 2.0])
def test_blocks_that_are_laid_anew_in_the_middle_of_a_carry_lie_still(
    robot: SimulatedRobot, clock: VirtualClock, carried_s: float
) -> None:
    rollout(robot, clock, SEED, follow_expert(0.0, np.random.default_rng(0)), carried_s)
    assert block_places(robot)[0, 2] > 0.04
    robot.stop()
    for _ in range(2):  # The second time where the first ones lie: none of those may be left.
        robot.lay_out(SEED + 1)
    clock.advance_ns(300_000_000)
    robot.observe()
    np.testing.assert_allclose(
        block_places(robot), places_of(SEED + 1), atol=1e-3
    )  # m; contact gives way


def test_the_expert_comes_to_every_stage_in_its_order(
    robot: SimulatedRobot, clock: VirtualClock
) -> None:
    assert rollout(robot, clock, SEED, follow_expert(0.0, np.random.default_rng(0))).succeeded

    assert list(robot.reached_s) == list(Stacking.stages)
    assert list(robot.reached_s.values()) == sorted(robot.reached_s.values())
    with pytest.raises(KeyError):
        Stacking().is_at("danced", robot.moment(), robot.simulator.touching)
