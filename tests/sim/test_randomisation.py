"""Variation in training: reproducible, within its ranges, and absent from trials."""

from __future__ import annotations

import inspect
from dataclasses import fields

import numpy as np
import pytest

from gatort.runtime.clock import VirtualClock
from gatort.runtime.safety import Command
from gatort.sim.make import MujocoRobot, make_robot
from gatort.sim.randomisation import NOMINAL_PHYSICS, Randomisation, Variation
from gatort.sim.robot import SimulatedRobot
from gatort.sim.rollout import follow_expert, rollout
from gatort.sim.simulators.mujoco import load_model
from gatort.sim.simulators.simulator import NOMINAL, Physics
from gatort.sim.tasks.seeds import TRAINING_SEEDS
from gatort.sim.tasks.stacking.task import Stacking

SEED = TRAINING_SEEDS.start
RANGES = Randomisation()
EXACT = Randomisation(
    block_bias_m=0.0,
    block_noise_m=0.0,
    block_noise_rad=0.0,
    joint_noise_rad=0.0,
    joint_noise_rad_s=0.0,
)


def drawn(seed: int) -> Variation:
    return RANGES.draw(RANGES.stream(seed), cubes=3, seen=2)


def as_numbers(variation: Variation) -> np.ndarray:
    physics = variation.physics
    numbers = [getattr(physics, field.name) for field in fields(physics)]
    numbers += [variation.cube_mass, variation.cube_friction, variation.bias_m]
    return np.concatenate([np.ravel(number) for number in numbers])


def varied_robot(clock: VirtualClock, seed: int, ranges: Randomisation = RANGES) -> SimulatedRobot:
    return make_robot("mujoco", "stacking", clock, seed=seed, randomisation=ranges)


def test_the_scene_is_compiled_with_nominal_physics() -> None:
    model = load_model(Stacking.scene)
    np.testing.assert_array_equal(model.dof_armature[:7], NOMINAL.rotor_inertia_kgm2)
    np.testing.assert_array_equal(model.dof_frictionloss[:7], NOMINAL.joint_friction_nm)
    np.testing.assert_array_equal(model.geom("left_pad").friction[0], NOMINAL.pad_friction)
    np.testing.assert_array_equal(model.actuator_gainprm[:, 0], NOMINAL.finger_stiffness_n_m)
    np.testing.assert_array_equal(
        model.actuator_forcerange, [[-NOMINAL.finger_force_n, NOMINAL.finger_force_n]] * 2
    )


def test_a_seed_gives_one_physics_and_another_seed_another() -> None:
    np.testing.assert_array_equal(as_numbers(drawn(SEED)), as_numbers(drawn(SEED)))
    assert (as_numbers(drawn(SEED)) != as_numbers(drawn(SEED + 1))).all()


def test_physics_stays_within_its_ranges_and_fills_them() -> None:
    many = [drawn(SEED + index) for index in range(300)]
    drawn_values = {
        name: np.array([getattr(variation.physics, name) for variation in many])
        for name in ("joint_damping_nms_rad", "rotor_inertia_kgm2", "torque_gain", "gravity_gain")
    }
    drawn_values["block_mass"] = np.array([variation.cube_mass for variation in many])
    for name, values in drawn_values.items():
        low, high = getattr(RANGES, name)
        assert low <= values.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < values.max() <= high


def test_the_nominal_arm_lies_inside_every_range() -> None:
    for field in fields(Physics):
        limits = getattr(RANGES, field.name)
        if field.name != "joint_friction_nm":
            nominal = np.array(getattr(NOMINAL, field.name))
            assert (limits[0] < nominal).all()
            assert (nominal < limits[1]).all()


def test_a_layout_is_the_same_with_and_without_randomisation() -> None:
    clock = VirtualClock()
    plain, varied = MujocoRobot(clock, SEED), varied_robot(clock, SEED)
    np.testing.assert_array_equal(plain.positions, varied.positions)
    assert plain.layout == varied.layout


def test_nothing_is_varied_unless_it_is_asked_for() -> None:
    assert inspect.signature(make_robot).parameters["randomisation"].default is None
    robot = MujocoRobot(VirtualClock(), SEED)
    assert robot.simulator._physics is NOMINAL
    joints = robot.moment().arm.joint_position
    np.testing.assert_array_equal(robot.observe().values[0], joints.astype(np.float32))


def test_a_randomised_rollout_repeats_itself_bit_for_bit_and_differs_from_a_nominal_one() -> None:
    clock = VirtualClock()
    varied, again, plain = (
        varied_robot(clock, 0),
        varied_robot(clock, SEED + 5),
        MujocoRobot(clock),
    )
    runs = [
        rollout(robot, clock, SEED, follow_expert(0.0, np.random.default_rng(0)), 1.0)
        for robot in (varied, again)
    ]
    for one, other in zip(runs[0].observations, runs[1].observations, strict=True):
        np.testing.assert_array_equal(one, other)
    nominal = rollout(plain, clock, SEED, follow_expert(0.0, np.random.default_rng(0)), 1.0)
    assert (nominal.observations[1][1:] != runs[0].observations[1][1:]).all()


def test_noise_is_in_the_observation_and_not_in_the_experts_view() -> None:
    robot = varied_robot(VirtualClock(), SEED)
    seen = np.array(
        [robot.observe().values[4] for _ in range(200)]
    )  # (200, 3) m, red from the tool, at rest
    truth = robot.task.read("blocks/red_from_tool", robot.moment())
    np.testing.assert_array_equal(robot.expert_action(), robot.expert_action())
    assert seen.std(axis=0) == pytest.approx(RANGES.block_noise_m, rel=0.25)  # 200 draws
    assert (np.abs(seen.mean(axis=0) - truth) < RANGES.block_bias_m + 4e-4).all()


def test_the_expert_counts_on_nominal_rotors() -> None:
    clock = VirtualClock()
    plain, varied = MujocoRobot(clock, SEED), varied_robot(clock, SEED, EXACT)
    np.testing.assert_allclose(
        varied.expert_action(), plain.expert_action(), atol=1e-9
    )  # N·m; rounding


def test_a_command_takes_effect_early_or_late_within_the_range() -> None:
    clock = VirtualClock()
    robot = varied_robot(clock, SEED, EXACT)
    lags_ms = []
    for sequence in range(1, 31):
        robot.reset(SEED + sequence)
        robot.arm()
        stamp_ns = robot.observe().stamp_ns
        started_ns: list[int] = []
        robot.on_step = lambda at_ns, _, values, seen=started_ns: (
            seen.append(at_ns) if values[0] else None
        )
        due_ns = stamp_ns + robot.spec.action_delay_ns
        robot.command(Command(1, 1, due_ns, 60_000_000, np.array([5.0, 0, 0, 0, 0, 0, 0, 0.08])))
        clock.advance_ns(50_000_000)
        robot.observe()
        lags_ms.append((started_ns[0] - due_ns) * 1e-6)
    low_ms, high_ms = RANGES.action_lag_ms
    assert low_ms <= min(lags_ms) < low_ms + 3
    assert (
        high_ms - 3 < max(lags_ms) <= high_ms + 2
    )  # a torque is seen one step after it began to rise


def test_a_trial_with_nominal_ranges_is_the_one_without_any() -> None:
    def end(randomisation: Randomisation | None) -> np.ndarray:
        clock = VirtualClock()
        robot = make_robot("mujoco", "stacking", clock, seed=3, randomisation=randomisation)
        robot.reset(3)
        robot.arm()
        for _ in range(10):
            robot.observe()
            clock.advance_ns(50_000_000)
        return robot.positions

    assert end(NOMINAL_PHYSICS) == pytest.approx(end(None), abs=1e-12)
