"""Standard output and standard error never end a command, whatever they lead to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gatort.launch.streams import complain


def gatort(*arguments: str | Path, line: str = '"$@"', **environment: str) -> tuple[int, str, str]:
    """Run the command line inside a line of bash; return status, output and errors."""
    command = [sys.executable, "-m", "gatort", *map(str, arguments)]
    ended = subprocess.run(
        ["bash", "-c", line, "bash", *command],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    return ended.returncode, ended.stdout, ended.stderr


def test_figures_go_to_standard_error_when_standard_output_is_full(run_file: Path) -> None:
    status, figures, _ = gatort("info", run_file)
    full = gatort(
        "info", run_file, "--json", "r.json", line=f'cd {run_file.parent}; "$@" >/dev/full'
    )
    sentence, table = full[2].split("\n", 1)
    assert sentence == (
        "gatort: cannot write standard output: No space left on device; it continues here"
    )
    assert (full[0], table) == (status, figures)
    assert json.loads((run_file.parent / "r.json").read_text())["complete"]


def test_the_help_on_a_full_disk_costs_one_sentence() -> None:
    status, _, errors = gatort("--help", line='"$@" >/dev/full')
    assert status == 0
    assert errors.startswith("gatort: cannot write standard output: No space left on device")
    assert "Traceback" not in errors


@pytest.mark.parametrize("line", ['"$@" | :', '"$@" >&-', '"$@" 2>/dev/full', '"$@" >&- 2>&-'])
def test_a_stream_that_leads_nowhere_changes_no_status(run_file: Path, line: str) -> None:
    status, _, errors = gatort("info", run_file, line=f"set -o pipefail; {line}")
    assert (status, errors) == (0, "")


def test_characters_that_an_encoding_lacks_are_replaced(run_file: Path) -> None:
    for encoding in ("latin-1", "ascii"):
        status, figures, errors = gatort("info", run_file, PYTHONIOENCODING=encoding)
        assert (status, errors) == (0, "")
        assert "40, 0 misses" in figures


def test_a_hyphen_prints_the_report_alone_and_the_figures_on_standard_error(
    run_file: Path,
) -> None:
    _, figures, _ = gatort("info", run_file)
    for name in ("-", "/dev/stdout"):
        status, report, errors = gatort("info", run_file, "--json", name)
        assert (status, errors) == (0, figures)
        assert json.loads(report)["complete"]


def test_a_report_to_a_redirected_device_replaces_no_link(run_file: Path) -> None:
    folder = run_file.parent
    status, _, errors = gatort(
        "info", run_file, "--json", "/dev/stdout", line=f'"$@" >{folder}/out.json'
    )
    assert status == 0, errors
    assert json.loads((folder / "out.json").read_text())["complete"]
    assert Path("/dev/stdout").is_symlink()
    status, _, _ = gatort("info", run_file, "--json", "/dev/stderr", line=f'"$@" 2>{folder}/e')
    assert status == 0
    assert json.loads((folder / "e").read_text())["complete"]
    assert Path("/dev/stderr").is_symlink()


def test_a_locale_without_unicode_costs_no_help() -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    status, said, errors = gatort("info", "--help", **plain)
    assert (status, errors) == (0, "")
    assert "Usage: gatort info" in said


def test_a_pipe_that_nobody_reads_costs_one_sentence(run_file: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    status, _, errors = gatort("info", run_file, "--json", tmp_path / "pipe")
    assert status == 0
    assert errors.count("nobody reads this pipe") == 1


def test_a_refusal_is_wrapped_at_words_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = "--value-of-something: expected this,\nfound that"
    complain(sentence)
    assert capsys.readouterr().err == "gatort: --value-of-something: expected this, found that\n"

    monkeypatch.setenv("COLUMNS", "32")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    complain(sentence)
    assert capsys.readouterr().err == ("gatort: --value-of-something:\nexpected this, found that\n")
