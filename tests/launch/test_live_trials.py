"""A study's trials on a robot at an address: the person sees codes, and says how each went."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatort.faults.arm_process import ConsoleProcess
from gatort.launch import cli
from gatort.launch.live_trials import _ask, _reached
from gatort.sim.tasks.stacking.task import Stacking
from gatort.studies.record import StudyRecord
from gatort.studies.schedule import Slot

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
    (trial,) = StudyRecord(study).trials
    assert f"trial {trial.code}, 1 of 2 that are due" in shown.out
    assert trial.outcome is not None
    assert trial.outcome.ticks > 30
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
