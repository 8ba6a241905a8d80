"""`gatort info` shows the contents of a recording and whether it is complete."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from gatort.launch import cli
from gatort.runtime.clock import VirtualClock
from gatort.runtime.inner_loop import FADE_NS
from gatort.runtime.recording.causes import Cause
from gatort.runtime.recording.messages import RunRecord
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.recording.tick_recorder import StepRecorder
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.spec import PolicySpec


@pytest.fixture(autouse=True)
def in_an_empty_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def info() -> tuple[int, dict[str, Any]]:
    status = cli.main(["info", "run.mcap", "--json", "info.json"])
    return status, json.loads(Path("info.json").read_text())


def test_the_contents_of_a_recording_are_shown_in_a_table_and_in_json(
    run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = info()
    assert (status, found["complete"], found["incomplete_because"], found["dropped"]) == (
        0,
        True,
        None,
        0,
    )
    assert (found["robot"], found["policy"]["bundle"], found["policy"]["engine"]) == (
        "mujoco",
        "random",
        "onnx",
    )
    assert (found["ticks"], found["refused"], found["misses"]) == (40, {}, 0)
    assert found["states"] == [{"s": 0.0, "state": "guard run, robot run"}]
    assert found["seconds"] == 2.0
    assert "after 2.0 s" in found["result"]
    assert datetime.fromisoformat(found["begun"]).tzinfo is not None
    assert found["channels"] == {
        "/observation": 40,
        "/tokens": 40,
        "/command": 40,
        "/state": 1,
        "/tick": 40,
    }
    text = " ".join(capsys.readouterr().out.split())
    assert "random, engine onnx fp32, temperature 0, seed 5000" in text
    assert "40, 0 misses, refused: none" in text


def test_refusals_states_and_faults_are_those_of_the_run(
    pristine_bundle: Path, monkeypatch: pytest.MonkeyPatch, slow_clock: type[VirtualClock]
) -> None:
    monkeypatch.setattr("gatort.launch.commands.run.MonotonicClock", slow_clock)
    arguments = ["--seconds", "2", "--record", "run.mcap", "--json", "r.json"]
    assert cli.main(["run", "--bundle", str(pristine_bundle), *arguments]) == 1
    ran = json.loads(Path("r.json").read_text())
    status, found = info()
    assert status == 0
    assert found["ticks"] == ran["ticks"]
    assert sum(found["refused"].values()) == ran["ticks"]
    assert found["states"][-1]["state"] == "guard hold, robot latched"
    assert len(found["faults"]) == ran["ticks"]


def test_a_file_that_was_cut_off_is_read_as_far_as_it_goes(
    run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_file.write_bytes(run_file.read_bytes()[:-2_000])
    status, found = info()
    assert (status, found["complete"]) == (1, False)
    assert found["incomplete_because"].startswith(
        "the file was cut off or changed, in the middle of a record: "
    )
    assert found["ticks"] == 40
    assert "no: the file was cut off" in " ".join(capsys.readouterr().out.split())


def test_a_robots_own_recording_shows_the_states_of_its_watchdog(spec: PolicySpec) -> None:
    clock = VirtualClock()
    with Recorder(Path("run.mcap"), RunRecord.of("scripted", spec, "", clock)) as recorder:
        robot = ScriptedRobot(spec, clock)
        robot.on_step = StepRecorder(recorder)
        robot.arm()
        clock.advance_ns(300_000_000)
        robot.observe()
        recorder.close("stopped")
    status, found = info()
    assert (status, found["policy"], found["channels"]) == (0, None, {"/step": 300})
    assert [each["state"] for each in found["states"]] == [
        "robot run",
        "robot hold",
        "robot safe",
        "robot latched",
    ]
    assert np.diff([each["s"] for each in found["states"]])[-1] == pytest.approx(FADE_NS * 1e-9)


def test_the_beginning_of_a_recording_without_messages_is_unknown(
    spec: PolicySpec, capsys: pytest.CaptureFixture[str]
) -> None:
    with Recorder(Path("run.mcap"), RunRecord.of("scripted", spec, "", VirtualClock())) as recorder:
        recorder.close("stopped before it began")
    status, found = info()
    assert (status, found["begun"], found["seconds"]) == (0, None, 0.0)
    assert re.search(r"begun\W+unknown", capsys.readouterr().out)


def test_an_absent_recording_is_refused_in_one_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["info", "absent.mcap"]) == 2
    assert (
        capsys.readouterr().err
        == "gatort: absent.mcap: expected a recording that `gatort run` or `gatort robot --record` "
        "wrote, found none (No such file or directory)\n"
    )


def test_the_slow_ticks_are_listed_with_stages_counters_and_cause(
    run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["info", "run.mcap", "--ticks", "slow", "--most", "3", "--json", "info.json"]
    assert cli.main(command) == 0
    found = json.loads(Path("info.json").read_text())["slow_ticks"]
    assert len(found) == 3
    lost = [each["took_ms"] + each["late_ms"] for each in found]
    assert lost == sorted(lost, reverse=True)
    for each in found:
        assert sum(each["stages_ms"].values()) == pytest.approx(each["took_ms"])
        assert each["passes"] > 0
        assert each["cause"] in get_args(Cause)
        assert not each["missed"]
        assert 2 <= len(each["around"]) <= 4
        assert each["around"][0].keys() == each.keys() - {"around"}
    text = capsys.readouterr().out
    assert "slow ticks" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_the_number_of_ticks_needs_the_flag_that_lists_them(
    run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["info", str(run_file), "--most", "3"]) == 2
    assert "--most" in capsys.readouterr().err


def test_without_the_flag_no_tick_is_listed(run_file: Path) -> None:
    _, found = info()
    assert "slow_ticks" not in found


def test_page_faults_are_not_called_faults(
    run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["info", str(run_file), "--ticks", "slow", "--most", "1"]) == 0
    header = capsys.readouterr().out.partition("slow ticks")[2].splitlines()[1:3]
    assert "page" in header[0]
    assert "faults" in header[0] + header[1]
