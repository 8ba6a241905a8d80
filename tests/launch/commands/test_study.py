"""`gatort study`: from the plan to the answer, through a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.waiting import LONGEST_WAIT_S, becomes

from gatort.launch import cli
from gatort.policies.loading import SHIPPED_BUNDLE
from gatort.studies.record import StudyRecord

STUDY = """
question = "Does drawing tokens hurt?"
layouts = 3
seconds = 6.0

[variants.likeliest]
bundle = "stack"

[variants.drawn]
bundle = "stack"
temperature = 5.0
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "pick.toml"
    path.write_text(STUDY, encoding="utf-8")
    return path


def gatort(action: str, study: Path, *more: str) -> int:
    return cli.main(["study", action, str(study), *more])


def test_a_study_is_planned_locked_run_and_reported(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gatort("plan", study) == 0
    assert not StudyRecord(study).is_locked
    assert gatort("lock", study) == 0
    assert gatort("run", study, "--workers", "1") == 0
    assert gatort("report", study) == 0

    assert "drawn against likeliest: no difference shown, -100.0 points" in capsys.readouterr().out
    figures = json.loads(study.with_name("pick.study.json").read_text())
    assert [each["successes"] for each in figures["variants"]] == [3, 0]
    assert figures["variants"][0]["reached"]["released"] == 3
    assert figures["variants"][0]["sparc"] < 0
    assert figures["comparisons"][0]["verdict"] == "no difference shown"
    assert figures["comparisons"][0]["only_reference"] == [5000, 5001, 5002]
    assert study.with_name("pick.study.html").read_text().startswith("<!doctype html>")


@pytest.mark.slow
def test_a_study_that_is_killed_goes_on_where_it_was(study: Path) -> None:
    gatort("lock", study)
    command = [sys.executable, "-P", "-m", "gatort", "study", "run", str(study), "--workers", "1"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    record = StudyRecord(study).path
    try:
        assert becomes(lambda: record.read_bytes().count(b"\n") >= 3, LONGEST_WAIT_S)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    before = StudyRecord(study).lines

    assert gatort("run", study, "--workers", "1") == 0

    again = StudyRecord(study)
    assert again.lines[: len(before)] == before
    assert 3 <= len(before) < 7
    assert sorted(each.number for each in again.trials) == list(range(6))


def test_trials_are_not_run_before_the_lock_nor_after_a_change(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gatort("run", study) == 2
    assert "expected a locked study, found none; run `gatort study lock` first" in (
        capsys.readouterr().err
    )
    gatort("lock", study)
    study.write_text(STUDY.replace("layouts = 3", "layouts = 2"), encoding="utf-8")
    assert gatort("run", study) == 2
    assert "found another state of: layouts" in capsys.readouterr().err
    assert gatort("amend", study) == 2
    assert "expected --reason with the reason for the change" in capsys.readouterr().err
    assert gatort("amend", study, "--reason", "less time") == 0
    assert "amended: layouts" in capsys.readouterr().out


def test_layouts_that_a_policy_has_seen_are_refused(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study.write_text(STUDY.replace("layouts = 3", "layouts = 3\nfirst_seed = 900000"))

    assert gatort("plan", study) == 2
    assert "first_seed: expected layouts with seeds up to 899999" in capsys.readouterr().err


def test_flags_of_another_action_are_refused(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gatort("plan", study, "--workers", "2") == 2
    assert "--workers has no effect with plan: leave it out" in capsys.readouterr().err


def test_a_report_says_that_the_file_changed_since_the_lock(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gatort("lock", study)
    study.write_text(STUDY.replace("Does", "Why does").replace("5.0", "4.0"), encoding="utf-8")

    assert gatort("report", study) == 0

    shown = capsys.readouterr().out
    assert "pick.toml differs from the locked study in question, variants; this is the" in shown


def test_a_bundle_that_lacks_a_file_is_found_before_the_lock(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = shutil.copytree(SHIPPED_BUNDLE, study.parent / "own")
    (own / "policy.onnx").unlink()
    study.write_text(STUDY.replace('"stack"', '"own"', 1), encoding="utf-8")

    assert gatort("lock", study) == 2

    assert "policy.onnx: expected a file that the manifest names, found none" in (
        capsys.readouterr().err
    )
    assert not StudyRecord(study).is_locked


def test_a_plan_names_the_success_rates_that_it_finds(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study.write_text(STUDY.replace("layouts = 3", "layouts = 83"), encoding="utf-8")

    assert gatort("plan", study) == 0

    shown = " ".join(capsys.readouterr().out.split())
    assert "power 80.1% to tell 95% from 80%" in shown
    assert "found success of 58.9% or less, or of 95.0% or more (power 0.8)" in shown
