"""`gatort profile` times every stage, and its exit status says whether the budget holds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gatort.export.roofline.rates import Device
from gatort.export.roofline.work import Rates
from gatort.launch import cli, profiling
from gatort.runtime.clock import Clock, VirtualClock
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.spec import PolicySpec
from gatort.sim import make as robots


def profile(bundle: Path, *arguments: str, ticks: int = 20) -> int:
    return cli.main(["profile", "--bundle", str(bundle), "--ticks", str(ticks), *arguments])


def test_a_profile_reports_each_stage_and_the_machine(
    pristine_bundle: Path, tmp_path: Path
) -> None:
    report, plot = tmp_path / "p.json", tmp_path / "p.png"
    assert (
        profile(
            pristine_bundle,
            "--flat-out",
            "--budget-ms",
            "60000",
            "--json",
            str(report),
            "--plot",
            str(plot),
        )
        == 0
    )
    record = json.loads(report.read_text())
    stages = ["tick", "observe", "tokenize", "passes", "detokenize", "guard", "command"]
    assert list(record["latency_ms"]) == stages
    assert all(
        each.keys() == {"p50", "p99", "p99.9", "max"} for each in record["latency_ms"].values()
    )
    assert (record["ticks"], record["misses"], record["refused"], record["holds"]) == (
        20,
        0,
        0,
        True,
    )
    assert (record["deadline_ms"], record["refusals"]) == (25, {})
    assert record["scheduling"] == "ordinary scheduling"  # Flat out, as nothing ever sleeps.
    assert record["processor"]["seconds"] > 0
    assert (record["paced"], record["observations"]) == (False, "mujoco")
    assert record["machine"]["versions"]["onnxruntime"]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_budget_that_does_not_hold_exits_with_1_unless_the_misses_are_allowed(
    pristine_bundle: Path,
) -> None:
    # A microsecond is less than one clock reading per stage takes.
    strict = ("--flat-out", "--robot", "scripted", "--budget-ms", "0.001")
    assert profile(pristine_bundle, *strict) == 1
    assert profile(pristine_bundle, *strict, "--max-misses", "19") == 1
    assert profile(pristine_bundle, *strict, "--max-misses", "20") == 0


def test_a_paced_profile_wakes_at_the_control_rate(
    pristine_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadlines_ns: list[int] = []

    class WatchedClock(VirtualClock):
        def sleep_until_ns(self, deadline_ns: int) -> None:
            super().sleep_until_ns(deadline_ns)
            deadlines_ns.append(deadline_ns)

    monkeypatch.setattr(profiling, "MonotonicClock", WatchedClock)
    report = tmp_path / "p.json"
    profile(pristine_bundle, "--robot", "scripted", "--json", str(report), ticks=5)
    record = json.loads(report.read_text())
    assert (record["paced"], record["ticks"]) == (True, 5)
    assert record["lateness_ms"]["max"] == 0.0
    assert record["witness"] is None  # No record of a real process lies within virtual time.
    assert set(np.diff(deadlines_ns)) == {50_000_000}


def test_a_loop_that_its_guard_stops_is_armed_again(
    pristine_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[ScriptedRobot] = []

    def failing(spec: PolicySpec, clock: Clock, seed: int) -> ScriptedRobot:
        good, bad = (
            [np.full(key.shape, value, key.dtype) for key in spec.observations]
            for value in (0.0, np.nan)
        )
        made.append(
            ScriptedRobot(spec, clock, lambda sequence: bad if sequence in (8, 9) else good)
        )
        return made[-1]

    monkeypatch.setattr(profiling, "scripted_robot", failing)
    profile(pristine_bundle, "--robot", "scripted", "--flat-out")
    assert made[0].inner_loop.dropped == {}


def test_only_a_paced_profile_draws_a_progress_bar(
    pristine_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(profiling, "MonotonicClock", VirtualClock)
    profile(pristine_bundle, "--robot", "scripted", ticks=5)
    assert re.search(r"^ticks .*5/5 ", capsys.readouterr().err)
    profile(pristine_bundle, "--robot", "scripted", "--flat-out", ticks=5)
    assert capsys.readouterr().err == ""


def test_ctrl_c_prints_and_writes_the_ticks_so_far(
    pristine_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A real signal to a real process, at the tenth tick.
    code = (
        "import os, signal, sys; from gatort.launch import cli; "
        "from gatort.runtime.loop import ControlLoop; step = ControlLoop._paced_step\n"
        "def paced_step(loop):\n"
        "    if loop.telemetry.ticks == 10: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return step(loop)\n"
        "ControlLoop._paced_step = paced_step\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    flags = ["--robot", "scripted", "--ticks", "1000", "--json", "p.json", "--plot", "p.png"]
    ended = subprocess.run(
        [sys.executable, "-c", code, "profile", "--bundle", str(pristine_bundle), *flags],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert ended.returncode == 130, ended.stderr
    assert "10 ticks paced, interrupted, scripted observations" in ended.stdout
    record = json.loads((tmp_path / "p.json").read_text())
    assert (record["ticks"], record["interrupted"]) == (10, True)
    assert (tmp_path / "p.png").exists()


def test_refused_ticks_do_not_stop_the_profile_and_count_against_the_budget(
    pristine_bundle: Path,
    tmp_path: Path,
    slow_clock: type[VirtualClock],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(profiling, "VirtualClock", slow_clock)
    report = tmp_path / "p.json"
    assert (
        profile(
            pristine_bundle, "--flat-out", "--budget-ms", "60000", "--json", str(report), ticks=6
        )
        == 1
    )
    measured = json.loads(report.read_text())
    assert measured["ticks"] == 6
    assert sum(measured["refusals"].values()) == measured["refused"] > 0


def test_without_a_simulator_the_policy_alone_is_timed_and_the_report_says_so(
    pristine_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(robots, "installed_version", lambda _: None)
    assert profile(pristine_bundle, "--flat-out", "--budget-ms", "60000") == 0
    assert "scripted observations" in capsys.readouterr().out
    assert profile(pristine_bundle, "--robot", "mujoco") == 2
    assert "pip install 'gatort[sim]'" in capsys.readouterr().err


def test_a_plot_without_matplotlib_is_refused_before_anything_is_timed(
    pristine_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("gatort.runtime.packages.installed_version", lambda _: None)
    report = tmp_path / "p.json"
    assert (
        profile(
            pristine_bundle,
            "--json",
            str(report),
            "--plot",
            str(tmp_path / "p.png"),
            ticks=1_000_000,
        )
        == 2
    )
    assert "pip install 'gatort[trials]'" in capsys.readouterr().err
    assert not report.exists()


def test_a_profile_of_the_policy_alone_loads_neither_torch_nor_the_simulator(
    pristine_bundle: Path,
) -> None:
    code = (
        "import sys; from gatort.launch.cli import main; "
        f"status = main(['profile', '--bundle', {str(pristine_bundle)!r}, '--ticks', '3', "
        "'--flat-out', '--robot', 'scripted', "
        "'--budget-ms', '5000']); "
        "sys.exit(status or len({'torch', 'mujoco', 'onnx'} & set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode
        == 0
    )


def test_a_profile_reports_the_roofline_of_both_paces(
    pristine_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    device = Device("a device", Rates(1e9, 1e12), 1e9, 0, "nothing")
    monkeypatch.setattr("gatort.launch.commands.profile.measure_cpu", lambda: device)
    monkeypatch.setattr(profiling, "MonotonicClock", VirtualClock)
    report = tmp_path / "p.json"
    flags = ["--robot", "scripted", "--budget-ms", "60000", "--roofline", "--json", str(report)]
    assert profile(pristine_bundle, *flags, ticks=5) == 0
    record = json.loads(report.read_text())["roofline"]
    assert record["floor_ms"] > 0
    assert record["share_of_floor"]["paced"] == pytest.approx(
        record["floor_ms"] / record["paced_ms"]
    )
    assert len(record["projection_not_measurement_rtx_3090"]) == 9
    out = capsys.readouterr().out
    assert "projection, not measurement" in out
    assert "a device: 1.0 GB/s" in out


def test_a_paced_profile_reports_the_pauses_of_the_machine(
    pristine_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "p.json"
    profile(pristine_bundle, "--robot", "scripted", "--json", str(report), ticks=20)
    witness = json.loads(report.read_text())["witness"]
    assert witness["periods"] > 0
    assert witness["pause_ms"] == pytest.approx(witness["max_ms"] - witness["work_ms"])
    assert "witness: this machine paused a" in capsys.readouterr().out


def test_an_exact_profile_counts_the_passes_and_its_guesses(
    pristine_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "p.json"
    flags = ("--decoding", "exact", "--flat-out", "--budget-ms", "60000", "--json", str(report))
    assert profile(pristine_bundle, *flags) == 0
    record = json.loads(report.read_text())
    passes, latency = record["passes"], record["latency_ms"]
    assert list(latency) == [
        "tick", "observe", "tokenize", "passes", "detokenize", "guard", "command"
    ]  # fmt: skip
    assert 2 <= passes["mean"] <= passes["max"] <= 8
    assert len(passes["guess_right"]) == 7
    assert f"passes a tick: mean {passes['mean']:.2f}" in " ".join(capsys.readouterr().out.split())
    assert record["engine"] == "onnx cpu exact"


def test_a_roofline_of_other_passes_than_it_counts_is_refused(
    pristine_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert profile(pristine_bundle, "--roofline", "--decoding", "exact") == 2
    assert "leave out --decoding exact" in capsys.readouterr().err
