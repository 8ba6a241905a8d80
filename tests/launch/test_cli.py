"""The command line loads a command when it runs, and answers bad input with one sentence and exit
status 2."""

from __future__ import annotations

import errno
import inspect
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gatort.launch import cli
from gatort.launch.command_help import EXAMPLES, READERS, range_of
from gatort.policies.loading import SHIPPED_BUNDLE
from gatort.runtime.exit_status import ExitStatus, ended_by


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Return the one line on standard error of a command line that is refused."""
    assert cli.main([str(each) for each in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("gatort: ")
    return captured.err


def raiser(error: Exception) -> Callable[..., object]:
    """Return a function that raises an error."""

    def fail(*_: object) -> object:
        raise error

    return fail


def test_help_lists_every_command_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for command, line in cli.COMMANDS.items():
        assert f"{command} {line}" in text


def test_help_has_every_command_below_one_reader() -> None:
    grouped = [name for names in READERS.values() for name in names]
    assert sorted(grouped) == sorted(cli.COMMANDS) == sorted(EXAMPLES)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_the_help_of_a_command_ends_with_an_example_that_parses(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command, "--help"]) == 0
    assert " ".join(capsys.readouterr().out.split()).endswith(
        f"Example: gatort {EXAMPLES[command]}"
    )
    function, *_ = cli.app.parse_args(EXAMPLES[command], exit_on_error=False, print_error=False)
    assert function is cli.app[command].default_command


def test_help_shows_the_range_of_each_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Longest duration of the run, in seconds. [0 < x ≤ 1,000,000] [default: 20.0]" in text
    assert "[0 ≤ x ≤ 99]" in text
    assert "CPU threads of one pass. [1 ≤ x ≤ 256] [default: 2]" in text


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_the_help_shows_a_range_for_each_flag_with_bounds(command: str) -> None:
    arguments = cli.app[command].assemble_argument_collection(parse_docstring=False)
    kinds = {each.name: each.field_info.annotation for each in arguments if each.parse}
    bounded = {name: kind for name, kind in kinds.items() if re.search(r"[GL][te]\(", str(kind))}
    assert [name for name, kind in bounded.items() if not range_of(kind)] == []


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("cameras", "Number of squares of a ChArUco board from left to right. [3 ≤ x ≤ 20]"),
        ("robot", "Default: two periods minus 5 ms. [0 < x ≤ 200]"),
        ("trials", "CPU threads of one pass. [1 ≤ x ≤ 256]"),
        ("robustness", "CPU threads of one pass. [1 ≤ x ≤ 256]"),
        ("demos", "[1,000,000 ≤ x < 2,000,000]"),
        ("export", "[0 ≤ x ≤ 9,223,372,036,854,775,807]"),
        ("fault", "TYPE Type of its failure."),
    ],
)
def test_the_help_states_the_bounds_that_are_enforced(
    command: str, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert cli.main([command, "--help"]) == 0
    assert line in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_completion_is_installed_also_where_an_optional_package_is_absent(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['cv2'] = None; "
        "from gatort.launch.cli import main; "
        "sys.exit(main(['--install-completion', '--shell', 'bash']))"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment, check=True)
    script = next(tmp_path.rglob("gatort*")).read_text()
    assert "--fifo-priority" in script or "--realtime.fifo-priority" in script
    assert "trials" in script
    assert "parity" not in script
    assert "calibrate" not in script


def test_completion_goes_nowhere_but_to_its_own_place(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    precious = tmp_path / "precious"
    precious.write_text("mine")
    assert cli.main(["--install-completion", "--shell", "bash", "--output", str(precious)]) == 2
    assert "--output" in capsys.readouterr().err
    assert precious.read_text() == "mine"
    assert [each.name for each in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_the_line_of_a_command_is_the_first_sentence_of_its_docstring(command: str) -> None:
    function = cli.app[command].default_command
    first, *_ = (inspect.getdoc(function) or "").split("\n\n")
    assert " ".join(first.split()) == cli.COMMANDS[command]


def test_the_help_of_a_command_shows_its_whole_docstring(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["keys", "--help"]) == 0
    assert "admits every controller*.pub" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_flag_is_documented(command: str) -> None:
    undocumented = [
        argument.name
        for argument in cli.app[command].assemble_argument_collection(parse_docstring=True)
        if argument.parameter.help in (None, "") and not argument.children and argument.parse
    ]
    assert undocumented == []


def test_the_list_of_commands_is_printed_without_any_command_s_module_or_heavy_package() -> None:
    code = (
        "import sys; from gatort.launch.cli import main; main(['--help']); "
        "heavy = {'torch', 'mujoco', 'onnx', 'onnxruntime', 'matplotlib', 'numpy'}; "
        "loaded = heavy & set(sys.modules) | "
        "{name for name in sys.modules if name.startswith('gatort.launch.commands.')}; "
        "print(sorted(loaded), file=sys.stderr)"
    )
    started = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert started.stderr.strip() == "[]"


def test_a_refused_command_prints_one_sentence_and_no_traceback() -> None:
    command = [sys.executable, "-m", "gatort", "run", "--bundle", "nowhere"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert refused.stderr.count("\n") == 1
    assert "nowhere/manifest.json: expected a bundle's manifest, found none" in refused.stderr


@pytest.mark.parametrize(
    ("package", "extra"), [("torch.nn", "train"), ("mujoco", "sim"), ("onnx_ir", "tensorrt")]
)
def test_an_absent_optional_package_is_named_with_its_install_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], package: str, extra: str
) -> None:
    def lacking(*_: object, **__: object) -> int:
        try:
            raise ModuleNotFoundError(name=package)
        except ModuleNotFoundError as error:
            raise ImportError("cannot import a command's module") from error

    monkeypatch.setattr(cli.App, "parse_args", lacking)
    assert refusal(capsys, "export") == (
        f"gatort: export needs {package.partition('.')[0]}, which is not installed: "
        f"pip install 'gatort[{extra}]'\n"
    )


def test_a_command_whose_module_needs_an_absent_package_is_refused_in_a_new_process() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from gatort.launch.cli import main; "
        "sys.exit(main(['parity']))"
    )
    refused = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert refused.stderr == (
        "gatort: parity needs torch, which is not installed: pip install 'gatort[train]'\n"
    )


def test_an_absent_base_package_is_an_internal_error_with_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lacking(*_: object, **__: object) -> int:
        raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")

    monkeypatch.setattr(cli.App, "parse_args", lacking)
    assert cli.main(["run"]) == 70
    assert "No module named 'onnxruntime'" in capsys.readouterr().err


def test_a_misspelt_command_or_flag_is_answered_with_the_closest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "unknown command 'trial' (did you mean 'trials'?); valid commands are run, " in refusal(
        capsys, "trial"
    )
    assert "unknown option '--frob'; valid commands are run, " in refusal(capsys, "--frob")
    assert (
        "unknown option '--secnds' (did you mean '--seconds'?); see `gatort run --help`"
        in refusal(capsys, "run", "--secnds", "3")
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("run", "--seconds", "nan"),
            "gatort: --seconds: expected a finite number, found 'nan'",
        ),
        (("run", "--seconds", "0"), "gatort: --seconds: expected more than 0, found '0'"),
        (
            ("run", "--robot", "real"),
            (
                "gatort: --robot: expected mujoco, pybullet or an address such as "
                "tcp://127.0.0.1:5555, found 'real'"
            ),
        ),
        (
            ("run", "--realtime.fifo-priority", "100"),
            "gatort: --realtime.fifo-priority: expected at most 99, found '100'",
        ),
        (
            ("run", "--realtime.cpus", "-1"),
            "gatort: --realtime.cpus: expected at least 0, found '-1'",
        ),
        (("run", "--threads", "none"), "gatort: --threads: expected a whole number, found 'none'"),
        (
            ("trials", "--loss", "2"),
            "gatort: --loss: expected at most 1, found '2'",
        ),
        (("profile", "--budget-ms", "-5"), "--budget-ms: expected more than 0, found -5"),
        (
            ("profile", "--ticks", "0"),
            "--ticks: expected at least 1, found 0",
        ),
        (("trials", "--episodes", "0"), "--episodes: expected at least 1, found 0"),
        (("trials", "--episodes", "1000000000"), "--episodes: expected at most 900000, found"),
        *(
            (
                (*command.split(), "99999999999999999999"),
                "-seed: expected at most 9223372036854775807, found ",
            )
            for command in (
                "run --seed",
                "robot mujoco --seed",
                "robot mujoco --link-seed",
                "trials --seed",
                "robustness --seed",
                "profile --seed",
                "parity --seed",
                "fault --seed",
                "faults --seed",
                "train d --out new --training-seed",
                "export --out new --seed",
            )
        ),
        (
            ("train", "d", "--out", "new", "--batch-sequences", "100000000"),
            "--batch-sequences: expected at most 65536, found '100000000'",
        ),
        (
            ("demos", "d", "--noise-nm", "1e308"),
            "--noise-nm: expected at most 1000, found 1e+308",
        ),
        (
            ("robot", "mujoco", "--safe-after-ms", "201"),
            "--safe-after-ms: expected at most 200, found '201'",
        ),
        (
            ("export", "--out", "new", "--name", "a/b"),
            (
                "--name: expected at most 100 letters, digits, _ . + and -, the first a letter "
                "or a digit, found 'a/b'"
            ),
        ),
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


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("info a b", "expected no further argument of info, found 'b'; see `gatort info --help`"),
        ("info", "expected FILE, found none; see `gatort info --help`"),
        ("train d", "expected --out, found none; see `gatort train --help`"),
        ("run --keys", "--keys: expected a value, found none; see `gatort run --help`"),
        (
            "cameras --joints 1 2",
            "--joints: expected 7 values, found 2; see `gatort cameras --help`",
        ),
        (
            "profile --paced --flat-out",
            "expected --paced or --flat-out, found both; leave one of them out",
        ),
        (
            "profile --ticks 3 --ticks=4",
            "--ticks: expected once, found twice; leave one of them out",
        ),
        ("run --viewer=maybe", "--viewer: expected true or false, found 'maybe'"),
        ("run --realtime {x", "--realtime: expected named values in JSON, found '{x'"),
        ("run --realtime.cpus x", "--realtime.cpus: expected a whole number, found 'x'"),
        (
            "trials --sweep speed",
            "--sweep: expected delay, jitter, loss or reorder, found 'speed'",
        ),
        ("trials --min-success nan", "--min-success: expected a finite number, found nan"),
        ("demos d --noise-nm nan", "--noise-nm: expected a finite number, found nan"),
        ("demos d --noise-nm inf", "--noise-nm: expected a finite number, found inf"),
        ("trials --sweep delay --values -3", "--values: expected at least 0, found -3.0"),
        (
            "robot mujoco --safe-after-ms 40",
            "--safe-after-ms: expected 50 ms (one period) to 200 ms, found 40 ms",
        ),
        (
            "cameras --source Front=v4l2:/dev/video0",
            (
                "--source Front=v4l2:/dev/video0: expected a name of small letters, digits and _, "
                "a letter first, found 'Front'"
            ),
        ),
    ],
)
def test_a_wrong_command_line_is_answered_in_gatort_s_words_and_with_the_typed_flags(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    line: str,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal(capsys, *line.split()) == f"gatort: {sentence}\n"


@pytest.mark.parametrize(
    ("line", "because"),
    [
        ("cameras --json r.json", "--json has no effect without a camera"),
        ("cameras --write w.toml", "--write has no effect without a camera"),
        ("cameras --print-board b.png --picture p.png", "--picture has no effect without a camera"),
        ("cameras --seconds 3", "--seconds has no effect without a camera"),
        ("cameras --source a=file:x.png --task reach", "--task has no effect without --picture"),
        ("cameras --board.rows 4", "--board has no effect without --picture or --print-board"),
        ("run --arm", "--arm has no effect on mujoco, which is simulated in this process"),
        ("run --robot tcp://127.0.0.1:1 --task reach", "--task has no effect on tcp://127.0.0.1:1"),
        ("run --demo hold --threads 1", "--threads has no effect with --demo hold"),
        ("profile --robot scripted --task reach", "--task has no effect with --robot scripted"),
        ("robot mujoco --address 1.2.3.4", "--address has no effect on mujoco"),
        ("robot franka --seed 3", "--seed has no effect on franka, which is not simulated"),
        ("robot mujoco --link-seed 3", "--link-seed has no effect on a link without delay"),
        ("trials --link-seed 3", "--link-seed has no effect on a link without delay"),
        ("demos d --randomise-view", "--randomise-view has no effect without --cameras"),
        ("train d --out o --rounds 0 --workers 1", "--workers has no effect with --rounds 0"),
        ("compile b --list", "--bundle has no effect with --list"),
        ("compile --list --precision int8", "--precision has no effect with --list"),
        ("compile --prune --target rtx3090", "--target has no effect with --prune"),
        ("trials --spinning --engine native", "--spinning has no effect with --engine native"),
        ("profile --engine tensorrt --threads 2", "--threads has no effect with --engine tensorrt"),
        (
            "robustness --engine torch --no-spinning",
            "--spinning has no effect with --engine torch",
        ),
        (
            "cameras --print-board b.png --board.kind apriltag --board.columns 4",
            "--board.columns has no effect with --board.kind apriltag",
        ),
        ("calibrate front --board.tag 3", "--board.tag has no effect with --board.kind charuco"),
        ("calibrate front --place --keys k", "--keys has no effect without --robot"),
        (
            "calibrate front --place --robot tcp://127.0.0.1:1 --held red --board.rows 4",
            "--board has no effect with --robot, whose hand holds a cube",
        ),
        ("fault --seed 3", "--seed has no effect without a fault"),
        ("compile --prune --json r.json", "--json has no effect with --prune"),
        ("fault --robot tcp://127.0.0.1:1", "--robot has no effect without a fault"),
        ("calibrate front --held red", "--held has no effect without --place"),
        ("poses --print-tags t.pdf --seconds 3", "--seconds has no effect with --print-tags"),
        ("faults --franka-sim python", "--franka-sim has no effect without --robot franka"),
    ],
)
def test_a_flag_that_would_have_no_effect_is_refused(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    line: str,
    because: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    sentence = refusal(capsys, *line.split())
    assert sentence.startswith(f"gatort: {because}")
    assert sentence.endswith(": leave it out\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("run --realtime.cpus 0 1", lambda given: given["options"].realtime.cpus == (0, 1)),
        ("demos out --noise-nm 1 2", lambda given: given["noise_nm"] == (1, 2)),
        ("cameras --source a=/x b=/y", lambda given: given["source"] == ["a=/x", "b=/y"]),
        ("faults --row 1 --row 2 3", lambda given: given["row"] == (1, 2, 3)),
        ("train a b --out c", lambda given: given["demos"] == [Path("a"), Path("b")]),
    ],
)
def test_a_list_takes_several_values_after_one_flag(
    line: str, found: Callable[[dict[str, object]], bool]
) -> None:
    _, bound, _ = cli.app.parse_args(line, exit_on_error=False, print_error=False)
    assert found(bound.arguments)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("trials --task nix", "--task nix: policy 'stack' is for task 'stacking'"),
        ("robustness --task nix", "--task nix: policy 'stack_camera' is for task 'stacking'"),
        ("profile --task nix", "--task nix: policy 'stack' is for task 'stacking'"),
        ("profile --bundle nix", "nix/manifest.json: expected a bundle's manifest, found none"),
        ("run --robot tcp://x:99999", "--robot: expected mujoco, pybullet or an address such as"),
        (
            "calibrate a --robot tcp://x:99999 --place",
            "--robot: expected an address such as tcp://",
        ),
        ("robot franka --address 1.2.3.4.5", "expected the IP address of its control box"),
    ],
)
def test_a_refusal_comes_before_any_work_or_question(
    capsys: pytest.CaptureFixture[str], line: str, sentence: str
) -> None:
    assert cli.main(line.split()) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("",), "expected a command, found an empty word; valid ones are run, robot,"),
        (("keys", ""), "expected a word after 'keys', found an empty one"),
        (("run", "--profile", ""), "expected a word after '--profile', found an empty one"),
        (("run", "--bundle="), "--bundle: expected a value, found an empty one"),
        (("robot", "mujoco", "--keys", " "), "expected a word after '--keys', found an empty one"),
    ],
)
def test_an_empty_word_is_refused_everywhere(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], sentence: str
) -> None:
    assert sentence in refusal(capsys, *arguments)


def test_a_list_of_values_may_not_be_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--values: expected at least 1 value, found none" in refusal(
        capsys, "trials", "--sweep", "delay", "--values"
    )
    assert "unknown option '--realtime.empty-cpus'" in refusal(
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


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "cannot write a file: No space left on device",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "a.npz"), "a.npz: Permission denied"),
        (MemoryError(), "keys: expected more memory, found none left"),
    ],
)
def test_a_machine_that_has_no_more_to_give_is_no_fault_of_gatort(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    sentence: str,
) -> None:
    monkeypatch.setattr("gatort.launch.commands.keys.make_keys", raiser(error))
    assert sentence in refusal(capsys, "keys", "somewhere")


def test_a_fault_of_gatort_has_a_status_of_its_own_a_sentence_and_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gatort.launch.commands.keys.make_keys", raiser(ZeroDivisionError("by 0")))
    assert cli.main(["keys", "somewhere"]) == ExitStatus.INTERNAL_ERROR == 70
    sentence, *lines = capsys.readouterr().err.splitlines()
    assert sentence == (
        "gatort: internal error: ZeroDivisionError: by 0; please report it in the issues of "
        "gatort's repository with the lines below, unless they lead into code of your own"
    )
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "ZeroDivisionError: by 0"


def test_no_two_endings_share_an_exit_status_and_the_page_lists_them_all() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "reports.md").read_text(encoding="utf-8")
    section = page.partition("## Exit status")[2].partition("\n## ")[0]
    listed = [int(number) for number in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)]
    signals = [ended_by(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert sorted(listed) == sorted({*map(int, ExitStatus), *signals})
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["demos", "d", "--cameras", "--pixels", "4096"], "expected"),
        (["export", "--preset", "tiny", "--random-weights", "--out", "e", "--seed", str(2**63)],
         "--seed"),
        (["cameras", "--print-board", "b.png", "--board.square-m", "0.03",
          "--board.marker-m", "0.04"], "--board.marker-m: expected less than --board.square-m ="),
        (["demos", "d", "--pixels", "32"], "--pixels: expected --cameras with it"),
        (["export", str(SHIPPED_BUNDLE), "--out", "e", "--seed", "1"], "--seed draws weights"),
        (["trials", "--freeze-from-s", "1"], "--freeze-from-s: expected --freeze-camera with it"),
        (["export", "stack", "--out", "e", "--seed", "1"], f"{SHIPPED_BUNDLE} has its own"),
        (["parity", "--bundle", "stack", "--engine", "native", "--precision", "int8"],
         "--engine native runs at fp32 or w8a8"),
        (["compile", "stack", "--builder", "tensorrt"], "tensorrt"),
        (["compile", "--list", "--prune"], "expected --list or --prune, found both"),
        (["run", "--temperature", "1e308"], "temperature"),
        (["robustness", "--bundle", str(SHIPPED_BUNDLE)], "give --bundle policies/stack_camera"),
        (["trials", "--randomise-view"], "give --bundle policies/stack_camera"),
    ],
)  # fmt: skip
def test_an_input_that_no_part_can_use_is_refused_and_no_fault_of_gatort(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    command: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(command) == 2
    errors = capsys.readouterr().err
    assert sentence in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("command", ["cameras", "poses", "calibrate"])
def test_a_command_whose_package_is_absent_says_how_to_install_it(command: str) -> None:
    blocked = (
        "import sys; sys.modules['cv2'] = None; from gatort.launch import cli; "
        f"sys.exit(cli.main([{command!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", blocked], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "gatort: real cameras need OpenCV: pip install 'gatort[cameras]'\n"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("profile --print-config --json r.json", "--json has no effect with --print-config"),
        ("run --print-config --video v.mp4", "--video has no effect with --print-config"),
        ("run --print-config --arm", "--arm has no effect on mujoco"),
        ("run --record x.txt", "--record: expected a name that ends in .mcap, found x.txt"),
        ("robot mujoco --record x.txt", "--record: expected a name that ends in .mcap"),
        ("keys text.txt", "text.txt: cannot write keys: expected a directory, found a file; give"),
        ("keys text.txt --add b", "keys: expected a directory, found a file"),
        ("trials --record --bundle /proc/x", "/proc/x/manifest.json: expected "),
        (
            "robot --driver json:JSONDecoder",
            "Driver, found <class 'json.decoder.JSONDecoder'>",
        ),
        ("robot --driver os:path", "expected a subclass of gatort.Driver, found <module "),
        ("run --sensor here", "--sensor: expected a sensor on this computer"),
        ("poses --address tcp://8.8.8.8:1", "--address: expected a sensor on this computer"),
        ("cameras --profile empty.toml", "expected a table [cameras.NAME], found none; add one"),
        ("robot mujoco --cameras empty.toml", "expected a table [cameras.NAME], found none"),
    ],
)
def test_a_refusal_names_a_remedy_that_works(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    line: str,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("not keys")
    Path("empty.toml").touch()
    assert sentence in refusal(capsys, *line.split())


def test_a_command_that_is_far_from_every_other_gets_no_suggestion(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "did you mean" not in refusal(capsys, "house")
    assert "(did you mean 'poses'?)" in refusal(capsys, "pose")


def test_a_cache_that_cannot_be_made_names_the_variable_that_moves_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/x")
    assert "set XDG_CACHE_HOME to a folder" in refusal(capsys, "compile", SHIPPED_BUNDLE)
