"""`gatort replay` gives every token again through the recorded engine, and finds a changed
weight."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mcap.reader import make_reader

from gatort.export.bundle_writer import write_bundle
from gatort.launch import cli
from gatort.policies.weights import read_model
from gatort.runtime.bundle import ONNX_FILE, load_manifest
from gatort.runtime.clock import VirtualClock
from gatort.runtime.recording.messages import PromptMessage, RunRecord, TokensMessage
from gatort.runtime.recording.reader import Recording
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.recording.tick_recorder import TickRecorder
from gatort.runtime.spec import CONTINUOUS_BINS, FIRST_CONTINUOUS_ID, PolicySpec


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
        "0.5",
        "--record",
        "run.mcap",
        *arguments,
    ]
    Path("run.mcap").unlink(missing_ok=True)  # A recording is never replaced.
    assert cli.main(command) in (0, 1)  # drawn actions may be stopped before the time is up


def replay(*arguments: str) -> int:
    return cli.main(["replay", "run.mcap", "--json", "replay.json", *arguments])


def found() -> dict[str, Any]:
    record: dict[str, Any] = json.loads(Path("replay.json").read_text())
    return record


def test_the_same_engine_gives_every_token_again(run_file: Path) -> None:
    assert replay() == 0
    record = found()
    assert (record["engine"], record["first_difference"], record["notes"]) == (
        "onnx cpu exact",
        None,
        [],
    )
    assert record["equal_tokens"] == record["tokens"] == 8 * record["ticks"] > 0


def test_the_same_seed_draws_every_token_again(pristine_bundle: Path) -> None:
    run(pristine_bundle, "--temperature", "0.5")
    assert replay() == 0
    record = found()
    assert record["equal_tokens"] == record["tokens"] > 0


def test_a_policy_with_cameras_gives_every_token_again_from_its_exact_pictures(
    camera_bundle: Path,
) -> None:
    run(camera_bundle)
    assert replay() == 0
    record = found()
    assert record["equal_tokens"] == record["tokens"] == 8 * record["ticks"] > 0
    with Path("run.mcap").open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    assert summary.statistics is not None
    counts = {
        channel.topic: summary.statistics.channel_message_counts.get(number, 0)
        for number, channel in summary.channels.items()
    }
    for camera in ("front", "wrist"):
        assert counts[f"/picture/camera/{camera}"] == counts["/observation"] > 0


def test_the_prompt_of_a_run_precedes_its_replay_or_nothing_is_compared(
    pristine_bundle: Path,
    prompt: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(pristine_bundle, "--prompt", str(prompt))
    assert len(messages(PromptMessage)) == load_manifest(pristine_bundle).spec.window_frames
    assert replay() == 0
    monkeypatch.setattr(TickRecorder, "prompt", lambda *_: None)
    run(pristine_bundle, "--prompt", str(prompt))
    capsys.readouterr()
    assert replay() == 2
    assert "found none: messages before tick 0 were dropped" in capsys.readouterr().err


def test_another_engine_is_compared_on_the_same_past(run_file: Path) -> None:
    assert replay("--engine", "torch") == 0
    assert found()["engine"] == "torch cpu float32 exact"


@pytest.mark.native
def test_the_recorded_engine_keeps_the_recorded_precision_on_another_bundle_too(
    bundle: Path,
) -> None:
    run(bundle, "--engine", "native", "--precision", "w8a8")
    assert replay("--bundle", str(bundle)) == 0
    assert found()["engine"] == "native w8a8 exact"
    assert replay("--bundle", str(bundle), "--precision", "fp32") in (0, 1)
    assert found()["engine"] == "native fp32 exact"


def test_a_changed_weight_is_found_at_the_first_token_that_differs(
    run_file: Path, pristine_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = read_model(pristine_bundle)
    likeliest = recorded_bins()[0]
    with torch.no_grad():  # One number, in the row that scores the bin which was recorded first.
        model.tokens.weight[model.bins_at + likeliest, 0] += 0.5
    write_bundle(Path("changed"), "changed", model, load_manifest(pristine_bundle).training)
    assert replay("--bundle", "changed") == 1
    text = " ".join(capsys.readouterr().out.split())
    record = found()
    first = record["first_difference"]
    assert (
        "changed is not the recorded bundle: it differs in manifest.json, model.safetensors" in text
    )
    assert f"first difference: tick {first['tick']} ({first['seconds']:.2f} s), actuator" in text

    bins = recorded_bins()
    spec = load_manifest(pristine_bundle).spec
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
    """Return the bin of every token in order."""
    return [
        token - FIRST_CONTINUOUS_ID for each in messages(TokensMessage) for token in each.sampled
    ]


def messages(kind: type) -> list[Any]:
    return [
        each.message
        for each in Recording(Path("run.mcap")).messages()
        if isinstance(each.message, kind)
    ]


def test_a_recording_that_was_cut_off_is_replayed_as_far_as_it_goes(
    run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_file.write_bytes(run_file.read_bytes()[:-2_000])
    assert replay() == 0
    assert "the recording is incomplete: the file was cut off" in " ".join(
        capsys.readouterr().out.split()
    )
    assert found()["ticks"] == 40


def test_an_invalid_recording_or_bundle_is_refused_in_one_sentence(
    run_file: Path,
    bundle: Path,
    exported: Any,
    spec: PolicySpec,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert replay("--bundle", str(exported.bundle)) == 2
    assert (
        "gatort: the recording lacks observation key 'arm/position'; it offers"
        in capsys.readouterr().err
    )
    assert replay("--bundle", "stack", "--engine", "native", "--precision", "int8") == 2
    assert "--engine native runs at fp32 or w8a8" in capsys.readouterr().err
    assert replay("--bundle", "nowhere") == 2
    assert "nowhere/manifest.json: expected a bundle's manifest" in capsys.readouterr().err
    (bundle / ONNX_FILE).unlink()
    assert replay("--bundle", str(bundle)) == 2
    assert (
        "policy.onnx: expected a file that the manifest names, found none"
        in capsys.readouterr().err
    )
    run_file.unlink()
    with Recorder(run_file, RunRecord.of("scripted", spec, "", VirtualClock())) as recorder:
        recorder.close("done")
    assert replay() == 2
    assert (
        "expected a run of a policy, found a recording of the robot alone"
        in capsys.readouterr().err
    )
    run_file.write_bytes(b"no recording")
    assert replay() == 2
    assert "run.mcap: expected a recording, found another file" in capsys.readouterr().err


def test_a_changed_bundle_in_the_recorded_folder_is_never_loaded(
    run_file: Path, bundle: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run(bundle)
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    capsys.readouterr()
    assert replay() == 2
    assert "expected the recorded bundle in" in (said := capsys.readouterr().err)
    assert "found another: name the bundle with --bundle" in said
    bundle.rename(tmp_path / "moved")
    assert replay() == 2
    assert "name the recorded bundle with --bundle" in capsys.readouterr().err
    assert replay("--bundle", "moved") == 0
