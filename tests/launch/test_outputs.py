"""Outputs of the commands: a full disk, a file in a folder's place, an older file, two writers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from gatort.launch import cli
from gatort.launch.outputs import save_figure
from gatort.launch.report import write_json
from gatort.runtime.episode import Episode
from gatort.runtime.errors import MissingDependency
from gatort.runtime.outputs import one_writer
from gatort.runtime.spec import PolicySpec
from gatort.sim.graphics import INSTALL_HINT, choose_gl


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert cli.main([str(each) for each in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


def on_a_full_disk(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process none of whose files can grow."""
    command = [sys.executable, "-m", "gatort", *map(str, arguments)]
    return subprocess.run(
        ["bash", "-c", 'ulimit -f 0; exec "$@"', "bash", *command],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if "part" in path.name and path.stat().st_size]


def test_a_run_on_a_full_disk_keeps_its_figures_and_its_status(bundle: Path) -> None:
    folder = bundle.parent
    outputs = ["--json", "r.json", "--plot", "p.png", "--record", "x.mcap"]
    ran = on_a_full_disk(folder, "run", "--bundle", bundle, "--seconds", "0.5", *outputs)
    assert ran.returncode == int("stopped in" in ran.stdout), ran.stderr
    assert "ticks at" in ran.stdout
    assert "recording DEGRADED" in ran.stdout
    assert [line for line in ran.stderr.splitlines() if line.startswith("gatort:")] == [
        f"gatort: no report: cannot write {folder}/r.json: File too large",
        f"gatort: no picture: cannot write {folder}/p.png: File too large",
    ]
    assert not leftovers(folder)


def test_trials_on_a_full_disk_keep_their_figures_and_their_status(bundle: Path) -> None:
    which = ["--bundle", bundle, "--episodes", "1", "--seed", "40", "--workers", "1"]
    ran = on_a_full_disk(bundle.parent, "trials", *which, "--json", "t.json")
    assert ran.returncode == 0, ran.stderr
    assert "0 of 1" in ran.stdout
    progress, kept, report = ran.stderr.splitlines()
    assert "1/1" in progress
    assert kept.startswith("gatort: trials are not kept: cannot write t.")
    assert report == f"gatort: no report: cannot write {bundle.parent}/t.json: File too large"
    assert not leftovers(bundle.parent)


@pytest.mark.parametrize("command", ["demos", "export", "train"])
def test_a_command_whose_product_fits_on_no_disk_is_refused_in_one_sentence(
    bundle: Path, tmp_path: Path, command: str
) -> None:
    arguments: dict[str, list[str | Path]] = {
        "demos": ["out", "--episodes", "1", "--workers", "1"],
        "export": [bundle, "--out", "out"],
        "train": ["shown", "--out", "out", "--preset", "tiny", "--steps", "1", "--rounds", "0"],
    }
    if command == "train":
        shown = ["demos", str(tmp_path / "shown"), "--episodes", "2", "--workers", "1"]
        assert cli.main(shown) == 0
        arguments["train"] += ["--batch-sequences", "1"]
    ran = on_a_full_disk(tmp_path, command, *arguments[command])
    assert ran.returncode == 2
    sentences = [line for line in ran.stderr.splitlines() if line.startswith("gatort: ")]
    assert len(sentences) == 1, ran.stderr
    assert "Traceback" not in ran.stderr
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/new"])
@pytest.mark.parametrize("command", ["demos", "train", "export", "keys"])
def test_a_folder_that_cannot_be_made_is_refused_before_any_work(
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    place: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("precious")
    arguments: dict[str, list[str | Path]] = {
        "demos": [place],
        "train": ["shown", "--out", place],
        "export": [bundle, "--out", place],
        "keys": [place],
    }
    if command == "train":
        assert cli.main(["demos", "shown", "--episodes", "2", "--workers", "1"]) == 0
        capsys.readouterr()
    sentence = refusal(capsys, command, *arguments[command])
    assert place in sentence
    assert "cannot write" in sentence
    assert Path("file").read_text() == "precious"


@pytest.mark.parametrize(
    "line",
    [
        "run --bundle nowhere",
        "run --bundle stack --robot tcp://127.0.0.1:1",
        "trials --sweep delay --values -3",
        "trials --sweep delay --bundle nowhere",
        "robustness --bundle nowhere",
        "export nowhere --out a/b",
        "export rounded --precision int4 --out a/b",
        "keys a/b --add laptop",
        "train shown --out a/b --preset tiny --sequence-frames 1",
        "demos a/b --episodes 1 --workers 1 --randomise",
    ],
)
def test_a_refusal_leaves_no_folder_behind(
    pristine_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    line: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if "shown" in line:
        assert cli.main(["demos", "shown", "--episodes", "2", "--workers", "1"]) == 0
    if "rounded" in line:
        rounded = ["--out", "rounded", "--precision", "int8"]
        assert cli.main(["export", str(pristine_bundle), *rounded]) == 0
    if "--randomise" in line:
        monkeypatch.setattr("gatort.sim.collect.make_robot", without_simulator)
    capsys.readouterr()
    before = set(tmp_path.iterdir())
    assert cli.main(line.split()) == 2
    assert set(tmp_path.iterdir()) == before, capsys.readouterr().err


def without_simulator(*_: object) -> None:
    raise MissingDependency("expected the simulator, found none")


def test_a_new_bundle_that_cannot_be_written_leaves_no_folder_behind(
    pristine_bundle: Path, tmp_path: Path
) -> None:
    ran = on_a_full_disk(tmp_path, "export", pristine_bundle, "--out", "a/b")
    assert ran.returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_never_exported_over_itself_or_another(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    for source in ([bundle], ["--preset", "tiny", "--random-weights"]):
        sentence = refusal(capsys, "export", *source, "--precision", "int8", "--out", bundle)
        assert "expected a new or empty folder, found one with files" in sentence
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


@pytest.mark.parametrize("command", ["run", "profile", "trials", "robustness", "info", "replay"])
def test_a_foreign_file_is_refused_as_a_report_by_every_command(
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("README.md").write_text("# precious")
    file = ["x.mcap"] if command in ("info", "replay") else []
    assert "README.md" in refusal(capsys, command, *file, "--json", "README.md")
    if command not in ("info", "replay"):
        assert "README.md" in refusal(capsys, command, "--plot", "README.md")
    assert Path("README.md").read_text() == "# precious"


def test_a_recording_is_never_replaced(run_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = run_file.read_bytes()
    assert "expected a new file" in refusal(capsys, "run", "--record", run_file)
    assert "found one that would be lost" in refusal(capsys, "info", run_file, "--json", run_file)
    assert run_file.read_bytes() == before


@pytest.mark.parametrize("command", ["demos", "train"])
def test_a_second_writer_of_a_folder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    shown, out = tmp_path / "shown", tmp_path / "out"
    assert cli.main(["demos", str(shown), "--episodes", "2", "--workers", "1"]) == 0
    capsys.readouterr()
    out.mkdir()
    arguments = [out] if command == "demos" else [shown, "--out", out, "--preset", "tiny"]
    with one_writer(out):
        assert "found another process that does" in refusal(capsys, command, *arguments)


def test_a_second_series_of_trials_for_one_report_is_refused(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = tmp_path / "t.0123456789ab.partial.jsonl"
    held.touch()
    which = ["--bundle", bundle, "--episodes", "1", "--seed", "40", "--workers", "1"]
    with one_writer(held):
        sentence = refusal(capsys, "trials", *which, "--json", tmp_path / "t.json")
    assert f"{held}: expected to write here alone" in sentence
    assert list(tmp_path.glob("t.*")) == [held]


def test_a_report_of_gatort_is_written_anew(tmp_path: Path, run_file: Path) -> None:
    report = tmp_path / "r.json"
    write_json(report, "run", {"old": True})
    assert cli.main(["info", str(run_file), "--json", str(report)]) == 0
    assert "old" not in json.loads(report.read_text())


def test_demonstrations_that_ctrl_c_ended_say_that_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = Episode.save

    def save_then_ctrl_c(episode: Episode, path: Path, spec: PolicySpec) -> None:
        save(episode, path, spec)
        raise KeyboardInterrupt

    folder = tmp_path / "demos"
    demos = ["demos", str(folder), "--episodes", "2", "--workers", "1"]
    monkeypatch.setattr(Episode, "save", save_then_ctrl_c)
    assert cli.main(demos) == 130
    sentence = f"stopped with 1 of 2 episodes in {folder}; the same command goes on from there\n"
    assert capsys.readouterr().err.endswith(sentence)
    monkeypatch.setattr(Episode, "save", save)
    assert cli.main(demos) == 0
    assert f"train on them: gatort train {folder} --out" in capsys.readouterr().out


def test_a_training_ends_with_its_bundle_and_goes_on_with_its_own_demonstrations_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for name, seed in (("shown", "1000000"), ("other", "1000100")):
        folder = tmp_path / name
        demos = ["demos", str(folder), "--episodes", "2", "--seed", seed, "--workers", "1"]
        assert cli.main(demos) == 0
    size = ["--preset", "tiny", "--batch-sequences", "1", "--steps", "1", "--rounds", "0"]
    capsys.readouterr()
    assert cli.main(["train", str(tmp_path / "shown"), "--out", str(out), *size]) == 0
    bundle = out / "bundle"
    assert capsys.readouterr().out == (
        f"bundle: {bundle}; try it: gatort trials --bundle {bundle}\n"
    )
    sentence = refusal(capsys, "train", tmp_path / "other", "--out", out, *size)
    assert "expected to go on with 2 episodes of" in sentence
    assert "seeds 1000000 to 1000001" in sentence
    assert "found 2 episodes of" in sentence


@pytest.mark.skipif(choose_gl() is None, reason=INSTALL_HINT)
def test_a_film_that_fits_on_no_disk_costs_one_sentence(bundle: Path) -> None:
    ran = on_a_full_disk(
        bundle.parent, "run", "--bundle", bundle, "--seconds", "0.5", "--video", "v.mp4"
    )
    assert ran.returncode == int("stopped in" in ran.stdout), ran.stderr
    lines = ran.stderr.splitlines()
    assert (
        "gatort: no film: cannot write v.mp4: ffmpeg could not finish the film; is the disk full?"
        in lines
    )
    assert not [line for line in lines if "mp4 @" in line]
    assert not leftovers(bundle.parent)


def test_a_picture_is_written_although_another_command_removed_the_empty_folder(
    tmp_path: Path,
) -> None:
    figure = Figure()
    save_figure(tmp_path / "runs" / "sweep.png", figure, dpi=10)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["sweep.png"]
