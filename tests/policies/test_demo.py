"""Motions without a policy: they hold or wave any arm with joint torques, on a virtual clock."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from gatort.launch import cli
from gatort.policies.demo import HOMING_RAD_S, LEAD_RAD, SWING_RAD, DemoName, demo_policy
from gatort.runtime.clock import VirtualClock
from gatort.runtime.errors import ConfigError
from gatort.runtime.loop import TickRecord
from gatort.runtime.robots.panda import ARM_ALONE, HOME_RAD, PANDA
from gatort.runtime.spec import Interface
from gatort.runtime.telemetry import stage_names
from gatort.sim.make import SimulatorName, make_robot
from gatort.sim.tasks import task_named


def joints_of(name: SimulatorName, demo: DemoName, ticks: int) -> np.ndarray:
    """Return the joints' positions (ticks, 7) in a run in lockstep."""
    clock, task = VirtualClock(), task_named("stacking")
    robot = make_robot(name, task, clock, task.interface, 5000)
    policy = demo_policy(demo, robot.interface)
    seen: list[np.ndarray] = []

    def look(record: TickRecord) -> None:
        assert record.refusal is None
        assert record.observation is not None
        seen.append(record.observation.values[0])

    assert policy.control(robot, clock).run(ticks, look) == ticks
    robot.close()
    return np.array(seen)


@pytest.mark.parametrize("name", ["mujoco", "pybullet"])
def test_hold_keeps_every_joint_where_it_was(name: SimulatorName) -> None:
    joints = joints_of(name, "hold", 60)
    assert np.abs(joints - joints[0]).max() < 0.02


@pytest.mark.parametrize("name", ["mujoco", "pybullet"])
def test_wave_swings_the_last_joint_by_a_few_degrees_and_keeps_the_others(
    name: SimulatorName,
) -> None:
    away = joints_of(name, "wave", 160) - joints_of(name, "hold", 1)[0]
    assert 0.5 * SWING_RAD < away[:, 6].max() < 1.5 * SWING_RAD
    assert 0.5 * SWING_RAD < -away[:, 6].min() < 1.5 * SWING_RAD
    assert np.abs(away[:, :6]).max() < 0.02


@pytest.mark.parametrize("name", ["mujoco", "pybullet"])
def test_home_brings_every_joint_slowly_to_where_trials_start(name: SimulatorName) -> None:
    joints = joints_of(name, "home", 60)
    assert np.abs(joints[-1] - HOME_RAD).max() < 0.02
    assert np.abs(np.diff(joints, axis=0)).max() * 20 < 1.5 * HOMING_RAD_S


def test_an_arm_that_stays_where_it_is_is_pulled_no_harder_than_at_the_start_of_its_way() -> None:
    policy = demo_policy("home", ARM_ALONE)
    at_rest = [np.zeros(7, np.float32)] * 2
    pulls = np.abs([policy.act(at_rest) for _ in range(400)]).max(axis=0)
    largest = np.array([each.high for each in ARM_ALONE.actuators])
    assert np.all(pulls < 1.05 * LEAD_RAD * largest)


def test_a_demo_has_no_stage_of_a_policys_passes() -> None:
    policy = demo_policy("hold", ARM_ALONE)
    assert "prefill" not in stage_names(policy.spec, policy.engine.stepwise)


def test_home_is_known_for_arms_of_seven_joints() -> None:
    fewer = ARM_ALONE.model_dump()
    for key in fewer["observations"]:
        fewer_values = {name: key[name][:6] for name in ("low", "high", "fastest_per_s")}
        key.update(fewer_values, shape=(6,))
    interface = Interface.model_validate({**fewer, "actuators": fewer["actuators"][:6]})
    with pytest.raises(ConfigError, match="--demo home: expected an arm of 7 joints, found 6"):
        demo_policy("home", interface)


def test_an_arm_without_a_hand_can_be_waved_too() -> None:
    policy = demo_policy("wave", ARM_ALONE)
    action = policy.act([np.zeros(7, np.float32)] * 2)
    assert action.shape == (7,)


def test_the_hand_keeps_its_width() -> None:
    policy = demo_policy("hold", PANDA)
    zeros = np.zeros(7, np.float32)
    action = policy.act([zeros, zeros, np.full(1, 0.03, np.float32)])
    assert action[7] == pytest.approx(0.03, abs=1e-3)


def test_open_opens_the_hand_and_holds_the_joints() -> None:
    policy = demo_policy("open", PANDA)
    zeros = np.zeros(7, np.float32)
    for width_m in (0.05, 0.06):
        action = policy.act([zeros, zeros, np.full(1, width_m, np.float32)])
        assert action[7] == pytest.approx(PANDA.actuators[7].high, abs=1e-4)
        assert action[:7] == pytest.approx(np.zeros(7), abs=0.1)


def test_an_arm_without_a_hand_has_nothing_to_open() -> None:
    with pytest.raises(ConfigError, match="--demo open: expected an arm with gripper/width"):
        demo_policy("open", ARM_ALONE)


def test_an_arm_of_another_kind_is_refused_with_its_keys() -> None:
    other = Interface.model_validate(
        {**PANDA.model_dump(), "observations": [PANDA.observations[1].model_dump()]}
    )
    with pytest.raises(ConfigError, match="--demo wave: expected an arm with arm/joint_position"):
        demo_policy("wave", other)


def test_a_demo_takes_no_bundle_and_cannot_be_replayed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.mcap"
    written = ["--record", str(file), "--plot", str(tmp_path / "p.png")]
    assert cli.main(["run", "--demo", "hold", "--bundle", "x", *written]) == 2
    assert "--demo hold runs without a policy: leave out --bundle" in capsys.readouterr().err
    # 1 where the machine paused, and ticks were refused.
    assert cli.main(["run", "--demo", "hold", "--seconds", "0.2", *written]) in (0, 1)
    shown = " ".join(capsys.readouterr().out.split())
    assert re.search("seed 5000: demo hold(, stopped .*)? after 0.[12] s", shown), shown
    assert "success" not in shown
    assert cli.main(["replay", str(file)]) == 2
    assert "found one of `gatort run --demo`" in capsys.readouterr().err
