"""A live run ends at success, at the end of its time, by the operator, or by a failure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gatort.runtime.clock import VirtualClock
from gatort.runtime.context import Frame
from gatort.runtime.engines.engine import Mark, no_mark
from gatort.runtime.errors import ObservationError, RobotError
from gatort.runtime.guard import Refusal
from gatort.runtime.live_run import LiveRun, ignore_tick
from gatort.runtime.loop import TickRecord
from gatort.runtime.policy import Policy
from gatort.runtime.recording.messages import FaultMessage, RunRecord
from gatort.runtime.recording.reader import Recording
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.robot import Observation
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.safety import AT_ROBOT, State
from gatort.runtime.spec import FIRST_CONTINUOUS_ID, ModelDims, PolicySpec


class StillEngine:
    """Always picks the middle bin."""

    name = "still"
    stepwise = True

    def see(self, frame: Frame) -> None:
        pass

    def tick(self, frame: Frame, mark: Mark = no_mark) -> None:
        frame.logits[:] = 0.0
        frame.logits[:, 512] = 1.0
        frame.tokens[:] = FIRST_CONTINUOUS_ID + 512
        for _ in frame.passes:
            mark()

    def reset(self) -> None:
        pass


class TaskRobot(ScriptedRobot):
    """Succeeds or fails at a given observation."""

    success_at = failure_at = 0

    def observe(self) -> Observation:
        seen = super().observe()
        if seen.sequence == self.failure_at:
            raise RobotError("the link broke")
        return seen

    @property
    def succeeded(self) -> bool:
        return 0 < self.success_at <= self._sequence


Run = Callable[..., LiveRun]


@pytest.fixture
def run(spec: PolicySpec, dims: ModelDims, tmp_path: Path) -> Run:
    def run(
        on_tick: Callable[[TickRecord], None] = ignore_tick,
        *,
        success_at: int = 0,
        failure_at: int = 0,
        until_success: bool = True,
        prompt: int = 0,
    ) -> LiveRun:
        clock = VirtualClock(1_000_000_000)
        policy = Policy.of(spec, dims, StillEngine())
        robot = TaskRobot(spec, clock)
        robot.success_at = success_at
        robot.failure_at = failure_at
        values = [np.zeros(key.shape, key.dtype) for key in spec.observations]
        frames = [(values, np.zeros(len(spec.actuators)))] * prompt
        live = LiveRun(policy, robot, clock, ticks=10, until_success=until_success, prompt=frames)
        assert live.policy.frames == prompt
        path = tmp_path / "run.mcap"
        path.unlink(missing_ok=True)  # A recording is never replaced.
        with Recorder(path, RunRecord.of("task", spec, "", clock)) as recorder:
            live.run(recorder, on_tick)
            recorder.close("done")
        return live

    return run


def test_a_run_takes_all_its_time_unless_the_task_succeeds(run: Run) -> None:
    live = run()
    assert (live.telemetry.ticks, live.seconds, live.ending) == (10, 0.5, None)
    assert live.state == State.RUN
    assert run(success_at=4).telemetry.ticks < 10
    assert run(success_at=4, until_success=False).telemetry.ticks == 10


def test_the_prompt_precedes_the_first_observation(run: Run) -> None:
    assert run(prompt=2).policy.frames == 12


def test_ctrl_c_is_the_operator_s_stop(run: Run) -> None:
    def press_ctrl_c(_: TickRecord) -> None:
        raise KeyboardInterrupt

    live = run(press_ctrl_c)
    assert (live.telemetry.ticks, live.interrupted, live.stopped) == (1, True, False)
    assert live.ending == "stopped by the operator"


def test_a_robot_that_fails_stops_the_run_and_is_recorded(run: Run, tmp_path: Path) -> None:
    live = run(failure_at=5)
    assert live.stopped
    assert live.ending == "the robot failed (the link broke)"
    messages = [each.message for each in Recording(tmp_path / "run.mcap").messages()]
    assert FaultMessage(component="robot", sentence="the link broke") in messages


def test_a_run_that_refused_observations_stops_with_the_sentence_on_the_newest(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fall_silent(_: TickRecord) -> None:
        monkeypatch.setattr(TaskRobot, "observe", observe_nothing)

    def observe_nothing(_: TaskRobot) -> Observation:
        raise ObservationError("the sensor of the poses: found one 201 ms old")

    ending = run(fall_silent).ending
    assert ending is not None
    assert "observation refused; the newest: the sensor of the poses: found one 201 ms" in ending


def test_a_robot_that_fails_before_the_first_tick_raises(run: Run) -> None:
    with pytest.raises(RobotError, match="the link broke"):
        run(failure_at=1)


def test_a_run_that_missed_deadlines_names_the_competitors_for_the_processor(run: Run) -> None:
    live = run()
    assert live.contention is not None
    assert live.processor_sentence is None
    live.loop.guard.refused[Refusal.LATE] = 4
    live.scheduling = "nice -10"
    assert live.processor_sentence is not None
    assert live.processor_sentence.startswith("processor: in ")
    assert "the loop (nice -10) waited" in live.processor_sentence
    assert "Try: " in live.processor_sentence


@pytest.mark.parametrize(
    ("reason", "is_named"), [(f"{AT_ROBOT} a key", False), ("no command for 200 ms", True)]
)
def test_a_stop_by_the_operator_blames_no_competitor_for_the_processor(
    run: Run, monkeypatch: pytest.MonkeyPatch, reason: str, is_named: bool
) -> None:
    live = run()
    assert live.contention is not None
    live.stopped = True
    live.contention = replace(live.contention, others_s=9.0, takers=[("sensor.py", 9.0)])
    monkeypatch.setattr(TaskRobot, "stop_reason", reason)
    assert (live.processor_sentence is not None) == is_named
    live.loop.guard.refused[Refusal.LATE] = 1
    assert live.processor_sentence is not None


def test_skipped_ticks_are_misses_and_no_refusals(run: Run) -> None:
    live = run()
    live.loop.guard.refused.update({Refusal.SKIPPED: 3, Refusal.LATE: 1})
    assert live.refusals == {"action late": 1}
