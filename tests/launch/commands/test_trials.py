"""`gatort trials`: report, continuation after an interruption, refusals, sweeps over a link."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gatort.launch import cli
from gatort.runtime.bundle import SuccessRecord, load_manifest, record_success, verify
from gatort.runtime.errors import RobotError
from gatort.runtime.robot import Observation
from gatort.sim.robot import SimulatedRobot
from gatort.sim.trials.journal import Trial
from gatort.sim.trials.runner import TrialRunner

FIELDS = [
    "episodes",
    "successes",
    "success_rate",
    "wilson_95",
    "seconds_per_episode",
    "latency_ms",
    "ticks",
    "refused",
    "dropped",
    "lost",
    "reached",
    "sparc",
    "failed_seeds",
    "failures",
    "link",
    "view",
    "bundle",
    "bundle_sha256",
    "robot",
    "engine",
    "precision",
    "seed",
    "workers",
    "cluster",
    "machine",
    "report",
]


@pytest.fixture
def short_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatort.sim.tasks.stacking.task.Stacking.seconds", 1.0)


def trials(bundle: Path, report: Path, episodes: int, *more: str, seed: int = 40) -> int:
    which = ["--bundle", str(bundle), "--episodes", str(episodes), "--seed", str(seed)]
    return cli.main(["trials", *which, *more, "--workers", "1", "--json", str(report)])


@pytest.mark.usefixtures("short_trials")
def test_the_report_has_the_success_rate_its_interval_and_the_latency(
    bundle: Path, tmp_path: Path
) -> None:
    report = tmp_path / "t.json"
    assert trials(bundle, report, episodes=2) == 0
    record = json.loads(report.read_text())
    assert list(record) == FIELDS
    assert (record["episodes"], record["successes"], record["seconds_per_episode"]) == (2, 0, 1.0)
    assert record["wilson_95"] == pytest.approx([0.0, 0.6576], abs=1e-4)
    assert list(record["latency_ms"]) == ["p50", "p99", "p99.9", "max"]
    assert record["latency_ms"]["p50"] > 0


@pytest.mark.usefixtures("short_trials")
def test_trials_under_a_randomised_view_differ_and_repeat(
    camera_bundle: Path, tmp_path: Path
) -> None:
    reports = []
    for name, flags in {
        "nominal": [],
        "view": ["--randomise-view"],
        "again": ["--randomise-view"],
        "frozen": ["--freeze-camera", "wrist", "--freeze-from-s", "0.5"],
    }.items():
        assert trials(camera_bundle, tmp_path / f"{name}.json", 1, *flags) == 0
        reports.append(json.loads((tmp_path / f"{name}.json").read_text()))
    nominal, view, again, frozen = (report["view"] for report in reports)
    assert nominal is None
    assert view == again
    assert view["surfaces"]
    assert (frozen["frozen_camera"], frozen["frozen_from_s"]) == ("wrist", 0.5)
    assert not frozen["surfaces"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            ["--freeze-camera", "rear"],
            "--freeze-camera: expected one of front, wrist, found 'rear'",
        ),
        (["--randomise-view", "--record"], "leave out the conditions of link and view"),
    ],
)
def test_a_view_that_the_policy_cannot_have_is_refused(
    camera_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    sentence: str,
) -> None:
    assert trials(camera_bundle, tmp_path / "t.json", 1, *flags) == 2
    assert sentence in capsys.readouterr().err


def test_a_view_of_a_policy_without_cameras_is_refused(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trials(bundle, tmp_path / "t.json", 1, "--randomise-view") == 2
    assert "'random' reads none" in capsys.readouterr().err


@pytest.mark.usefixtures("short_trials")
def test_trials_continue_after_ctrl_c(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = tmp_path / "t.json"
    run = TrialRunner.run
    ran: list[int] = []

    def run_until_ctrl_c(runner: TrialRunner, seed: int) -> Trial:
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(seed)
        return run(runner, seed)

    monkeypatch.setattr(TrialRunner, "run", run_until_ctrl_c)
    assert trials(bundle, report, episodes=3) == 130
    captured = capsys.readouterr()
    assert "stopped with 2 of 3 trials finished; " in captured.err
    assert "keeps them, and the same command continues" in captured.err
    assert "random, 2 trials in lockstep" in captured.out
    assert not report.exists()

    monkeypatch.setattr(
        TrialRunner, "run", lambda runner, seed: ran.append(seed) or run(runner, seed)
    )
    assert trials(bundle, report, episodes=3) == 0
    assert ran == [40, 41, 42]
    assert json.loads(report.read_text())["episodes"] == 3


@pytest.mark.usefixtures("short_trials")
def test_a_success_rate_is_recorded_in_the_bundle_only_when_asked_for(bundle: Path) -> None:
    which = ["--bundle", str(bundle), "--episodes", "1", "--seed", "40", "--workers", "1"]
    assert cli.main(["trials", *which]) == 0
    assert load_manifest(bundle).success is None
    assert cli.main(["trials", *which, "--record"]) == 0
    success = verify(bundle).success
    assert success is not None
    assert (success.trials, success.first_seed, success.successes) == (1, 40, 0)


@pytest.mark.usefixtures("short_trials")
@pytest.mark.parametrize("observation", [1, 5])
def test_a_robot_that_fails_fails_only_its_own_trial_and_only_once(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, observation: int
) -> None:
    observe = SimulatedRobot.observe
    reset = SimulatedRobot.reset
    seeds: list[int] = []

    def observe_or_fail(robot: SimulatedRobot) -> Observation:
        if seeds[-1] == 41 and robot._sequence == observation - 1:
            raise RobotError("the simulation diverged")
        return observe(robot)

    monkeypatch.setattr(
        SimulatedRobot, "reset", lambda robot, seed: seeds.append(seed) or reset(robot, seed)
    )
    monkeypatch.setattr(SimulatedRobot, "observe", observe_or_fail)
    report = tmp_path / "t.json"
    assert trials(bundle, report, episodes=3) == 0
    record = json.loads(report.read_text())
    assert record["failed_seeds"] == [40, 41, 42]
    assert record["failures"] == {"40": None, "41": "the simulation diverged", "42": None}

    seeds.clear()
    assert trials(bundle, report, episodes=3) == 0
    assert 41 not in seeds


def test_trials_that_never_armed_the_robot_say_why_and_give_no_latency(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "t.json"
    assert trials(bundle, report, 2, "--delay-ms", "15") == 0
    record = json.loads(report.read_text())
    reason = record["failures"]["40"]
    assert "within 25 ms" in reason
    assert (record["latency_ms"], record["failures"]) == ({}, {"40": reason, "41": reason})
    table = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "policy, ms –" in table
    assert f"last refusal 2× {reason}" in table


def test_a_success_rate_of_more_trials_is_never_replaced(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = SuccessRecord(trials=200, first_seed=5000, successes=198, rate=0.99, wilson_95=(0, 1))
    record_success(bundle, known)
    which = ["--bundle", str(bundle), "--episodes", "2", "--seed", "40", "--workers", "1"]
    assert cli.main(["trials", *which, "--record"]) == 2
    sentence = "the bundle holds the success rate of 200 trials, more than 2"
    assert sentence in capsys.readouterr().err
    assert load_manifest(bundle).success == known


@pytest.mark.usefixtures("short_trials")
@pytest.mark.parametrize(("share", "status"), [("0", 0), ("0.5", 1)])
def test_a_success_rate_below_the_least_one_exits_with_1(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], share: str, status: int
) -> None:
    assert trials(bundle, tmp_path / "t.json", 1, "--min-success", share) == status
    captured = capsys.readouterr()
    assert ("success of 0.0%, less than --min-success 50.0%" in captured.err) == bool(status)
    assert "random, 1 trial in lockstep" in captured.out
    assert json.loads((tmp_path / "t.json").read_text())["successes"] == 0


def test_recording_a_success_rate_needs_no_torch(bundle: Path) -> None:
    arguments = ["trials", "--bundle", str(bundle), "--episodes", "1", "--workers", "1", "--record"]
    code = (
        "import sys; sys.modules['torch'] = sys.modules['onnx'] = None; "
        "from gatort.sim.tasks.stacking.task import Stacking; Stacking.seconds = 0.1; "
        "from gatort.launch.cli import main; "
        f"sys.exit(main({arguments!r}))"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert ended.returncode == 0, ended.stderr
    assert verify(bundle).success is not None


def test_the_shipped_policy_stacks_in_a_simulator_that_it_never_learned_from(
    tmp_path: Path,
) -> None:
    report = tmp_path / "t.json"
    which = ["--robot", "pybullet", "--episodes", "1", "--seed", "700300"]
    assert cli.main(["trials", *which, "--workers", "1", "--json", str(report)]) == 0
    assert json.loads(report.read_text())["successes"] == 1


@pytest.mark.parametrize(
    ("seed", "purpose"),
    [
        (999_999, "training"),
        (1_000_099, "training"),
        (899_999, "validation"),
        (900_019, "validation"),
    ],
)
def test_seeds_that_the_policy_learned_from_are_refused(
    bundle: Path, tmp_path: Path, seed: int, purpose: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trials(bundle, tmp_path / "t.json", episodes=2, seed=seed) == 2
    sentence = capsys.readouterr().err
    assert f"for {purpose}: choose seeds outside them" in sentence
    assert str(seed) in sentence


def sweep(bundle: Path, tmp_path: Path, *arguments: str) -> int:
    which = ["--bundle", str(bundle), "--episodes", "2", "--seed", "40", "--workers", "1"]
    return cli.main(["trials", *which, "--plot", str(tmp_path / "s.png"), *arguments])


@pytest.mark.usefixtures("short_trials")
def test_a_sweep_reports_each_value_and_draws_a_picture(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "s.json"
    arguments = ("--sweep", "delay", "--values", "0", "15", "--json", str(report))
    assert sweep(bundle, tmp_path, *arguments) == 0
    record = json.loads(report.read_text())
    assert record["sweep"] == "delay"
    values = [(point["delay_ms"], point["episodes"]) for point in record["points"]]
    assert values == [(0, 2), (15, 2)]
    assert [point["missing"] for point in record["points"]] == [0, 1]
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    assert "100.0%" in capsys.readouterr().out


@pytest.mark.usefixtures("short_trials")
def test_a_sweep_continues_after_ctrl_c_with_a_journal_for_each_link(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--sweep", "loss", "--values", "0", "0.5", "--json", str(tmp_path / "s.json"))
    run = TrialRunner.run
    ran: list[tuple[float, int]] = []

    def run_until_ctrl_c(runner: TrialRunner, seed: int) -> Trial:
        if len(ran) == 3:
            raise KeyboardInterrupt
        ran.append((runner.setup.link.loss, seed))
        return run(runner, seed)

    monkeypatch.setattr(TrialRunner, "run", run_until_ctrl_c)
    assert sweep(bundle, tmp_path, *arguments) == 130
    assert ran == [(0, 40), (0, 41), (0.5, 40)]
    ran.clear()
    assert sweep(bundle, tmp_path, *arguments) == 0
    assert ran == [(0.5, 41)]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--sweep", "delay", "--delay-ms", "5"), "--sweep delay sets --delay-ms itself"),
        (("--sweep", "loss", "--values", "0", "2"), "--values: expected at most 1, found 2"),
        (("--values", "5"), "add --sweep delay"),
        (("--loss", "0.1"), "--plot draws a sweep: add --sweep"),
        (("--sweep", "loss", "--record"), "leave out the conditions of link and view"),
        (("--sweep", "latency"), "latency"),
        (("--loss", "1.5"), "--loss: expected at most 1, found '1.5'"),
    ],
)
def test_contradictory_options_are_refused_before_anything_runs(
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    sentence: str,
) -> None:
    assert sweep(bundle, tmp_path, *arguments) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("sweep", [(), ("--sweep", "delay", "--values", "0", "5")])
def test_a_finished_run_keeps_its_own_date(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], sweep: tuple[str, ...]
) -> None:
    report = tmp_path / "t.json"
    which = ["--bundle", str(bundle), "--episodes", "1", "--seed", "40", "--workers", "1"]
    plot = ["--plot", str(tmp_path / "s.png")] if sweep else []
    command = ["trials", *which, *sweep, *plot, "--json", str(report)]
    assert cli.main(command) == 0
    for journal in tmp_path.glob("t.*.partial.jsonl"):
        os.utime(journal, (1_000_000_000, 1_000_000_000))
    assert cli.main(command) == 0
    assert json.loads(report.read_text())["report"]["date"] == "2001-09-09T01:46:40+00:00"
    if sweep:
        assert "trials at a delay of 5 ms one way, value 2 of 2: 1/1" in capsys.readouterr().err
