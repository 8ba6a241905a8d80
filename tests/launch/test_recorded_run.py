"""`gatort run` records itself, and says so whether or not it could."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gatort.launch import cli
from gatort.runtime.bundle import load_manifest
from gatort.runtime.clock import VirtualClock
from gatort.runtime.recording.messages import FaultMessage
from gatort.runtime.recording.reader import Recording
from gatort.runtime.recording.slow_ticks import MOST_SLOW
from gatort.runtime.robot import Observation
from gatort.sim.robot import SimulatedRobot


@pytest.fixture(autouse=True)
def in_an_empty_directory_and_virtual_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gatort.launch.commands.run.MonotonicClock", VirtualClock)


def run(bundle: Path, *arguments: str) -> int:
    return cli.main(
        ["run", "--bundle", str(bundle), "--seconds", "0.5", "--json", "r.json", *arguments]
    )


def read_whole(path: Path) -> Recording:
    recording = Recording(path)
    assert sum(1 for _ in recording.messages())
    return recording


def test_every_run_is_recorded_in_a_file_of_its_own_named_by_time_and_seed(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle, "--seed", "7") == run(bundle, "--seed", "8") == 0
    files = sorted(Path("runs").glob("*.mcap"))
    assert [
        re.fullmatch(r"20\d{6}T\d{6}\.\d{3}Z-seed(.)\.mcap", file.name)[1] for file in files
    ] == ["7", "8"]
    assert f"recording: {files[1]}" in capsys.readouterr().out
    recorded = json.loads(Path("r.json").read_text())["recording"]
    assert recorded == {"file": str(files[1]), "complete": True, "degraded": None, "dropped": 0}


def test_a_recording_begins_with_what_the_run_was_and_ends_with_how_it_went(bundle: Path) -> None:
    assert run(bundle, "--record", "run.mcap", "--temperature", "0.001", "--seed", "7") == 0
    recording, manifest = read_whole(Path("run.mcap")), load_manifest(bundle)
    policy = recording.policy
    assert policy is not None
    assert (policy.bundle, policy.directory, policy.files) == ("random", bundle, manifest.files)
    assert (policy.engine, policy.precision, policy.temperature, policy.seed) == (
        "onnx",
        "fp32",
        0.001,
        7,
    )
    assert policy.spec == manifest.spec
    assert recording.run.robot == "mujoco"
    assert recording.run.interface.observations == manifest.spec.observations
    assert recording.outcome is not None
    assert recording.outcome.result.startswith("seed 7: no success after 0.5 s; 10 ticks")
    assert recording.counts["/tick"] == 10
    assert recording.incomplete is None


def test_a_full_disk_costs_the_run_no_tick_and_marks_it_incomplete(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle, "--record", "/dev/full") == 0
    record = json.loads(Path("r.json").read_text())
    assert (record["ticks"], record["misses"], record["refused"]) == (10, 0, {})
    assert record["recording"]["complete"] is False
    assert record["recording"]["degraded"] == "cannot write /dev/full: No space left on device"
    said = (
        "recording DEGRADED: /dev/full is incomplete: "
        "cannot write /dev/full: No space left on device"
    )
    assert said in " ".join(capsys.readouterr().out.split())


def test_the_ticks_around_a_miss_are_reported_without_a_recording_too(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    observe, count = SimulatedRobot.observe, iter(range(100))

    def pause(robot: SimulatedRobot) -> Observation:
        if next(count) == 5:
            robot._clock.advance_ns(60_000_000)
        return observe(robot)

    monkeypatch.setattr(SimulatedRobot, "observe", pause)
    assert run(bundle, "--record", "/dev/full") == 0
    record = json.loads(Path("r.json").read_text())
    assert record["recording"]["complete"] is False
    missed = record["missed_ticks"]
    assert 0 < len(missed) <= MOST_SLOW
    for each in missed:
        assert each["missed"]
        assert each["stages_ms"]
        around = [tick["tick"] for tick in each["around"]]
        assert len(around) == 4
        assert each["tick"] not in around
    assert "missed or refused ticks" in capsys.readouterr().out


def test_a_robot_that_fails_is_in_the_recording(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance, count = SimulatedRobot._advance, iter(range(100))

    def diverge(robot: SimulatedRobot, now_ns: int) -> None:
        robot.simulator.data.qvel[0] = (
            float("nan") if next(count) == 5 else robot.simulator.data.qvel[0]
        )
        advance(robot, now_ns)

    monkeypatch.setattr(SimulatedRobot, "_advance", diverge)
    assert run(bundle, "--record", "run.mcap") == 1
    faults = [
        each.message
        for each in Recording(Path("run.mcap")).messages()
        if isinstance(each.message, FaultMessage)
    ]
    assert faults[-1].component == "robot"
    assert "the simulation diverged" in faults[-1].sentence


def test_a_recording_that_cannot_begin_is_refused_before_anything_is_armed(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle, "--record", "no/run.mcap") == 2
    assert "cannot write no/run.mcap: there is no directory no" in capsys.readouterr().err
