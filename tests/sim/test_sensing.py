"""A robot gets the keys that a policy reads and it lacks from a sensor over ZeroMQ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.conftest import observation_key
from tests.launch.conftest import published

pytest.importorskip("mujoco")

from gatort.launch import cli
from gatort.policies.loading import PolicyOptions, load_policy
from gatort.runtime.clock import MonotonicClock
from gatort.runtime.errors import ConfigError, SpecError
from gatort.runtime.policy import Policy
from gatort.runtime.robots.panda import ARM_ALONE, PANDA
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.spec import PolicySpec
from gatort.sim.make import make_robot
from gatort.sim.robot import SimulatedRobot
from gatort.sim.sensing import completed, with_sensor
from gatort.sim.tasks.stacking.specifications import CAMERA_SPEC, STACK_SPEC
from gatort.sim.tasks.stacking.task import Stacking
from gatort.testing import scripted_policy

CLOCK = MonotonicClock()
JOINTS_ONLY = PolicySpec.model_validate(
    {name: getattr(PANDA, name) for name in type(PANDA).model_fields} | {"window_frames": 1}
)
UPRIGHT = [1.0, 0.0, 0.0, 0.0]
CUBES = {
    "pose/red": [0.45, 0.1, 0.025, *UPRIGHT],
    "pose/blue": [0.55, -0.1, 0.0225, *UPRIGHT],
    "edge/red": [0.05],
    "edge/blue": [0.045],
}


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(PolicyOptions(threads=1))


@pytest.fixture
def cubes() -> Iterator[str]:
    with published(CUBES) as address:
        yield address


@pytest.fixture
def red_alone() -> Iterator[str]:
    with published({name: each for name, each in CUBES.items() if "red" in name}) as address:
        yield address


@pytest.fixture
def block_keys() -> Iterator[str]:
    with published({"blocks/edge": [0.05, 0.045]} | CUBES) as address:
        yield address


def arm() -> SimulatedRobot:
    return make_robot("mujoco", Stacking(), CLOCK, JOINTS_ONLY)


def test_the_keys_of_a_task_follow_from_published_poses(policy: Policy, cubes: str) -> None:
    robot = with_sensor(arm(), cubes, policy, None, CLOCK)
    seen = dict(
        zip((k.name for k in robot.interface.observations), robot.observe().values, strict=True)
    )
    np.testing.assert_allclose(seen["blocks/blue_from_red"], [0.1, -0.2, -0.0025], atol=1e-6)
    np.testing.assert_allclose(seen["blocks/edge"], [0.05, 0.045])
    robot.close()


def test_a_key_that_is_published_by_its_name_is_taken_as_it_is(
    policy: Policy, block_keys: str
) -> None:
    robot = with_sensor(arm(), block_keys, policy, None, CLOCK)
    assert {key.name for key in policy.spec.observations} <= {
        key.name for key in robot.interface.observations
    }
    robot.observe()
    robot.close()


def test_a_sensor_that_misses_a_cube_is_refused(policy: Policy, red_alone: str) -> None:
    with pytest.raises(SpecError, match="expected a sensor that publishes edge/blue"):
        with_sensor(arm(), red_alone, policy, None, CLOCK)


def test_a_robot_that_lacks_no_key_needs_no_sensor(policy: Policy, cubes: str) -> None:
    whole = make_robot("mujoco", Stacking(), CLOCK)
    with pytest.raises(ConfigError, match="leave out --sensor"):
        with_sensor(whole, cubes, policy, None, CLOCK)


@pytest.mark.parametrize(
    ("offered", "wanted", "remedy"),
    [
        (JOINTS_ONLY, CAMERA_SPEC, r"'camera/front'; .*: give a --profile with \[cameras.front\]"),
        (ARM_ALONE, STACK_SPEC, "'gripper/width'; .*for an arm with a hand, and leave out --han"),
        (
            JOINTS_ONLY,
            STACK_SPEC,
            "'blocks/blue_from_red'; .*: give --sensor with a program that me",
        ),
        (ARM_ALONE, JOINTS_ONLY, "'gripper/width'; .*for an arm with a hand, and leave out --hand"),
    ],
)
def test_a_robot_that_lacks_a_key_is_refused_with_the_remedy(
    offered: Any, wanted: PolicySpec, remedy: str
) -> None:
    wishing = scripted_policy(wanted, actions=[[0.0] * len(wanted.actuators)])
    with pytest.raises(SpecError, match=f"the robot lacks observation key {remedy}"):
        completed(ScriptedRobot(offered, CLOCK), None, wishing, None, CLOCK)


def test_pictures_come_from_no_sensor(cubes: str) -> None:
    wishing = scripted_policy(CAMERA_SPEC, actions=[[0.0] * 8])
    with pytest.raises(SpecError, match=r"with \[cameras.front\]"):
        completed(arm(), cubes, wishing, None, CLOCK)


def test_a_key_that_neither_sensor_nor_task_has_is_refused(cubes: str) -> None:
    wanted = JOINTS_ONLY.model_copy(
        update={"observations": (*JOINTS_ONLY.observations, observation_key("wrist/force", 3))}
    )
    wishing = scripted_policy(wanted, actions=[[0.0] * 8])
    with pytest.raises(SpecError, match="publishes 'wrist/force', or a task that derives it"):
        completed(arm(), cubes, wishing, "stacking", CLOCK)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--sensor", "tcp://192.0.2.7:1"], "expected a sensor on this computer"),
        (["--robot", "mujoco", "--sensor", "tcp://127.0.0.1:1"], "knows its own bodies"),
        (
            ["--robot", "tcp://127.0.0.1:1", "--demo", "hold", "--sensor", "tcp://127.0.0.1:1"],
            "leave out --sensor",
        ),
    ],
)
def test_a_sensor_that_does_not_fit_is_refused(
    flags: list[str], sentence: str, capsys: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path_factory.mktemp("run"))
    assert cli.main(["run", *flags]) == 2
    assert sentence in capsys.readouterr().err
