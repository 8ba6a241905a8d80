"""`gatort fault` and `gatort faults`: their lists, refusals, reports and exit statuses."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Self, cast

import pytest

pytest.importorskip("mujoco")

from gatort.faults import arm_process, injecting
from gatort.faults.arm_process import ArmProcess
from gatort.faults.bench import Bench
from gatort.faults.drive import Drive, EndedEarlyError
from gatort.faults.judging import InjectionResult
from gatort.faults.rows import ROWS, Fault, Row
from gatort.launch import cli
from gatort.launch.commands import fault
from gatort.runtime.errors import RobotError
from gatort.runtime.loop import ControlLoop, TickRecord
from gatort.runtime.witness import WitnessReport

GIVEN = InjectionResult(10.0, 60.0)
Inject = Callable[[Bench, int], InjectionResult]


class StillMachine:
    """Stands in for the witness's process: a machine with one known pause."""

    pause_ms = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def between(self, *_: int) -> WitnessReport:
        longest_ms = 4.0 + self.pause_ms
        return WitnessReport(100, 4.0, 4.0, longest_ms, longest_ms)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> type[StillMachine]:
    monkeypatch.setattr(injecting, "ALONE_NS", 0)
    monkeypatch.setattr(injecting, "WitnessProcess", StillMachine)
    monkeypatch.setattr(StillMachine, "pause_ms", 0.0)
    return StillMachine


@pytest.fixture
def injected(
    monkeypatch: pytest.MonkeyPatch, machine: type[StillMachine]
) -> Callable[[Inject], None]:
    def inject_as(inject: Inject) -> None:
        row = Row(1, "SAFE", (Fault("camera", "frozen", inject, 3),), 75, 165)
        monkeypatch.setattr(fault, "ROWS", (row,))

    return inject_as


def test_a_bound_that_a_pause_explains_is_inconclusive_and_has_a_status_of_its_own(
    injected: Callable[[Inject], None],
    machine: type[StillMachine],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine.pause_ms = 28.0
    injected(lambda _, seed: InjectionResult(75.0 + seed, 60.0))
    report = tmp_path / "f.json"
    assert cli.main(["faults", "--json", str(report)]) == 3
    out = capsys.readouterr().out
    assert "row 1: inconclusive: this machine paused a 4.0 ms computation for 28 ms" in out
    assert "0 of 1 inside their bounds, 1 inconclusive" in out
    record = json.loads(report.read_text())
    assert (record["held"], record["inconclusive"], record["broken"]) == (0, 1, 0)
    assert record["rows"][0]["verdict"] == "inconclusive"
    assert record["rows"][0]["witness"]["max_ms"] == 32.0


def test_eighty_columns_show_each_verdict_and_the_progress_ends_with_the_last_fault(
    injected: Callable[[Inject], None],
    machine: type[StillMachine],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    machine.pause_ms = 28.0
    injected(lambda _, seed: InjectionResult(75.0 + seed, 60.0))
    cli.main(["faults"])
    captured = capsys.readouterr()
    row = re.search(r"^ 1 +inconclusive .*$", captured.out, re.MULTILINE)
    assert row is not None
    assert len(row[0]) <= 80
    assert captured.err.splitlines()[-1].startswith("faults 3/3")


def test_without_arguments_every_fault_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fault"]) == 0
    listed = capsys.readouterr().out
    assert all(each.type in listed for row in ROWS for each in row.faults)


@pytest.mark.parametrize("command", ["fault", "faults"])
def test_the_help_names_each_exit_status(capsys: pytest.CaptureFixture[str], command: str) -> None:
    cli.main([command, "--help"])
    words = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert all(f"Exit status {status}:" in words for status in (0, 1, 3))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["fault", "camra", "frozen"], "no component 'camra': expected one of bundle, camera"),
        (
            ["fault", "camera", "frosen"],
            "camera has no fault 'frosen': expected one of frozen, absent",
        ),
        (["fault", "camera"], "fault camera: expected a type, one of frozen, absent"),
        (
            ["fault", "policy", "late", "--keys", "."],
            "--keys: expected --robot with it, found none",
        ),
        (["fault", "policy", "late", "--force"], "--force: expected --robot with it, found none"),
        (["faults", "--row", "33"], "--row 33: expected 1 to 32"),
        (["faults", "--row", "1.5"], "expected a whole number, found '1.5'"),
        (["faults", "--json", "/nowhere/f.json"], "there is no directory /nowhere"),
    ],
)
def test_an_unknown_fault_or_row_is_refused_with_the_valid_choices(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert cli.main(arguments) == 2
    assert sentence in capsys.readouterr().err


def test_the_report_has_the_median_and_the_longest_of_each_time(
    injected: Callable[[Inject], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    injected(lambda _, seed: InjectionResult(10.0 + seed, 60.0 + 2 * seed))
    report = tmp_path / "f.json"
    assert cli.main(["faults", "--json", str(report)]) == 0
    row = json.loads(report.read_text())["rows"][0]
    assert row["detection_ms"] == {"p50": 11.0, "max": 12.0}
    assert row["safe_ms"] == {"p50": 62.0, "max": 64.0}
    assert len(row["injections"]) == 3
    assert "1 of 1 inside their bounds" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("outcome", "sentence"),
    [
        (InjectionResult(75.1, 100.0), "broken: detection: 75.1 ms, more than 75"),
        (InjectionResult(10.0, 165.1), "broken: safe torque: 165.1 ms, more than 165"),
        (InjectionResult(10.0, 60.0, "the arm went on"), "broken: camera frozen: the arm went on"),
    ],
)
def test_a_broken_bound_is_said_and_is_the_exit_status(
    injected: Callable[[Inject], None],
    capsys: pytest.CaptureFixture[str],
    outcome: InjectionResult,
    sentence: str,
) -> None:
    injected(lambda *_: outcome)
    assert cli.main(["fault", "camera", "frozen"]) == 1
    out = capsys.readouterr().out
    assert sentence in out
    assert "0 of 1 inside their bounds" in out


@pytest.mark.parametrize(
    "error",
    [RobotError("no arm"), ValueError("no file"), subprocess.TimeoutExpired("gatort", 60)],
    ids=lambda e: type(e).__name__,
)
def test_a_fault_that_could_not_be_injected_does_not_count_as_survived(
    injected: Callable[[Inject], None],
    machine: type[StillMachine],
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    machine.pause_ms = 1000.0

    def fails(_: Bench, seed: int) -> InjectionResult:
        if seed == 1:
            raise error
        return GIVEN

    injected(fails)
    assert cli.main(["faults"]) == 1
    assert f"not run: {error}" in capsys.readouterr().out


def test_a_run_that_a_pause_ended_before_its_fault_is_inconclusive(
    injected: Callable[[Inject], None], machine: type[StillMachine]
) -> None:
    def ends(_: Bench, __: int) -> InjectionResult:
        raise EndedEarlyError("the run ended after 3 ticks, before the fault")

    injected(ends)
    assert cli.main(["faults"]) == 1
    machine.pause_ms = 28.0
    assert cli.main(["faults"]) == 3


def run_of(ticks: int, error: RobotError | None = None) -> Drive:
    loop = cast(ControlLoop, SimpleNamespace(refusal=None))
    tick = cast(TickRecord, SimpleNamespace(refusal=None))
    return Drive(loop, 0, 26, [(at_ns, tick) for at_ns in range(ticks)], error)


@pytest.mark.parametrize(
    "drive", [run_of(8), run_of(0), run_of(26, RobotError("the robot hung up"))]
)
def test_a_run_that_ended_early_did_not_go_on(drive: Drive) -> None:
    expected = f"expected a run of 26 ticks, found an end after {len(drive.ticks)}: the"
    with pytest.raises(EndedEarlyError, match=expected):
        drive.require_end()


def test_a_run_of_all_its_ticks_went_on() -> None:
    run_of(26).require_end()


def test_an_arm_that_does_not_come_up_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[ArmProcess] = []
    close = ArmProcess.close
    monkeypatch.setattr(ArmProcess, "close", lambda arm: (made.append(arm), close(arm)))
    monkeypatch.setattr(arm_process, "START_NS", 0)
    with pytest.raises(RobotError, match="expected the arm's process to listen"):
        ArmProcess(tmp_path / "arm")
    assert not made[0].alive
