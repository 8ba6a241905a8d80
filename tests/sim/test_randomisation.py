"""What training varies: reproducible, within its ranges, and nowhere near a trial."""

from __future__ import annotations

import inspect
from dataclasses import fields

import numpy as np
import pytest

from gatort.runtime.clock import VirtualClock
from gatort.runtime.safety import Command
from gatort.sim.randomisation import (
    NOMINAL,
    Physics,
    Randomisation,
)
from gatort.sim.rollout import (
    follow_expert,
    rollout,
)
from gatort.sim.simulators.mujoco import (
    MujocoRobot,
    load_model,
)
from gatort.sim.tasks.stacking import task

SEED = task.TRAINING_SEEDS.start
RANGES = Randomisation()
EXACT = Randomisation(
    block_bias_m=0.0,
    block_noise_m=0.0,
    block_noise_rad=0.0,
    joint_noise_rad=0.0,
    joint_noise_rad_s=0.0,
)


def drawn(seed: int) -> Physics:
    return RANGES.draw(RANGES.stream(seed))


def as_numbers(physics: Physics) -> np.ndarray:
    return np.concatenate([np.ravel(getattr(physics, field.name)) for field in fields(physics)])


def test_nominal_physics_is_what_the_scene_is_compiled_with() -> None:
    model = load_model()
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
    for name in (
        "joint_damping_nms_rad",
        "rotor_inertia_kgm2",
        "torque_gain",
        "gravity_gain",
        "block_mass",
    ):
        low, high = getattr(RANGES, name)
        values = np.array([getattr(physics, name) for physics in many])
        assert low <= values.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < values.max() <= high


def test_the_nominal_arm_lies_inside_every_range() -> None:
    for field in fields(Physics):
        limits = getattr(RANGES, field.name)
        if field.name not in ("joint_friction_nm", "block_bias_m"):
            nominal = np.array(getattr(NOMINAL, field.name))
            assert (limits[0] < nominal).all()
            assert (nominal < limits[1]).all()


def test_a_layout_is_the_same_with_and_without_randomisation() -> None:
    clock = VirtualClock()
    plain, varied = MujocoRobot(clock, SEED), MujocoRobot(clock, SEED, randomisation=RANGES)
    np.testing.assert_array_equal(plain.positions, varied.positions)
    assert plain.layout == varied.layout


def test_nothing_is_varied_unless_it_is_asked_for() -> None:
    assert inspect.signature(MujocoRobot).parameters["randomisation"].default is None
    robot = MujocoRobot(VirtualClock(), SEED)
    assert robot._physics is NOMINAL
    poses = robot._poses()
    np.testing.assert_array_equal(
        robot.observe().values[0], poses.joint_position.astype(np.float32)
    )


def test_a_randomised_rollout_repeats_itself_bit_for_bit_and_differs_from_a_nominal_one() -> None:
    clock = VirtualClock()
    varied, again, plain = (
        MujocoRobot(clock, randomisation=RANGES),
        MujocoRobot(clock, SEED + 5, randomisation=RANGES),
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


def test_noise_is_in_what_is_observed_and_not_in_what_the_expert_looks_at() -> None:
    robot = MujocoRobot(VirtualClock(), SEED, randomisation=RANGES)
    seen = np.array(
        [robot.observe().values[4] for _ in range(200)]
    )  # (200, 3) m, red from the tool, at rest
    truth = robot._scene().red_from_tool
    np.testing.assert_array_equal(truth, robot._scene().red_from_tool)
    assert seen.std(axis=0) == pytest.approx(RANGES.block_noise_m, rel=0.25)  # of 200 draws
    assert (np.abs(seen.mean(axis=0) - truth) < RANGES.block_bias_m + 4e-4).all()


def test_the_expert_counts_on_nominal_rotors_whatever_was_drawn() -> None:
    clock = VirtualClock()
    plain, varied = MujocoRobot(clock, SEED), MujocoRobot(clock, SEED, randomisation=EXACT)
    np.testing.assert_allclose(
        varied.expert_action(), plain.expert_action(), atol=1e-9
    )  # N·m; rounding


def test_a_command_takes_effect_early_or_late_within_the_range() -> None:
    clock = VirtualClock()
    robot = MujocoRobot(clock, SEED, randomisation=EXACT)
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
