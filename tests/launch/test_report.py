"""Percentiles and the files that a report leaves."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from rich.table import Table

from gatort.launch import cli
from gatort.launch.report import alarming, percentile_record, require_writable, screen, write_json
from gatort.runtime.errors import ConfigError
from gatort.runtime.telemetry import Percentiles


def test_percentiles_are_written_in_milliseconds() -> None:
    latency = Percentiles.of_ns(np.array([1_000_000] * 98 + [80_000_000] * 2, np.int64))
    record = percentile_record(latency)
    # A histogram of three digits.
    assert record == pytest.approx({"p50": 1.0, "p99": 80.0, "p99.9": 80.0, "max": 80.0}, rel=1e-3)


def test_an_output_that_cannot_be_written_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no directory"):
        require_writable(tmp_path / "missing" / "t.json")
    with pytest.raises(ConfigError, match="found a directory"):
        require_writable(tmp_path)
    require_writable(None, tmp_path / "t.json")


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    report = tmp_path / "t.json"
    write_json(report, {"episodes": 3})
    with pytest.raises(ValueError, match="JSON"):
        write_json(report, {"episodes": float("nan")})
    record = json.loads(report.read_text())
    assert record.pop("report").keys() == {"schema", "gatort", "date", "command"}
    assert record == {"episodes": 3}
    assert list(tmp_path.iterdir()) == [report]


def test_a_pipe_is_written_to_and_not_replaced_by_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_json(pipe, {"episodes": 3})
    assert json.loads(os.read(reading, 10_000))["episodes"] == 3
    os.close(reading)
    assert pipe.is_fifo()


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
    write_json(tmp_path / "report.json", {"file": "\udcff"})
    assert json.loads((tmp_path / "report.json").read_text())["file"] == "\udcff"
