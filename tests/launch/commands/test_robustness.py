"""`gatort robustness`: curves of success, whole and continued, for policies that see."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gatort.launch import cli
from gatort.sim.trials.robustness import PROPERTIES
from gatort.sim.trials.runner import TrialRunner
from gatort.sim.view_randomisation import NOMINAL_VIEW


@pytest.fixture
def one_property(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatort.sim.tasks.stacking.task.Stacking.seconds", 0.5)
    monkeypatch.setattr("gatort.launch.commands.robustness.PROPERTIES", PROPERTIES[:1])


def robustness(bundle: Path, folder: Path) -> int:
    which = ["--bundle", str(bundle), "--episodes", "1", "--workers", "1"]
    files = ["--json", str(folder / "card.json"), "--plot", str(folder / "card.png")]
    return cli.main(["robustness", *which, *files])


def test_every_curve_has_the_nominal_view_among_its_points() -> None:
    for each in PROPERTIES:
        views = [each.at(value) for value in each.values]
        assert NOMINAL_VIEW in views
        assert len({view.model_dump_json() for view in views}) == len(each.values)


@pytest.mark.usefixtures("one_property")
def test_the_card_has_a_point_for_each_value_and_continues_from_its_trials(
    camera_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert robustness(camera_bundle, tmp_path) == 0
    card = json.loads((tmp_path / "card.json").read_text())
    (curve,) = card["curves"]
    assert (curve["property"], curve["unit"]) == ("camera shift", "cm")
    assert [point["value"] for point in curve["points"]] == list(PROPERTIES[0].values)
    assert all(point["episodes"] == 1 for point in curve["points"])
    assert (tmp_path / "card.png").read_bytes().startswith(b"\x89PNG")

    monkeypatch.setattr(TrialRunner, "run", None)  # No trial runs a second time.
    assert robustness(camera_bundle, tmp_path) == 0
    assert json.loads((tmp_path / "card.json").read_text())["curves"] == card["curves"]


def test_a_policy_without_cameras_has_no_card(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert robustness(bundle, tmp_path) == 2
    assert "expected a policy with cameras, found 'random'" in capsys.readouterr().err
