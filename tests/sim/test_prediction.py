"""Predictions of one period, compared with a simulated arm that really gets the torques."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gatort.runtime.clock import VirtualClock
from gatort.runtime.envelope import Joint, tool_place
from gatort.runtime.errors import ConfigError
from gatort.runtime.robot import Observation
from gatort.runtime.robots.franka.limits import FR3_LIMITS
from gatort.runtime.robots.panda import ARM_ALONE, HOME_RAD, PANDA, PANDA_LIMITS
from gatort.runtime.safety import Command
from gatort.runtime.spec import Interface, PolicySpec
from gatort.sim.make import BulletRobot, MujocoRobot, make_predictor
from gatort.sim.prediction import Predictor, fastest_rad_s

MS = 1_000_000
STILL = np.zeros(7)


@pytest.fixture
def predictor() -> Predictor:
    return make_predictor(PANDA, PANDA_LIMITS)


def predict(
    predictor: Predictor,
    torque_nm: np.ndarray = STILL,
    joints_rad: np.ndarray = HOME_RAD,
    speeds_rad_s: np.ndarray = STILL,
) -> str | None:
    values = (joints_rad, speeds_rad_s, np.array([0.08]))
    seen = Observation(1, 0, tuple(each.astype(np.float32) for each in values), np.zeros(8))
    return predictor.predict(seen, Command(1, 1, 25 * MS, 60 * MS, np.append(torque_nm, 0.08)))


def on(joint: int, value: float) -> np.ndarray:
    row = np.zeros(7)
    row[joint - 1] = value
    return row


def test_an_arm_at_rest_without_a_torque_stays_and_breaks_nothing(predictor: Predictor) -> None:
    for _ in range(3):
        assert predict(predictor) is None
    forecast = predictor.forecast
    assert (forecast.ticks, forecast.broken, forecast.first) == (3, 0, None)
    assert forecast.speed_rad_s.max() < 1e-6
    room = np.minimum(HOME_RAD - PANDA_LIMITS.low_rad, PANDA_LIMITS.high_rad - HOME_RAD)
    assert forecast.room_rad == pytest.approx(room, abs=1e-6)


def test_the_predicted_end_is_where_an_arm_that_gets_the_torques_comes_to() -> None:
    clock = VirtualClock()
    arm = MujocoRobot(clock, seed=7)
    arm.arm()
    torque_nm = np.array([4.0, -6.0, 3.0, 5.0, 1.0, -1.0, 1.0])
    for sequence in range(1, 5):  # The arm is in motion, and its torques have come up.
        seen = arm.observe()
        apply_ns = seen.stamp_ns + 25 * MS
        arm.command(Command(sequence, sequence, apply_ns, 60 * MS, np.append(torque_nm, 0.08)))
        clock.advance_ns(50 * MS)
    before = arm.observe()
    predictor = make_predictor(arm.interface, PANDA_LIMITS)
    command = Command(1, 1, 25 * MS, 60 * MS, np.append(torque_nm, 0.08))
    predictor.predict(before, command)
    # From the second command on, its torques are there from the beginning.
    positions, velocities = predictor._simulate(before, np.tile(torque_nm, (50, 1)), command)
    for _ in range(50):
        clock.advance_ns(MS)
        arm.advance()
    after = arm.simulator.joints()
    assert np.abs(velocities[0]).max() > 0.1
    # The observation is float32: 1e-7 rad, and a 50th of a second makes no more of it.
    assert positions[-1] == pytest.approx(after[0], abs=1e-5)
    assert velocities[-1] == pytest.approx(after[1], abs=1e-4)


def test_largest_torque_and_largest_change_are_those_of_the_commands(predictor: Predictor) -> None:
    for torque_nm in (2.0, -3.0, 1.0):
        predict(predictor, on(7, torque_nm))
    forecast = predictor.forecast
    assert forecast.torque_nm.tolist() == on(7, 3.0).tolist()
    assert forecast.torque_change_nm.tolist() == on(7, 5.0).tolist()


def test_a_torque_comes_up_at_the_actuators_rate(predictor: Predictor) -> None:
    predict(predictor, on(1, 30.0))
    slow = predictor.forecast.speed_rad_s[0]
    other = make_predictor(PANDA, PANDA_LIMITS)
    other._before_nm = on(1, 30.0)
    predict(other, on(1, 30.0))
    # 30 N·m need 30 ms at 1000 N·m/s, so that about two thirds of the momentum of 50 ms are left.
    assert 0.6 < slow / other.forecast.speed_rad_s[0] < 0.8


def test_a_joint_that_runs_into_its_limit_breaks_it_and_is_named(predictor: Predictor) -> None:
    joints_rad = HOME_RAD.copy()
    joints_rad[6] = 2.85
    assert predict(predictor, joints_rad=joints_rad) is None
    reason = predict(predictor, on(7, 5.0), joints_rad, on(7, 1.5))
    assert reason is not None
    assert reason.startswith("joint 7 would come to 2.89")
    assert reason.endswith("at its limit (-2.8973 to 2.8973)")
    forecast = predictor.forecast
    assert (forecast.ticks, forecast.broken, forecast.first) == (2, 1, f"tick 2: {reason}")
    assert forecast.room_rad[6] < 0.005


def test_a_joint_that_becomes_too_fast_breaks_its_speed_limit(predictor: Predictor) -> None:
    assert predict(predictor, speeds_rad_s=on(1, 2.1)) is None
    reason = predict(predictor, on(1, 30.0), speeds_rad_s=on(1, 2.1))
    assert reason is not None
    assert reason.startswith("joint 1 would turn at 2.")
    assert reason.endswith("above its limit of 2.175")


def test_a_tool_that_leaves_its_box_breaks_a_limit() -> None:
    _, _, height_m = tool_place(PANDA_LIMITS.frames, HOME_RAD.tolist())
    low_m = (-1.0, -1.0, height_m - 0.005)
    predictor = make_predictor(PANDA, replace(PANDA_LIMITS, box_low_m=low_m))
    assert predict(predictor) is None
    reason = predict(predictor, speeds_rad_s=on(2, 0.5))  # The shoulder leans forward.
    assert reason is not None
    assert reason.startswith("the tool came to z = ")


@pytest.mark.parametrize("limits", [PANDA_LIMITS, FR3_LIMITS], ids=["Panda", "FR3"])
def test_the_speed_limit_is_the_envelopes_own(limits: object) -> None:
    random = np.random.default_rng(0)
    positions = random.uniform(limits.low_rad, limits.high_rad, (200, 7))  # type: ignore[attr-defined]
    velocities = random.uniform(-3, 3, (200, 7))
    joints = [Joint(number, limits) for number in range(1, 8)]  # type: ignore[arg-type]
    expected = [
        [joint._fastest_towards(v, p) for joint, v, p in zip(joints, speed, at, strict=True)]
        for speed, at in zip(velocities, positions, strict=True)
    ]
    found = fastest_rad_s(limits, positions, velocities)  # type: ignore[arg-type]
    assert found == pytest.approx(np.array(expected))


def test_a_real_arm_has_the_limits_of_an_fr3() -> None:
    joints_rad = HOME_RAD.copy()
    joints_rad[5] = 0.5  # A Panda reaches it, and an FR3 does not.
    down_rad_s = on(2, -0.2)  # The tool goes up, so that its box is no matter.
    assert predict(make_predictor(PANDA, PANDA_LIMITS), STILL, joints_rad, down_rad_s) is None
    reason = predict(make_predictor(PANDA, FR3_LIMITS), STILL, joints_rad, down_rad_s)
    assert reason is not None
    assert reason.startswith("joint 6 would come to 0.500 rad")


def test_an_arm_without_a_hand_is_predicted_too() -> None:
    predictor = make_predictor(ARM_ALONE, FR3_LIMITS)
    seen = Observation(1, 0, (HOME_RAD, STILL), STILL)
    assert predictor.predict(seen, Command(1, 1, 25 * MS, 60 * MS, on(7, 1.0))) is None
    assert predictor.forecast.speed_rad_s[6] > 0.01


def test_an_arm_of_another_make_is_refused(spec: PolicySpec) -> None:
    with pytest.raises(ConfigError, match=r"a dry run predicts a Panda or FR3.*found joint_0"):
        make_predictor(spec, FR3_LIMITS)
    weaker = PANDA.actuators[0].model_copy(update={"high": 5.0})
    changed = {"actuators": (weaker, *PANDA.actuators[1:])}
    with pytest.raises(ConfigError, match="found arm/joint1_torque"):
        make_predictor(PANDA.model_copy(update=changed), FR3_LIMITS)
    blind = Interface(**{**PANDA.model_dump(), "observations": PANDA.observations[-1:]})
    with pytest.raises(ConfigError, match="needs the observation key arm/joint_position"):
        make_predictor(blind, FR3_LIMITS)


def test_a_simulator_that_begins_at_rest_only_says_so() -> None:
    pytest.importorskip("pybullet")
    arm = BulletRobot(VirtualClock())
    with pytest.raises(ConfigError, match="PyBullet begins at rest only; use mujoco"):
        arm.simulator.begin(HOME_RAD, STILL, 0.08)
    arm.close()
