"""`gatort profile` times every stage and says by its exit status whether the budget holds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gatort.launch import cli
from gatort.launch.commands import profile as profiling
from gatort.launch.options import (
    LoopOptions,
    RunOptions,
)
from gatort.runtime.clock import (
    Clock,
    MonotonicClock,
    VirtualClock,
)
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.spec import PolicySpec
from gatort.sim import make as robots


def profile(bundle: Path, *arguments: str, ticks: int = 20) -> int:
    return cli.main(["profile", "--bundle", str(bundle), "--ticks", str(ticks), *arguments])


def test_a_profile_says_what_each_stage_took_on_which_machine(bundle: Path, tmp_path: Path) -> None:
    report, plot = tmp_path / "p.json", tmp_path / "p.png"
    assert (
        profile(
            bundle, "--flat-out", "--budget-ms", "5000", "--json", str(report), "--plot", str(plot)
        )
        == 0
    )
    record = json.loads(report.read_text())
    decodes = [f"decode_{index}" for index in range(1, 8)]
    stages = ["tick", "observe", "tokenize", "prefill", *decodes, "detokenize", "guard", "command"]
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
    assert (record["paced"], record["observations"]) == (False, "mujoco")
    assert record["machine"]["versions"]["onnxruntime"]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_budget_that_does_not_hold_exits_with_1_unless_the_misses_are_allowed(
    bundle: Path,
) -> None:
    # A microsecond is less than one clock reading per stage takes.
    strict = ("--flat-out", "--robot", "scripted", "--budget-ms", "0.001")
    assert profile(bundle, *strict) == 1
    assert profile(bundle, *strict, "--max-misses", "19") == 1
    assert profile(bundle, *strict, "--max-misses", "20") == 0


def test_a_paced_profile_wakes_at_the_control_rate(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    woke_ns: list[tuple[int, int]] = []

    class WatchedClock(MonotonicClock):
        def sleep_until_ns(self, deadline_ns: int) -> None:
            super().sleep_until_ns(deadline_ns)
            woke_ns.append((deadline_ns, MonotonicClock().now_ns()))

    monkeypatch.setattr("gatort.launch.commands.profile.MonotonicClock", WatchedClock)
    report = tmp_path / "p.json"
    profile(bundle, "--robot", "scripted", "--json", str(report), ticks=5)
    record = json.loads(report.read_text())
    assert record["paced"]
    (first_ns, _), (last_ns, last_woke_ns) = woke_ns[0], woke_ns[-1]
    assert len(woke_ns) >= 5
    # On a crowded machine the loop may be late, is armed again, and then starts from a new deadline.
    periods = 4 - record["refused"]
    assert last_woke_ns - first_ns >= last_ns - first_ns >= periods * 50_000_000
    assert record["lateness_ms"]["max"] > 0


def test_a_profile_that_its_guard_stops_is_armed_again_and_drives_on(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
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
    profile(bundle, "--robot", "scripted", "--flat-out")
    assert made[0].inner_loop.dropped == {}


def test_only_a_paced_profile_draws_how_many_ticks_are_done(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile(bundle, "--robot", "scripted", ticks=5)
    assert re.search(r"^ticks .* 5/5 ", capsys.readouterr().err)
    profile(bundle, "--robot", "scripted", "--flat-out", ticks=5)
    assert capsys.readouterr().err == ""


def test_ticks_that_send_no_command_do_not_stop_the_profile_and_count_against_the_budget(
    bundle: Path, tmp_path: Path, slow_clock: type[VirtualClock], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatort.launch.commands.profile.VirtualClock", slow_clock)
    report = tmp_path / "p.json"
    assert profile(bundle, "--flat-out", "--budget-ms", "5000", "--json", str(report), ticks=6) == 1
    measured = json.loads(report.read_text())
    assert measured["ticks"] == 6
    assert measured["refused"] > 0


def test_without_the_simulator_the_policy_alone_is_timed_and_the_report_says_so(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(robots, "installed_version", lambda _: None)
    assert profile(bundle, "--flat-out", "--budget-ms", "5000") == 0
    assert "scripted observations" in capsys.readouterr().out
    assert profile(bundle, "--robot", "mujoco") == 2
    assert "pip install 'gatort[sim]'" in capsys.readouterr().err


def test_a_profile_s_help_names_what_only_the_launch_profile_of_a_run_may_hold() -> None:
    sentence = (
        (profiling.profile.__doc__ or "").partition("What only a run has is")[2].partition(".")[0]
    )
    assert {
        *re.findall(r"\w+", sentence)
    } >= RunOptions.model_fields.keys() - LoopOptions.model_fields.keys()


def test_a_plot_without_matplotlib_is_refused_before_anything_is_timed(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("gatort.launch.commands.profile.installed_version", lambda _: None)
    report = tmp_path / "p.json"
    assert (
        profile(bundle, "--json", str(report), "--plot", str(tmp_path / "p.png"), ticks=1_000_000)
        == 2
    )
    assert "pip install 'gatort[trials]'" in capsys.readouterr().err
    assert not report.exists()


def test_a_profile_of_the_policy_alone_loads_neither_torch_nor_the_simulator(bundle: Path) -> None:
    code = (
        "import sys; from gatort.launch.cli import main; "
        f"status = main(['profile', '--bundle', {str(bundle)!r}, '--ticks', '3', '--flat-out', '--robot', 'scripted', "
        "'--budget-ms', '5000']); "
        "sys.exit(status or len({'torch', 'mujoco', 'onnx'} & set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode
        == 0
    )
