"""`gatort convert` and `gatort demos --from-recordings`: out, back, and on to `gatort train`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gatort.launch import cli
from gatort.runtime import packages
from gatort.runtime.bundle import load_manifest as load_bundle
from gatort.runtime.demonstrations import load_manifest

RECORDING = Path(__file__).parents[2] / "data" / "recordings" / "greedy.mcap"


def run(*arguments: str | Path) -> int:
    return cli.main([str(each) for each in arguments])


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("gatort: ")
    return error


def test_recordings_go_out_and_come_back_and_the_report_counts_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    assert run("convert", RECORDING, RECORDING, "--out", tmp_path / "lerobot", "--task",
               "stacking", "--json", report) == 0  # fmt: skip
    counts = json.loads(report.read_text())
    assert counts["kind"] == "LeRobotDataset"
    assert (counts["episodes"], counts["control_hz"]) == (2, 20)
    assert "LeRobotDataset('local/lerobot', root=" in capsys.readouterr().out
    assert run("convert", tmp_path / "lerobot", "--out", tmp_path / "back") == 0
    assert "train on them: gatort train" in capsys.readouterr().out
    manifest = load_manifest(tmp_path / "back")
    assert (manifest.ticks, manifest.task) == (counts["ticks"], "stacking")


@pytest.mark.slow
def test_a_policy_learns_from_recordings_that_went_to_lerobot_and_back(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    assert run("demos", tmp_path / "demos", "--from-recordings", RECORDING, RECORDING,
               "--task", "stacking") == 0  # fmt: skip
    assert run("convert", tmp_path / "demos", "--out", tmp_path / "lerobot") == 0
    assert run("convert", tmp_path / "lerobot", "--out", tmp_path / "back") == 0
    assert run("train", tmp_path / "back", "--out", tmp_path / "trained", "--steps", "2",
               "--rounds", "0", "--preset", "tiny", "--batch-sequences", "2") == 0  # fmt: skip
    bundle = load_bundle(tmp_path / "trained" / "bundle")
    assert bundle.training.steps == 2
    assert bundle.task == "stacking"


def test_a_mapping_says_nothing_about_recordings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = refusal(
        capsys, "convert", RECORDING, "--out", tmp_path / "x", "--mapping", tmp_path / "m.toml"
    )
    assert "--mapping has no effect for recordings and demonstrations: leave it out" in sentence


def test_a_source_of_no_known_kind_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = refusal(capsys, "convert", tmp_path, "--out", tmp_path / "x")
    assert "expected demonstrations.json (demonstrations) or meta/info.json" in sentence
    sentence = refusal(capsys, "convert", tmp_path / "absent.mcap", "--out", tmp_path / "x")
    assert "found none (No such file or directory)" in sentence


def test_an_absent_package_is_named_with_the_line_that_installs_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        packages, "installed_version", lambda name: None if name == "pyarrow" else "1"
    )
    sentence = refusal(capsys, "convert", RECORDING, "--out", tmp_path / "x")
    assert sentence.endswith("a LeRobotDataset needs pyarrow: pip install 'gatort[convert]'\n")


def test_flags_of_the_simulation_say_nothing_about_recordings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = refusal(
        capsys, "demos", tmp_path / "x", "--from-recordings", RECORDING, "--workers", "2"
    )
    assert "--workers has no effect with --from-recordings: leave it out" in sentence
