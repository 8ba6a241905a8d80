"""`gatort trials`: the same seeds give the same trials, whoever runs them and however often they are stopped."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from gatort.launch import cli
from gatort.launch.commands.trials import (
    Trialist,
    TrialOptions,
    run_trials,
)
from gatort.launch.journal import (
    Journal,
    Trial,
    _sources,
)
from gatort.launch.options import resolve
from gatort.runtime.bundle import (
    SuccessRecord,
    load_manifest,
    verify,
)
from gatort.runtime.errors import (
    ConfigError,
    RobotError,
)
from gatort.runtime.robot import Observation
from gatort.sim.robot import SimulatedRobot

FIELDS = ["episodes", "successes", "success_rate", "wilson_95", "seconds_per_episode", "latency_ms"]


@pytest.fixture
def options(bundle: Path) -> TrialOptions:
    return resolve(TrialOptions, TrialOptions(bundle=bundle), None)


@pytest.fixture
def journal(options: TrialOptions, tmp_path: Path) -> Journal:
    return Journal(tmp_path / "t.json", load_manifest(options.bundle), options)


@pytest.fixture
def short_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatort.sim.tasks.stacking.task.Stacking.seconds", 1.0)


def outcome(trial: Trial) -> dict[str, object]:
    return trial.model_dump(exclude={"policy_us"})


def trials(bundle: Path, report: Path, episodes: int, seed: int = 40, *more: str) -> int:
    which = ["--bundle", str(bundle), "--episodes", str(episodes), "--seed", str(seed), *more]
    return cli.main(["trials", *which, "--workers", "1", "--json", str(report)])


@pytest.mark.usefixtures("short_trials")
def test_the_report_has_the_success_rate_its_interval_and_the_latency(
    bundle: Path, tmp_path: Path
) -> None:
    report = tmp_path / "t.json"
    assert trials(bundle, report, episodes=2) == 0
    record = json.loads(report.read_text())
    assert list(record)[: len(FIELDS)] == FIELDS
    assert (record["episodes"], record["successes"], record["seconds_per_episode"]) == (2, 0, 1.0)
    assert record["wilson_95"] == pytest.approx([0.0, 0.6576], abs=1e-4)
    assert record["latency_ms"]["p50"] > 0


@pytest.mark.usefixtures("short_trials")
def test_trials_go_on_where_they_were_stopped(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    report, run, ran = tmp_path / "t.json", Trialist.run, []

    def run_until_ctrl_c(trialist: Trialist, seed: int) -> Trial:
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(seed)
        return run(trialist, seed)

    monkeypatch.setattr(Trialist, "run", run_until_ctrl_c)
    assert trials(bundle, report, episodes=3) == 130
    assert "2 of 3 trials finished" in " ".join(capsys.readouterr().err.split())
    assert not report.exists()
    monkeypatch.setattr(
        Trialist, "run", lambda trialist, seed: ran.append(seed) or run(trialist, seed)
    )
    assert trials(bundle, report, episodes=3) == 0
    assert ran == [40, 41, 42]
    assert json.loads(report.read_text())["episodes"] == 3


def trial(seed: int) -> Trial:
    counts = {"ticks": 160, "refused": 0, "dropped": 0, "lost": 0}
    return Trial(
        seed=seed, succeeded=True, seconds=8.0, refusal=None, policy_us=(1000, 1100), **counts
    )


def test_a_journal_that_was_cut_in_its_last_line_keeps_the_others(journal: Journal) -> None:
    for seed in range(3):
        journal.append(trial(seed))
    journal.path.write_text(journal.path.read_text()[:-20])
    assert journal.read() == [trial(0), trial(1)]
    journal.append(trial(7))
    assert journal.read() == [trial(0), trial(1), trial(7)]


def test_a_journal_that_was_cut_inside_a_letter_keeps_the_other_trials_on_a_full_disk_too(
    journal: Journal,
) -> None:
    journal.append(trial(0))
    journal.append(trial(1).model_copy(update={"refusal": "expected 3 N·m"}))
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole[: whole.index("·".encode()) + 1])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        assert journal.read() == [trial(0)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert journal.path.read_bytes() == whole[: whole.index(b"\n") + 1]


def test_all_code_of_robot_and_runtime_decides_how_a_trial_goes() -> None:
    assert {"native.c", "loop.py", "scene.xml"} <= {source.name for source in _sources()}


def test_another_policy_or_temperature_has_a_journal_of_its_own_but_a_measured_success_rate_does_not(
    options: TrialOptions, journal: Journal, tmp_path: Path
) -> None:
    manifest, report = load_manifest(options.bundle), tmp_path / "t.json"
    warmer = options.model_copy(update={"temperature": 0.5})
    retrained = manifest.model_copy(update={"files": {"policy.onnx": "0" * 64}})
    success = SuccessRecord(trials=2, first_seed=0, successes=1, rate=0.5, wilson_95=(0.1, 0.9))
    measured = manifest.model_copy(update={"success": success})
    assert (
        len(
            {
                journal.path,
                Journal(report, manifest, warmer).path,
                Journal(report, retrained, options).path,
            }
        )
        == 3
    )
    assert Journal(report, measured, options).path == journal.path


@pytest.mark.usefixtures("short_trials")
def test_a_success_rate_is_recorded_in_the_bundle_when_asked_for(bundle: Path) -> None:
    which = ["--bundle", str(bundle), "--episodes", "1", "--seed", "40", "--workers", "1"]
    assert cli.main(["trials", *which]) == 0
    assert load_manifest(bundle).success is None
    assert cli.main(["trials", *which, "--record"]) == 0
    success = verify(bundle).success
    assert success is not None
    assert (success.trials, success.first_seed, success.successes) == (1, 40, 0)


@pytest.mark.usefixtures("short_trials")
@pytest.mark.parametrize("observation", [1, 5])
def test_a_robot_that_fails_fails_its_own_trial_alone_and_only_once(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, observation: int
) -> None:
    observe, reset, seeds = SimulatedRobot.observe, SimulatedRobot.reset, []

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


def test_trials_in_which_nothing_was_armed_say_why_and_give_no_latency(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trials(bundle, tmp_path / "t.json", 2, 40, "--delay-ms", "15") == 0
    record = json.loads((tmp_path / "t.json").read_text())
    reason = "expected an observation within 25 ms, and no answer came to 5 requests"
    assert (record["latency_ms"], record["failures"]) == ({}, {"40": reason, "41": reason})
    table = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "policy, ms –" in table
    assert f"last refusal 2× {reason}" in table


def test_recording_a_success_rate_needs_no_torch(bundle: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['onnx'] = None; "
        "from gatort.sim.tasks.stacking.task import Stacking; Stacking.seconds = 0.1; "
        "from gatort.launch.cli import main; "
        f"sys.exit(main(['trials', '--bundle', {str(bundle)!r}, '--episodes', '1', '--workers', '1', '--record']))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode
        == 0
    )
    assert verify(bundle).success is not None


@pytest.mark.usefixtures("short_trials")
def test_the_same_seed_gives_the_same_trial_after_another_one(options: TrialOptions) -> None:
    first, _, again = run_trials(options, [40, 41, 40], workers=1)
    assert outcome(first) == outcome(again)


def test_the_shipped_policy_stacks_in_a_simulator_that_it_never_learned_from() -> None:
    (stacked,) = run_trials(TrialOptions(robot="pybullet"), [900_300], workers=1)
    assert stacked.succeeded


@pytest.mark.slow
def test_two_processes_find_what_one_finds(options: TrialOptions) -> None:
    alone = sorted(run_trials(options, [40, 41], workers=1), key=lambda each: each.seed)
    shared = sorted(run_trials(options, [40, 41], workers=2), key=lambda each: each.seed)
    assert [outcome(each) for each in alone] == [outcome(each) for each in shared]


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


@pytest.mark.parametrize("seed", [1_000_100, 1_999_999])
def test_training_seeds_are_refused_even_when_the_manifest_names_none(
    bundle: Path, tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trials(bundle, tmp_path / "t.json", episodes=1, seed=seed) == 2
    assert "demonstrations use 1000000 to 1999999 for training" in capsys.readouterr().err


def test_a_journal_that_holds_something_else_is_refused(journal: Journal) -> None:
    journal.path.write_text('{"seed": 1}\n')
    with pytest.raises(ConfigError, match="is not a list of trials; remove it to start again"):
        journal.read()
