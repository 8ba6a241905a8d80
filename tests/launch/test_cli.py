"""The command line answers bad input with one sentence and exit status 2, and starts light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gatort.launch import cli


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What standard error says when a command line is refused, which is one line."""
    assert cli.main([str(each) for each in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("gatort: ")
    return captured.err


def test_help_names_every_command_and_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for command in ("run", "trials", "profile", "demos", "train", "export", "parity", "doctor"):
        assert f"│ {command} " in text


@pytest.mark.parametrize(
    "command", ["run", "trials", "profile", "demos", "train", "export", "parity", "doctor"]
)
def test_every_flag_is_documented(command: str) -> None:
    undocumented = [
        argument.name
        for argument in cli.app[command].assemble_argument_collection(parse_docstring=True)
        if argument.parameter.help in (None, "") and not argument.children and argument.parse
    ]
    assert undocumented == []


def test_the_command_line_starts_without_torch_mujoco_onnx_or_matplotlib() -> None:
    code = (
        "import sys; from gatort.launch.cli import main; main(['--help']); "
        "heavy = {'torch', 'mujoco', 'onnx', 'onnxruntime', 'matplotlib', 'imageio_ffmpeg'}; "
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    started = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert started.stderr.strip() == "[]"


def test_a_refused_command_prints_one_sentence_and_no_traceback() -> None:
    command = [sys.executable, "-m", "gatort.launch.cli", "run", "--bundle", "nowhere"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert refused.stderr.count("\n") == 1
    assert "nowhere/manifest.json: expected a bundle's manifest, found none" in refused.stderr


def test_a_misspelt_command_or_flag_is_answered_with_the_closest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "unknown command 'trial' (did you mean 'trials'?); valid commands are run, " in refusal(
        capsys, "trial"
    )
    assert "Did you mean --seconds" in refusal(capsys, "run", "--secnds", "3")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("run", "--seconds", "nan"),
            "gatort: --seconds: input should be a finite number, found 'nan'",
        ),
        (("run", "--seconds", "0"), "gatort: --seconds: input should be greater than 0, found '0'"),
        (
            ("run", "--robot", "real"),
            "gatort: --robot: expected mujoco, pybullet or an address such as tcp://127.0.0.1:5555, found 'real'",
        ),
        (
            ("run", "--realtime.fifo-priority", "100"),
            "gatort: --realtime.fifo-priority: input should be less than or",
        ),
        (
            ("run", "--realtime.cpus", "-1"),
            "gatort: --realtime.cpus: input should be greater than or equal to 0",
        ),
        (("run", "--threads", "none"), "gatort: --threads: input should be a valid integer"),
        (
            ("trials", "--loss", "2"),
            "gatort: --loss: input should be less than or equal to 1, found '2'",
        ),
        (("profile", "--budget-ms", "-5"), "--budget-ms: input should be greater than 0, found -5"),
        (
            ("profile", "--ticks", "0"),
            "--ticks: input should be greater than or equal to 1, found 0",
        ),
        (("trials", "--episodes", "0"), "--episodes: input should be greater than 0, found 0"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_flag_and_the_range(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], sentence: str
) -> None:
    assert sentence in refusal(capsys, *arguments)


@pytest.mark.parametrize(
    ("command", "flag"),
    [("trials", "--seed"), ("trials", "--episodes"), ("profile", "--ticks"), ("parity", "--wraps")],
)
def test_a_whole_number_with_a_fraction_is_refused_instead_of_rounded(
    capsys: pytest.CaptureFixture[str], command: str, flag: str
) -> None:
    assert f"{flag}: expected a whole number, found '1.5'" in refusal(capsys, command, flag, "1.5")


def test_a_list_of_values_may_not_be_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--values requires at least 1 element" in refusal(
        capsys, "trials", "--sweep", "delay", "--values"
    )
    assert "Unknown option: --realtime.empty-cpus" in refusal(
        capsys, "run", "--realtime.empty-cpus"
    )


def test_an_unknown_command_is_answered_with_all_of_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert all(
        f" {name}" in refusal(capsys, "frobnicate") for name in cli.app if not name.startswith("-")
    )


def test_an_output_that_cannot_be_written_is_refused_before_the_policy_is_loaded(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for command in ("run", "trials", "profile", "doctor"):
        assert "there is no directory" in refusal(
            capsys, command, "--json", tmp_path / "missing" / "t.json"
        )


@pytest.mark.parametrize(
    "arguments", [("run",), ("run", "--plot", "a.png"), ("trials", "--sweep", "delay")]
)
def test_a_place_of_outputs_that_cannot_be_written_is_refused_before_the_policy_is_loaded(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").touch()
    sentence = refusal(capsys, *arguments, "--bundle", "nowhere")
    assert (
        "cannot write into runs: expected a directory, or to make one here (File exists)"
        in sentence
    )


@pytest.mark.parametrize(
    ("arguments", "picture"),
    [(("run",), "latency.png"), (("trials", "--sweep", "delay"), "sweep.png")],
)
def test_a_picture_s_own_place_is_checked_before_the_policy_is_loaded(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    picture: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs", picture).mkdir(parents=True)
    sentence = refusal(capsys, *arguments, "--bundle", "nowhere")
    assert f"cannot write runs/{picture}: expected a file, found a directory" in sentence


def test_a_film_must_be_an_mp4_and_a_viewer_needs_a_screen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert "expected a name that ends in .mp4" in refusal(capsys, "run", "--video", "run.avi")
    assert "DISPLAY is not set; --video FILE films the run instead" in refusal(
        capsys, "run", "--viewer"
    )


def test_a_fault_of_gatort_itself_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main(["run"])
