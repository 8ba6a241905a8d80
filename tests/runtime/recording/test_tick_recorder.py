"""A tick and an inner step come back from their recording as they were."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.runtime.recording.conftest import MS, TOKENS, control, messages, random_values

from gatort.runtime.clock import VirtualClock
from gatort.runtime.errors import RecordingError
from gatort.runtime.loop import TickRecord
from gatort.runtime.recording import recorder as recorder_module
from gatort.runtime.recording import tick_recorder as tick_recorder_module
from gatort.runtime.recording.messages import (
    CommandMessage,
    FaultMessage,
    ObservationMessage,
    PromptMessage,
    RunRecord,
    StateMessage,
    TickMessage,
    TokensMessage,
    arrays,
)
from gatort.runtime.recording.reader import Recording
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.recording.tick_recorder import StepRecorder, TickRecorder
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.safety import State
from gatort.runtime.spec import ModelDims, PolicySpec


def test_every_kind_of_observation_comes_back_to_the_bit(
    every_encoding_spec: PolicySpec, dims: ModelDims, clock: VirtualClock, path: Path
) -> None:
    spec = every_encoding_spec
    wide = dims.model_copy(update={"first_token_id": 0})
    loop = control(spec, wide, clock, lambda sequence: random_values(spec, sequence))
    with Recorder(path, RunRecord.of("scripted", spec, "", clock)) as recorder:
        loop.run(5, TickRecorder(recorder, loop))
        recorder.close("done")

    found = messages(path, ObservationMessage)
    assert [each.tick for each in found] == [0, 1, 2, 3, 4]
    for message in found:
        given = random_values(spec, message.sequence)
        for array, expected in zip(arrays(message.values, spec.observations), given, strict=True):
            assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
            assert array.tobytes() == expected.tobytes()


def test_an_observation_refused_for_its_nan_is_recorded_with_the_nan_and_the_reason(
    spec: PolicySpec, dims: ModelDims, clock: VirtualClock, path: Path, recorder: Recorder
) -> None:
    def values(sequence: int) -> list[NDArray[Any]]:
        positions, velocities = random_values(spec, 0)
        velocities[1] = np.nan if sequence == 4 else 0.0
        return [positions, velocities]

    loop = control(spec, dims, clock, values)
    loop.run(4, TickRecorder(recorder, loop))
    recorder.close("done")

    _, velocities = arrays(messages(path, ObservationMessage)[2].values, spec.observations)
    assert np.isnan(velocities).tolist() == [False, True]
    tick = messages(path, TickMessage)[2]
    assert tick.reason == "observation refused"
    assert "arm/velocity: expected finite values" in tick.refusal
    assert [each.sentence for each in messages(path, FaultMessage)] == [tick.refusal]
    assert [each.tick for each in messages(path, TokensMessage)] == [0, 1, 3]
    states = [(each.guard, each.robot) for each in messages(path, StateMessage)]
    assert states[:2] == [("run", "run"), ("hold", "run")]


def test_an_observation_that_lacks_an_array_is_recorded_as_far_as_it_goes(
    spec: PolicySpec, dims: ModelDims, clock: VirtualClock, path: Path, recorder: Recorder
) -> None:
    loop = control(
        spec, dims, clock, lambda sequence: random_values(spec, 0)[: 1 if sequence == 4 else 2]
    )
    assert loop.run(4, TickRecorder(recorder, loop)) == 4
    recorder.close("done")

    lacking = messages(path, ObservationMessage)[2]
    with pytest.raises(RecordingError, match="arm/velocity: expected 2 recorded values, found 0"):
        arrays(lacking.values, spec.observations)
    refused = [bool(tick.refusal) for tick in messages(path, TickMessage)]
    assert refused == [False, False, True, False]


def test_a_command_is_recorded_as_asked_as_limited_and_as_applied(
    spec: PolicySpec, dims: ModelDims, clock: VirtualClock, path: Path, recorder: Recorder
) -> None:
    ticks: list[TickRecord] = []
    loop = control(spec, dims, clock)
    record = TickRecorder(recorder, loop)

    def look(tick: TickRecord) -> None:
        record(tick)
        ticks.append(tick)

    loop.run(3, look)
    recorder.close("done")

    for message, tick in zip(messages(path, CommandMessage), ticks, strict=True):
        assert message.asked == tick.decision.action.tolist()
        assert message.limited == tick.command.values.tolist()
        assert message.applied == tick.observation.applied.tolist()
        assert message.apply_at_ns == tick.observation.stamp_ns + spec.action_delay_ns
    tokens = messages(path, TokensMessage)
    frames = [(each.frame, each.slot, each.completed) for each in tokens]
    assert frames == [(0, 0, True), (1, 1, True), (2, 2, True)]
    assert [each.raw for each in tokens] == [each.sampled for each in tokens] == [TOKENS] * 3


def test_a_robots_inner_loop_is_recorded_step_by_step(
    spec: PolicySpec, clock: VirtualClock, path: Path, recorder: Recorder
) -> None:
    seen: list[tuple[int, State, list[float]]] = []
    robot = ScriptedRobot(spec, clock)
    record = StepRecorder(recorder)

    def on_step(at_ns: int, state: State, values: NDArray[np.float64]) -> None:
        seen.append((at_ns, state, values.tolist()))
        record(at_ns, state, values)

    robot.on_step = on_step
    robot.arm()
    clock.advance_ns(333 * MS)  # through HOLD and SAFE to LATCHED
    robot.observe()
    recorder.close("done")

    trace = Recording(path).steps()
    assert {State.RUN, State.HOLD, State.SAFE, State.LATCHED} <= set(trace.states)
    assert list(zip(trace.at_ns.tolist(), trace.states, trace.values.tolist(), strict=True)) == seen


def test_a_prompt_longer_than_the_link_is_recorded_whole(
    path: Path,
    spec: PolicySpec,
    dims: ModelDims,
    clock: VirtualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder_module, "_LINK_BYTES", 1 << 14)
    frames = [(random_values(spec, seed), np.full(3, float(seed))) for seed in range(150)]
    with Recorder(path, RunRecord.of("scripted", spec, "", clock)) as recorder:
        TickRecorder(recorder, control(spec, dims, clock)).prompt(clock.now_ns(), frames)
        recorder.close("done")
    assert recorder.complete
    assert [each.action[0] for each in messages(path, PromptMessage)] == list(range(150))


def test_an_operators_stop_at_any_line_leaves_a_tick_whole_or_absent(
    path: Path, recorder: Recorder, spec: PolicySpec, dims: ModelDims, clock: VirtualClock
) -> None:
    files = {recorder_module.__file__, tick_recorder_module.__file__}
    loop = control(spec, dims, clock)
    before = sys.gettrace()
    interrupted: set[int] = set()

    def stop_at_line(number: int) -> Callable[..., Any]:
        lines = count()

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            if frame.f_code.co_filename not in files:
                return None
            if event == "line" and next(lines) == number:
                raise KeyboardInterrupt
            return trace

        return trace

    def record(tick: TickRecord) -> None:
        record_tick = TickRecorder(recorder, loop)
        sys.settrace(stop_at_line(tick.wake.tick))
        try:
            record_tick(tick)
        except KeyboardInterrupt:
            interrupted.add(tick.wake.tick)
        finally:
            sys.settrace(before)
            recorder.flush()  # as `close` does

    loop.run(200, record)
    recorder.close("done")

    assert 20 < len(interrupted) < 200  # It came at each line, and at last after all of them.
    parts: dict[int, set[type]] = {}
    for _, _, message in Recording(path).messages():
        if not isinstance(message, StateMessage):
            parts.setdefault(message.tick, set()).add(type(message))
    assert {frozenset(kinds) for kinds in parts.values()} == {
        frozenset({ObservationMessage, TokensMessage, CommandMessage, TickMessage})
    }
    assert set(range(200)) - parts.keys() <= interrupted
