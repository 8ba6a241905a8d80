"""A replay compares every token on the recorded past, with an engine whose tokens depend on each
other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gatort.runtime.clock import VirtualClock
from gatort.runtime.context import Frame
from gatort.runtime.decoding import Sampler
from gatort.runtime.engines.engine import Mark, no_mark
from gatort.runtime.errors import EngineError, RecordingError
from gatort.runtime.loop import TickRecord
from gatort.runtime.policy import Policy
from gatort.runtime.recording.messages import (
    ObservationMessage,
    PromptMessage,
    RunRecord,
    TokensMessage,
)
from gatort.runtime.recording.reader import Recording
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.recording.replay import Comparison, replay_recording
from gatort.runtime.recording.tick_recorder import TickRecorder
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.spec import (
    CONTINUOUS_BINS,
    FIRST_CONTINUOUS_ID,
    ModelDims,
    ObservationKey,
    PolicySpec,
)

MS = 1_000_000


@pytest.fixture(autouse=True)
def in_an_empty_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def messages(kind: type) -> list[Any]:
    return [
        each.message
        for each in Recording(Path("run.mcap")).messages()
        if isinstance(each.message, kind)
    ]


class ChainEngine:
    """Each token is a function of the last one, and at given passes a fault or another token."""

    name = "chain"
    stepwise = True

    def __init__(self, clock: VirtualClock, faults: dict[int, int | str] | None = None) -> None:
        self._clock, self._faults = clock, faults or {}
        self.passes = 0

    def see(self, frame: Frame) -> None:
        pass

    def tick(self, frame: Frame, mark: Mark = no_mark) -> None:
        for index, block in enumerate(frame.passes):
            last = int(frame.tokens[index - 1] if index else block.ids[0, 0]) + int(
                block.ids[0, -1]
            )
            fault = self._faults.get(self.passes)
            self.passes += 1
            if fault == "raise":
                raise EngineError("out of order")
            if fault == "late":
                self._clock.advance_ns(30 * MS)
            likeliest = fault if isinstance(fault, int) else (last * 31 + 7) % CONTINUOUS_BINS
            frame.logits[index] = 0.0
            frame.logits[index, likeliest] = 1.0
            frame.tokens[index] = FIRST_CONTINUOUS_ID + int(
                np.argmax(frame.logits[index] + frame.bias[index])
            )
            mark()

    def reset(self) -> None:
        self.passes = 0


def read(sequence: int) -> list[NDArray[Any]]:
    random = np.random.default_rng(sequence)
    values = [random.normal(size=size).astype(np.float32) for size in (3, 2)]
    if sequence == 6:
        values[0][1] = np.nan
    return values


@pytest.fixture
def record(spec: PolicySpec, dims: ModelDims) -> Callable[..., Comparison]:
    """Record fifteen ticks of an engine with faults, and compare them with the engine without."""

    def record(
        faults: dict[int, int | str],
        *,
        temperature: float = 0.0,
        disturb: Callable[[Recorder, TickRecord], None] | None = None,
        prompt: Sequence[tuple[list[NDArray[Any]], NDArray[np.float64]]] = (),
        lost: int | None = None,
        offered: PolicySpec = spec,
    ) -> Comparison:
        clock = VirtualClock(1_000 * MS)
        policy = Policy.of(spec, dims, ChainEngine(clock, faults), Sampler(temperature, seed=3))
        show = (
            read if offered is spec else lambda sequence: [np.zeros(1, np.float32), *read(sequence)]
        )
        loop = policy.control(ScriptedRobot(offered, clock, show), clock)
        loop.prime(prompt)
        with Recorder(Path("run.mcap"), RunRecord.of("scripted", offered, "", clock)) as recorder:
            note = TickRecorder(recorder, loop)
            note.prompt(
                clock.now_ns(), [frame for number, frame in enumerate(prompt) if number != lost]
            )

            def look(tick: TickRecord) -> None:
                if disturb is not None:
                    disturb(recorder, tick)
                note(tick)

            assert loop.run(15, look) == 15
            recorder.close("done")
        recording = Recording(Path("run.mcap"))
        again = Policy.of(spec, dims, ChainEngine(VirtualClock()), Sampler(temperature, seed=3))
        comparison = Comparison(recording, again)
        for stamped in recording.messages():
            comparison.take(stamped)
        return comparison

    return record


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_refused_ticks_leave_no_frame_and_draw_the_same_noise(
    record: Callable[..., Comparison], temperature: float
) -> None:
    # Observation 6 has a NaN (tick 4). Tick 2 is late in its last pass, and the engine fails in
    # the second pass of tick 6.
    comparison = record({8: "late", 3 * 5 + 1: "raise"}, temperature=temperature)
    assert comparison.first is None
    assert (comparison.ticks, comparison.equal_ticks) == (13, 13)
    tokens = messages(TokensMessage)
    assert [each.completed for each in tokens] == [True, True, False, *[True] * 10]
    assert any(each.raw != each.sampled for each in tokens) == (temperature > 0)


def test_a_prompt_has_the_policys_keys_though_the_robot_offers_more(
    record: Callable[..., Comparison], spec: PolicySpec
) -> None:
    extra = ObservationKey(name="a_first", shape=(1,), dtype="float32", unit="1", encoding="mu_law")
    offered = spec.model_copy(update={"observations": (extra, *spec.observations)})
    prompt = [(read(sequence), np.zeros(3)) for sequence in (100, 101)]
    comparison = record({}, prompt=prompt, offered=offered)
    assert comparison.gap is None
    assert comparison.first is None
    assert comparison.equal_ticks > 0
    assert set(messages(PromptMessage)[0].values) < set(messages(ObservationMessage)[0].values)


def test_the_frames_of_a_prompt_come_before_the_first_tick(
    record: Callable[..., Comparison],
) -> None:
    comparison = record(
        {}, prompt=[(read(sequence), np.array([1.0, -2.0, 3.0])) for sequence in (100, 101)]
    )
    assert (comparison.first, comparison.ticks) == (None, 14)
    assert [each.frame for each in messages(TokensMessage)] == list(range(2, 16))
    assert len(messages(PromptMessage)) == 2


def test_after_a_difference_the_context_goes_on_with_the_recorded_tokens(
    record: Callable[..., Comparison],
) -> None:
    # The recorded run took another second token in tick 5; its later tokens follow from that one.
    comparison = record({3 * 4 + 1: 1000})
    assert comparison.first is not None
    assert (comparison.first.tick, comparison.first.actuator) == (5, "joint_1")
    assert (comparison.first.recorded_bin, comparison.first.margin) == (1000, 1.0)
    assert (
        comparison.ticks - comparison.equal_ticks,
        comparison.tokens - comparison.equal_tokens,
    ) == (1, 1)


def test_from_a_dropped_tick_on_nothing_is_compared(record: Callable[..., Comparison]) -> None:
    def drop_tick_9(recorder: Recorder, tick: TickRecord) -> None:
        if tick.wake.tick == 9:  # as if the link had been full
            recorder._sequences = [sequence + 1 for sequence in recorder._sequences]
        if tick.wake.tick == 10:
            recorder._packet.clear()

    comparison = record({}, disturb=drop_tick_9)
    assert (
        comparison.gap
        == "messages before tick 9 were dropped, and with them the context of all later ticks"
    )
    assert (comparison.first, comparison.ticks) == (None, 8)


@pytest.mark.parametrize("lost", [0, 1])
def test_after_a_frame_of_the_prompt_that_was_dropped_nothing_is_compared(
    record: Callable[..., Comparison], lost: int
) -> None:
    comparison = record(
        {}, prompt=[(read(sequence), np.zeros(3)) for sequence in (100, 101)], lost=lost
    )
    assert (
        comparison.gap
        == "messages before tick 0 were dropped, and with them the context of all later ticks"
    )
    assert (comparison.first, comparison.ticks) == (None, 0)


def test_a_recording_without_comparable_ticks_is_refused(spec: PolicySpec, dims: ModelDims) -> None:
    clock = VirtualClock()
    with Recorder(Path("run.mcap"), RunRecord.of("scripted", spec, "", clock)) as recorder:
        recorder.close("done")
    policy = Policy.of(spec, dims, ChainEngine(clock))
    with pytest.raises(RecordingError, match="no tick has both an observation and tokens"):
        replay_recording(Recording(Path("run.mcap")), policy)
