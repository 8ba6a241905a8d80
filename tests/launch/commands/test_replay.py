"""`gatort replay`: the same engine gives the same tokens, and another one is held to the first that differs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gatort.launch import cli
from gatort.launch.commands.replay import (
    Comparison,
    _options,
)
from gatort.policies.loading import PolicyOptions, load_policy
from gatort.runtime.bundle import ONNX_FILE
from gatort.runtime.clock import VirtualClock
from gatort.runtime.context import Frame
from gatort.runtime.decoding import Sampler
from gatort.runtime.engines.engine import (
    Mark,
    no_mark,
)
from gatort.runtime.errors import EngineError
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
def in_an_empty_directory_and_virtual_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gatort.launch.commands.run.MonotonicClock", VirtualClock)


def run(bundle: Path, *arguments: str) -> None:
    command = [
        "run",
        "--bundle",
        str(bundle),
        "--seconds",
        "1.5",
        "--record",
        "run.mcap",
        *arguments,
    ]
    assert cli.main(command) in (0, 1)  # drawn actions may be stopped before the time is up


def replay(*arguments: str) -> int:
    return cli.main(["replay", "run.mcap", "--json", "replay.json", *arguments])


def found() -> dict[str, Any]:
    record: dict[str, Any] = json.loads(Path("replay.json").read_text())
    return record


# -- Through real engines --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", ["0", "0.5"])
def test_the_same_engine_gives_every_token_again(bundle: Path, temperature: str) -> None:
    run(bundle, "--temperature", temperature)
    assert replay() == 0
    record = found()
    assert (record["engine"], record["first_difference"], record["notes"]) == ("onnx cpu", None, [])
    assert record["equal_tokens"] == record["tokens"] == 8 * record["ticks"] > 0


def test_a_demonstration_that_stood_before_a_run_stands_before_its_replay_or_nothing_is_compared(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["demos", "shown", "--episodes", "1", "--workers", "1", "--noise-nm", "0"]) == 0
    prompt = str(next(Path("shown").glob("*.npz")))
    run(bundle, "--prompt", prompt)
    assert (
        len(messages(PromptMessage)) == load_policy(PolicyOptions(bundle=bundle)).spec.window_frames
    )
    assert replay() == 0
    monkeypatch.setattr(TickRecorder, "prompt", lambda *_: None)
    run(bundle, "--prompt", prompt)
    capsys.readouterr()
    assert replay() == 2
    assert "found none: messages before tick 0 were dropped" in capsys.readouterr().err


def test_another_engine_is_compared_on_the_same_past(bundle: Path) -> None:
    run(bundle)
    assert replay("--engine", "torch") == 0
    assert found()["engine"] == "torch cpu float32"


@pytest.mark.native
def test_the_recorded_engine_keeps_the_recorded_precision_on_another_bundle_too(
    bundle: Path,
) -> None:
    run(bundle, "--engine", "native", "--precision", "w8a8")
    assert replay("--bundle", str(bundle)) == 0
    assert found()["engine"] == "native w8a8"
    assert replay("--bundle", str(bundle), "--precision", "fp32") in (0, 1)
    assert found()["engine"] == "native fp32"


def test_an_engine_that_takes_a_bundles_own_precision_takes_another_bundles_too(
    bundle: Path,
) -> None:
    run(bundle)
    recorded = Recording(Path("run.mcap")).policy
    assert recorded is not None
    rounded = recorded.model_copy(update={"precision": "int8"})
    assert _options(rounded, None, None, None).precision == "int8"
    assert _options(rounded, bundle, None, None).precision is None


def test_a_bundle_changed_in_one_weight_is_held_to_the_first_token_that_differs(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from gatort.export.bundle_writer import write_bundle
    from gatort.policies.weights import read_model
    from gatort.runtime.bundle import load_manifest

    run(bundle)
    model = read_model(bundle)
    likeliest = recorded_bins()[0]
    with torch.no_grad():  # One number, in the row that scores the bin which was recorded first.
        model.tokens.weight[model.bins_at + likeliest, 0] += 0.5
    write_bundle(Path("changed"), "changed", model, load_manifest(bundle).training)
    capsys.readouterr()
    assert replay("--bundle", "changed") == 1
    text = " ".join(capsys.readouterr().out.split())
    record = found()
    first = record["first_difference"]
    assert (
        "changed is not the bundle that was recorded, it differs in manifest.json, model.safetensors"
        in text
    )
    assert (
        f"the first that differs: tick {first['tick']} ({first['seconds']:.2f} s), actuator" in text
    )
    bins, spec = recorded_bins(), load_manifest(bundle).spec
    index = [actuator.name for actuator in spec.actuators].index(first["actuator"])
    assert first["recorded_bin"] == bins[8 * first["tick"] + index] != first["found_bin"]
    actuator = spec.actuators[index]
    step = (actuator.high - actuator.low) / CONTINUOUS_BINS
    assert first["found_value"] == pytest.approx(actuator.low + (first["found_bin"] + 0.5) * step)
    assert first["margin"] > 0
    assert record["equal_ticks"] < record["ticks"]
    # The first difference is the first: all before it are equal.
    assert record["equal_tokens"] >= 8 * first["tick"] + index


def recorded_bins() -> list[int]:
    """Of every token in order."""
    return [
        token - FIRST_CONTINUOUS_ID for each in messages(TokensMessage) for token in each.sampled
    ]


def messages(kind: type) -> list[Any]:
    return [
        each.message
        for each in Recording(Path("run.mcap")).messages()
        if isinstance(each.message, kind)
    ]


# -- With an engine whose every token depends on the one before it ---------------------------------------------------


class ChainEngine:
    """Each token is a function of the last one, and at given passes a fault or another token."""

    name = "chain"
    stepwise = True

    def __init__(self, clock: VirtualClock, faults: dict[int, int | str] | None = None) -> None:
        self._clock, self._faults = clock, faults or {}
        self.passes = 0

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
def test_ticks_that_were_refused_leave_no_frame_and_draw_what_they_drew(
    record: Callable[..., Comparison], temperature: float
) -> None:
    # Observation 6 has a NaN (tick 4); tick 2 is late in its last pass, tick 6's engine fails in its second.
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


def test_after_a_difference_the_context_goes_on_with_what_was_recorded(
    record: Callable[..., Comparison],
) -> None:
    # The recorded run took another second token in tick 5; all that it took later follows from that one.
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
        == "messages before tick 9 were dropped, and with them the context of all that follows"
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
        == "messages before tick 0 were dropped, and with them the context of all that follows"
    )
    assert (comparison.first, comparison.ticks) == (None, 0)


# -- What is refused -------------------------------------------------------------------------------------------------


def test_a_recording_that_was_cut_off_is_replayed_as_far_as_it_goes(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(bundle)
    path = Path("run.mcap")
    path.write_bytes(path.read_bytes()[:-2_000])
    assert replay() == 0
    assert "the recording is incomplete: the file was cut off" in " ".join(
        capsys.readouterr().out.split()
    )
    assert found()["ticks"] == 30


def test_what_cannot_be_replayed_is_refused_in_one_sentence(
    bundle: Path, exported: Any, spec: PolicySpec, capsys: pytest.CaptureFixture[str]
) -> None:
    run(bundle)
    capsys.readouterr()
    assert replay("--bundle", str(exported.bundle)) == 2
    assert "the robot lacks observation key 'arm/position'" in capsys.readouterr().err
    assert replay("--bundle", "nowhere") == 2
    assert "nowhere/manifest.json: expected a bundle's manifest" in capsys.readouterr().err
    (bundle / ONNX_FILE).unlink()
    assert replay() == 2
    assert (
        "policy.onnx: named in the manifest, but there is no such file" in capsys.readouterr().err
    )
    with Recorder(Path("run.mcap"), RunRecord.of("scripted", spec, "", VirtualClock())) as recorder:
        recorder.close("done")
    assert replay() == 2
    assert (
        "expected a run of a policy, found a recording of the robot alone"
        in capsys.readouterr().err
    )
    Path("run.mcap").write_bytes(b"no recording")
    assert replay() == 2
    assert "run.mcap: expected a recording, found another file" in capsys.readouterr().err
