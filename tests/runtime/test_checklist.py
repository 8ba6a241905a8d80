"""The rows of the checklist before consent, from an arm behind a wire in memory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tests.conftest import observation_key

from gatort.runtime import checklist as checking
from gatort.runtime.bundle import SuccessRecord, load_manifest
from gatort.runtime.checklist import checklist
from gatort.runtime.clock import VirtualClock
from gatort.runtime.facts import Fact
from gatort.runtime.live_run import LiveRun
from gatort.runtime.policy import Policy
from gatort.runtime.remote.client import RemoteRobot
from gatort.runtime.remote.memory import MemoryRobotTransport
from gatort.runtime.remote.server import RobotServer
from gatort.runtime.robot import Observation, Robot
from gatort.runtime.robots.panda import ARM_ALONE
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.robots.sensors.readings import SensorReading
from gatort.runtime.robots.sensors.robot import PublishedKeys, SensorRobot
from gatort.runtime.spec import PolicySpec
from gatort.runtime.takeover.wish import TakeoverDevice, Wish
from gatort.testing import scripted_policy

MS = 1_000_000
STACK = Path(checking.__file__).parents[1] / "policies" / "stack"


class LoadedArm(ScriptedRobot):
    """An arm that tells its load."""

    @property
    def facts(self) -> tuple[Fact, ...]:
        return (Fact("load", "0 kg", "Desk knows of 0.4 kg"),)


class Bench:
    """An arm without joints' physics, its server, a controller, and a policy for it."""

    def __init__(self, spec: PolicySpec) -> None:
        self.spec = spec
        self.clock = VirtualClock(1_000 * MS)
        self.link = MemoryRobotTransport(self.clock)
        self.arm = LoadedArm(spec, self.clock)
        self.server = RobotServer(self.arm, self.clock, self.link, name="lab", simulated=False)
        self.policy: Policy = scripted_policy(spec, actions=[[0.0] * len(spec.actuators)])

    def rows(
        self,
        recording: Path,
        around: Callable[[Robot], Robot] = lambda robot: robot,
        takeover: TakeoverDevice | None = None,
    ) -> dict[str, Fact]:
        robot = RemoteRobot("memory", self.clock, transport=self.link.connect(self.server.turn))
        live = LiveRun(self.policy, around(robot), self.clock, ticks=100, takeover=takeover)
        return {fact.name: fact for fact in checklist(live, robot, (), recording)}


@pytest.fixture
def bench(spec: PolicySpec) -> Bench:
    return Bench(spec)


def test_the_rows_name_arm_state_load_policy_disk_and_deadline(
    bench: Bench, tmp_path: Path
) -> None:
    rows = bench.rows(tmp_path / "run.mcap")
    assert list(rows) == ["arm", "state", "load", "observation", "policy", "disk", "deadline"]
    assert rows["arm"] == Fact("arm", "lab at memory, real")
    assert rows["state"] == Fact("state", "disarmed")
    assert rows["load"] == Fact("load", "0 kg", "Desk knows of 0.4 kg")
    assert rows["deadline"].value.startswith("an action 25 ms after its observation, 20 ticks")
    assert rows["deadline"].value.endswith("5 s at most")


class Device:
    """A device that is never heard."""

    name = "gamepad"
    help = "[A] take over"

    def wish(self, observation: Observation) -> Wish:  # noqa: ARG002
        return Wish(0)

    def listening(self) -> AbstractContextManager[None]:
        return nullcontext()


def test_a_device_with_which_a_person_may_take_over_is_named(tmp_path: Path) -> None:
    rows = Bench(PolicySpec(**ARM_ALONE.model_dump(), window_frames=2)).rows(
        tmp_path / "run.mcap", takeover=Device()
    )
    assert rows["takeover"] == Fact("takeover", "gamepad; [A] take over")


class ForceSensor:
    """A sensor of a force."""

    address = "tcp://127.0.0.1:5560"
    stamp_ns = 1_000 * MS

    def update(self) -> dict[str, SensorReading]:
        return {"a_sensor/force": SensorReading(np.zeros(3), self.stamp_ns)}

    def close(self) -> None:
        return


def test_a_sensor_has_a_row_for_itself_and_for_each_key(bench: Bench, tmp_path: Path) -> None:
    keys = PublishedKeys(ForceSensor(), [observation_key("a_sensor/force", 3)], bench.clock)
    rows = bench.rows(tmp_path / "run.mcap", lambda robot: SensorRobot(robot, keys))
    assert list(rows)[2:6] == ["load", "sensor", "a_sensor/force", "observation"]
    assert rows["sensor"].value.startswith("tcp://127.0.0.1:5560, ")


def test_an_arm_that_was_stopped_at_its_own_side_needs_attention(
    bench: Bench, tmp_path: Path
) -> None:
    bench.server.stop("a key")
    bench.server.turn()
    assert "only its console allows arming again" in bench.rows(tmp_path / "a")["state"].attention


def test_a_policy_without_trials_needs_attention(bench: Bench, tmp_path: Path) -> None:
    manifest = load_manifest(STACK)
    for success, value, attention in (
        (None, "", "it was never tried: run `gatort trials` with it first"),
        (
            SuccessRecord(trials=8, first_seed=1, successes=7, rate=0.875, wilson_95=(0.5, 0.98)),
            "; 7 of 8 simulated trials",
            "",
        ),
    ):
        bench.policy.manifest = manifest.model_copy(update={"success": success})
        row = bench.rows(tmp_path / "a")["policy"]
        assert row.value == f"stack, engine {bench.policy.engine.name}{value}"
        assert row.attention == attention
        bench.clock.advance_ns(3_000 * MS)  # The session ends, and another may begin.


@pytest.mark.parametrize(("free_bytes", "is_scarce"), [(999_000_000, True), (10**9, False)])
def test_a_disk_with_less_than_a_gigabyte_needs_attention(
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    free_bytes: int,
    is_scarce: bool,
) -> None:
    asked = []

    def disk_usage(folder: Path) -> SimpleNamespace:
        asked.append(folder)
        return SimpleNamespace(free=free_bytes)

    monkeypatch.setattr(checking.shutil, "disk_usage", disk_usage)
    row = bench.rows(tmp_path / "run.mcap")["disk"]
    assert asked == [tmp_path]
    assert row.value == f"1.0 GB free in {tmp_path}"
    assert bool(row.attention) == is_scarce


def test_pictures_of_the_robots_own_cameras_are_named(
    every_encoding_spec: PolicySpec, tmp_path: Path
) -> None:
    rows = Bench(every_encoding_spec).rows(tmp_path / "a")
    assert rows["left"] == Fact("left", "from the robot, of unknown age")
    assert "right" in rows
