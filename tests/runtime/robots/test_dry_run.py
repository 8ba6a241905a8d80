"""A robot of a dry run: the loop drives it, and the arm below never hears of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gatort.runtime.clock import VirtualClock
from gatort.runtime.live_run import LiveRun
from gatort.runtime.recording.messages import RunRecord
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.robot import Robot
from gatort.runtime.robots.dry_run import DryRunRobot
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.robots.wrapped import WrappedRobot, layers
from gatort.runtime.safety import Command, State
from gatort.runtime.spec import PolicySpec
from gatort.testing import scripted_policy

TICKS = 20


class StillArm(ScriptedRobot):
    """An arm that notes each request, and whose readings repeat to the last bit."""

    def __init__(self, spec: PolicySpec, clock: VirtualClock) -> None:
        zeros = [np.zeros(key.shape, key.dtype) for key in spec.observations]
        super().__init__(spec, clock, lambda _: [value.copy() for value in zeros])
        self.asked: list[str] = []

    def arm(self) -> None:
        self.asked.append("arm")
        super().arm()

    def command(self, command: Command) -> None:
        self.asked.append("command")
        super().command(command)

    def stop(self, reason: str = "a test") -> None:
        self.asked.append("stop")
        super().stop(reason)


@pytest.fixture
def moving(spec: PolicySpec) -> PolicySpec:
    """The specification with a key whose repeated readings count as frozen."""
    position, velocity = spec.observations
    moving = position.model_copy(update={"fastest_per_s": (2.0,) * 3})
    return spec.model_copy(update={"observations": (moving, velocity)})


def drive(spec: PolicySpec, path: Path, wrap: Callable[[Robot], Robot]) -> tuple[LiveRun, StillArm]:
    clock = VirtualClock()
    arm = StillArm(spec, clock)
    policy = scripted_policy(spec, actions=[[1.0] * len(spec.actuators)])
    live = LiveRun(policy, wrap(arm), clock, ticks=TICKS)
    with Recorder(path, RunRecord.of("still", spec, "machine", clock)) as recorder:
        live.run(recorder)
    return live, arm


def test_an_arm_is_observed_and_neither_armed_nor_commanded_nor_stopped(
    moving: PolicySpec, tmp_path: Path
) -> None:
    live, arm = drive(moving, tmp_path / "run.mcap", DryRunRobot)
    assert arm.asked == []
    assert arm.state is State.DISARMED
    assert (live.is_dry, live.stopped, live.telemetry.ticks) == (True, False, TICKS)
    assert live.telemetry.refused == 0
    assert live.robot.state is State.LATCHED


def test_readings_that_repeat_still_stop_an_arm_that_is_driven(
    moving: PolicySpec, tmp_path: Path
) -> None:
    live, arm = drive(moving, tmp_path / "run.mcap", WrappedRobot)
    assert arm.asked[0] == "arm"
    assert (live.is_dry, live.stopped) == (False, True)
    assert live.loop.refusal is not None
    assert "the same values" in live.loop.refusal


def test_the_layers_of_a_robot_come_from_the_outside_in(spec: PolicySpec) -> None:
    arm = ScriptedRobot(spec, VirtualClock())
    inner = WrappedRobot(arm)
    outer = DryRunRobot(inner)
    assert list(layers(outer)) == [outer, inner, arm]
