"""Percentiles and the files that a report leaves."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from rich.table import Table

from gatort.launch import cli
from gatort.launch.latency_picture import latency_picture
from gatort.launch.outputs import require_writable
from gatort.launch.report import alarming, percentile_record, progress_bar, screen, write_json
from gatort.launch.report_kinds import VERSIONS
from gatort.runtime.durations import Percentiles
from gatort.runtime.errors import ConfigError, OutputError


def test_percentiles_are_written_in_milliseconds() -> None:
    latency = Percentiles.of_ns(np.array([1_000_000] * 98 + [80_000_000] * 2, np.int64))
    record = percentile_record(latency)
    # A histogram of three digits.
    assert record == pytest.approx({"p50": 1.0, "p99": 80.0, "p99.9": 80.0, "max": 80.0}, rel=1e-3)


def test_an_output_that_cannot_be_written_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no directory"):
        require_writable(json=tmp_path / "missing" / "t.json")
    with pytest.raises(OutputError, match="found a directory"):
        require_writable(json=tmp_path)
    with pytest.raises(OutputError, match="found a directory"):
        require_writable(json=Path())
    with pytest.raises(OutputError, match=r"cannot write /proc/t\.json"):
        require_writable(json=Path("/proc/t.json"))  # Root cannot write there either.
    with pytest.raises(OutputError, match="name too long"):
        require_writable(json=tmp_path / f"{'n' * 250}.json")
    require_writable(plot=None, json=tmp_path / "t.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("json", "notes.json"),
        ("plot", "holiday.png"),
        ("plot", "drawing.svg"),
        ("picture", "holiday.png"),
        ("print_board", "holiday.png"),
        ("video", "holiday.mp4"),
        ("record", "run.mcap"),
        ("write", "profile.toml"),
    ],
)
def test_a_file_that_gatort_did_not_write_is_refused_by_every_flag(
    tmp_path: Path, flag: str, name: str
) -> None:
    path = tmp_path / name
    path.write_text("[1, 2]")
    link = tmp_path / f"link-{name}"
    link.symlink_to(path)
    for given in (path, link):
        with pytest.raises(ConfigError, match="found one that would be lost"):
            require_writable(**{flag: given})
    assert path.read_text() == "[1, 2]"


@pytest.mark.parametrize("name", ["README.md", "x.jpg", "x"])
def test_a_picture_s_name_ends_in_a_format_that_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="--plot: expected a name that ends in"):
        require_writable(plot=tmp_path / name)


@pytest.mark.parametrize(
    ("name", "beginning"), [("x.png", b"\x89PNG"), ("x.svg", b"<?xml"), ("X.PDF", b"%PDF")]
)
def test_a_picture_has_the_format_of_its_name_and_may_be_drawn_anew(
    tmp_path: Path, name: str, beginning: bytes
) -> None:
    path = tmp_path / name
    limits_ms = {"budget": 50.0, "action deadline": 25.0}
    latency_picture(path, "a run", ("prefill",), np.array([[1_000_000]], np.int64), limits_ms)
    assert path.read_bytes().startswith(beginning)
    require_writable(plot=path)


def test_a_report_an_empty_file_and_a_link_to_a_report_may_be_written_anew(tmp_path: Path) -> None:
    report, empty, link = (tmp_path / name for name in ("t.json", "empty", "link.json"))
    write_json(report, "run", {"episodes": 3})
    empty.touch()
    link.symlink_to(report)
    require_writable(json=report)
    require_writable(json=empty)
    require_writable(json=link)
    write_json(link, "run", {"episodes": 4})
    assert link.is_symlink()
    assert json.loads(report.read_text())["episodes"] == 4


def test_only_a_report_goes_to_standard_output(tmp_path: Path) -> None:
    require_writable(json=Path("-"))
    for flag in ("record", "write", "plot", "video"):
        with pytest.raises(ConfigError, match="found standard output, where only --json"):
            require_writable(**{flag: Path("-")})


def test_two_outputs_never_share_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a file of its own, found that of --plot"):
        require_writable(plot=tmp_path / "x.png", json=tmp_path / "x.png")


def test_a_report_that_cannot_be_written_costs_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_json(Path("/dev/full"), "run", {"episodes": 3})
    sentence = "gatort: no report: cannot write /dev/full: No space left on device\n"
    assert capsys.readouterr().err == sentence


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    report = tmp_path / "t.json"
    write_json(report, "run", {"episodes": 3})
    with pytest.raises(ValueError, match="JSON"):
        write_json(report, "run", {"episodes": float("nan")})
    record = json.loads(report.read_text())
    origin = record.pop("report")
    assert origin.keys() == {"kind", "schema", "gatort", "date", "command"}
    assert (origin["kind"], origin["schema"]) == ("run", VERSIONS["run"])
    assert record == {"episodes": 3}
    assert list(tmp_path.iterdir()) == [report]


def test_a_pipe_is_written_to_and_not_replaced_by_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_json(pipe, "run", {"episodes": 3})
    assert json.loads(os.read(reading, 10_000))["episodes"] == 3
    os.close(reading)
    assert pipe.is_fifo()


def test_without_a_terminal_progress_is_a_line_now_and_then_and_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr("rich.console.monotonic", lambda: now_s)
    with progress_bar("trials") as bars:
        bar = bars.add_task("", total=70)
        for _ in range(70):
            now_s += 1.0
            bars.update(bar, advance=1)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ["30/70", "60/70", "70/70"]


def test_progress_that_is_not_shown_prints_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("trials", shown=False) as bars:
        bars.update(bars.add_task("", total=1), advance=1)
    assert capsys.readouterr().err == ""


HOSTILE = "bundle \x1b]0;owned\x07\x9b2J\u202e name \udcff"


def test_no_control_character_of_a_stranger_reaches_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = Table("name")
    table.add_row(HOSTILE)
    table.add_row(alarming(HOSTILE, True))
    screen().print(table, HOSTILE)
    said = capsys.readouterr().out
    assert said.count("owned") == 3
    assert all(each.isprintable() or each == "\n" for each in said)


def test_a_refusal_shows_no_control_character(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["info", str(tmp_path / HOSTILE)]) == 2
    said = capsys.readouterr().err
    assert "owned" in said
    assert all(each.isprintable() or each == "\n" for each in said)


def test_a_report_names_a_file_that_is_no_utf_8(tmp_path: Path) -> None:
    write_json(tmp_path / "report.json", "run", {"file": "\udcff"})
    assert json.loads((tmp_path / "report.json").read_text())["file"] == "\udcff"
