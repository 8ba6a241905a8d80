"""A study's trials on a robot at an address: the person sees codes, and says how each went."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatort.faults.arm_process import ConsoleProcess
from gatort.launch import cli
from gatort.launch.live_trials import LEFT, _ask, _labelled, _options, _reached
from gatort.launch.options import RunOptions
from gatort.runtime.errors import ConfigError
from gatort.sim.tasks.stacking.task import Stacking
from gatort.studies.design import read_design
from gatort.studies.record import StudyRecord
from gatort.studies.schedule import Slot, schedule

SLOT = Slot(0, 0, "tcp://127.0.0.1:1", "nominal", 5000, "shipped", "KRTX")

STUDY = """
question = "Does drawing tokens hurt on the arm?"
layouts = 1
seconds = 2.0
robots = ["{robot}"]

[variants.likeliest]
bundle = "stack"

[variants.drawn]
bundle = "stack"
temperature = 5.0
"""


@pytest.fixture
def robot(tmp_path: Path) -> Iterator[str]:
    """Address of a simulated robot in a process of its own."""
    arm = ConsoleProcess(
        [sys.executable, "-P", "-m", "gatort", "robot", "mujoco", "--bind", "tcp://127.0.0.1:0"],
        tmp_path / "log",
    )
    try:
        yield arm.endpoint
    finally:
        arm.close()


def answers(monkeypatch: pytest.MonkeyPatch, *given: str) -> list[str]:
    """Give answers one after another. Return the questions."""
    left, asked = list(given), []

    def answer(question: str) -> str:
        asked.append(question)
        if not left:
            raise EOFError
        return left.pop(0)

    monkeypatch.setattr("builtins.input", answer)
    return asked


@pytest.mark.slow
def test_a_person_runs_a_study_and_never_reads_the_name_of_a_variant(
    robot: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = tmp_path / "live.toml"
    text = STUDY.format(robot=robot) + '\n[analysis]\ntest = "barnard"\n'
    study.write_text(text, encoding="utf-8")
    cli.main(["study", "lock", str(study)])
    capsys.readouterr()
    asked = answers(monkeypatch, "y", "y")  # One trial; then the person leaves.

    assert cli.main(["study", "run", str(study)]) == 2

    shown = capsys.readouterr()
    everything = shown.out + shown.err + "".join(asked)
    assert "likeliest" not in everything
    assert "drawn" not in everything
    assert "p50" not in everything
    (trial,) = StudyRecord(study).trials
    assert f"trial {trial.code}, 1 of 2 that are due" in shown.out
    assert trial.outcome is not None
    assert trial.outcome.ticks > 0
    assert "answer y to run it; the same command continues" in shown.err
    assert (tmp_path / "live" / f"{trial.code}-1.mcap").is_file()


def test_layouts_of_a_simulated_robot_are_no_pairs(
    robot: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "live.toml"
    study.write_text(STUDY.format(robot=robot), encoding="utf-8")
    cli.main(["study", "lock", str(study)])
    answers(monkeypatch, "y")

    assert cli.main(["study", "run", str(study)]) == 2

    assert "or choose the test barnard" in capsys.readouterr().err


def test_a_label_is_asked_for_until_it_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answers(monkeypatch, "yes", "6", " 2 ")

    assert _ask(Stacking(), SLOT, reported=True) == "2"

    question = (
        "Result of KRTX (the robot's operator reported a success): s success, v void, or the last "
        "stage that it came to: 0 none, 1 reached, 2 grasped, 3 lifted, 4 placed, 5 released: "
    )
    assert asked == [question] * 3


def test_a_label_names_the_stages_up_to_the_last_one() -> None:
    assert list(_reached(Stacking(), "2")) == ["reached", "grasped"]
    assert list(_reached(Stacking(), "s")) == list(Stacking.stages)
    assert _reached(Stacking(), "0") == {}


@pytest.mark.parametrize("given", [[], ["v"], ["6"]])
def test_a_trial_whose_label_nobody_gives_is_void_and_leaves_a_trace(
    given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tmp_path / "live.toml"
    study.write_text(STUDY.format(robot="tcp://127.0.0.1:1"), encoding="utf-8")
    record = StudyRecord(study)
    record.lock(read_design(study))
    slot = record.due()[0]
    answers(monkeypatch, *given)

    with pytest.raises(ConfigError, match="the trial is void, and the same command runs it again"):
        _labelled(record, Stacking(), slot, reported=False)

    (trial,) = StudyRecord(study).trials
    assert (trial.number, trial.outcome, trial.void) == (slot.number, None, LEFT)
    assert record.due()[0] == slot


def test_a_launch_profile_says_nothing_on_the_policy_of_a_trial(tmp_path: Path) -> None:
    study = tmp_path / "live.toml"
    study.write_text(STUDY.format(robot="tcp://127.0.0.1:1"), encoding="utf-8")
    design = read_design(study)
    slot = next(each for each in schedule(design) if each.variant == "likeliest")
    keys = tmp_path / "keys"
    cell = RunOptions(engine="native", temperature=2.0, demo="hold", until="time", keys=keys)

    options = _options(cell, design, slot, Stacking())

    plain = RunOptions()
    assert options.engine == plain.engine
    assert options.temperature == plain.temperature
    assert options.demo is None
    assert options.until == "success"
    assert options.keys == keys
    assert options.seconds == 2.0
