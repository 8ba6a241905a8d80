"""`gatort fault` and `gatort faults`: what they list, refuse and report."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

pytest.importorskip("mujoco")

from gatort.launch import cli
from gatort.launch.commands import fault
from gatort.launch.faults import bench
from gatort.launch.faults.bench import (
    ArmProcess,
    Bench,
    Drive,
    Outcome,
)
from gatort.launch.faults.rows import (
    ROWS,
    Fault,
    Row,
)
from gatort.runtime.errors import RobotError
from gatort.runtime.loop import (
    ControlLoop,
    TickRecord,
)

GIVEN = Outcome(10.0, 60.0)


def rows_of(inject: Callable[[Bench, int], Outcome]) -> tuple[Row, ...]:
    return (Row(1, "SAFE", (Fault("camera", "frozen", inject, 3),), 75, 165),)


@pytest.fixture
def injected(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Bench, int], Outcome]], None]:
    return lambda inject: monkeypatch.setattr(fault, "_rows", lambda: rows_of(inject))


def test_what_breaks_a_bound_while_the_machine_s_host_takes_the_cores_is_made_again_and_counted(
    injected: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stolen_s, outcomes = (
        iter(np.arange(100) * 0.03),
        iter([Outcome(75.1, 60.0), Outcome(10.0, 165.1), *[GIVEN] * 3]),
    )
    monkeypatch.setattr(fault, "stolen_s", lambda: next(stolen_s))
    injected(lambda _, __: next(outcomes))
    report = tmp_path / "f.json"
    assert cli.main(["faults", "--json", str(report)]) == 0
    row = json.loads(report.read_text())["rows"][0]
    assert (row["made_again"], len(row["injections"])) == (2, 3)
    assert "the machine's host took its cores (steal): 2" in capsys.readouterr().out


def test_without_arguments_every_fault_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fault"]) == 0
    listed = capsys.readouterr().out
    assert all(each.type in listed for row in ROWS for each in row.faults)


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
        (["faults", "--row", "25"], "--row 25: expected 1 to 24"),
        (["faults", "--row", "1.5"], "expected a whole number, found '1.5'"),
        (["faults", "--json", "/nowhere/f.json"], "there is no directory /nowhere"),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert cli.main(arguments) == 2
    assert sentence in capsys.readouterr().err


def test_the_report_has_the_median_and_the_longest_of_each_time(
    injected: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    injected(lambda _, seed: Outcome(10.0 + seed, 60.0 + 2 * seed))
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
        (Outcome(75.1, 100.0), "detection: 75.1 ms, more than 75"),
        (Outcome(10.0, 165.1), "safe torque: 165.1 ms, more than 165"),
        (Outcome(10.0, 60.0, "the arm went on"), "camera frozen: the arm went on"),
    ],
)
def test_a_bound_that_is_broken_is_said_and_is_the_exit_status(
    injected: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    outcome: Outcome,
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
    injected: Callable[..., None], capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def fails(_: Bench, seed: int) -> Outcome:
        if seed == 1:
            raise error
        return GIVEN

    injected(fails)
    assert cli.main(["faults"]) == 1
    assert f"not run: {error}" in capsys.readouterr().out


def run_of(ticks: int, error: RobotError | None = None) -> Drive:
    loop = SimpleNamespace(refusal=None)
    tick = cast(TickRecord, SimpleNamespace(refusal=None))
    return Drive(cast(ControlLoop, loop), 0, 26, [(at_ns, tick) for at_ns in range(ticks)], error)


@pytest.mark.parametrize(
    "drive", [run_of(8), run_of(0), run_of(26, RobotError("the robot hung up"))]
)
def test_a_run_that_ended_early_did_not_go_on(drive: Drive) -> None:
    with pytest.raises(
        RobotError, match=f"expected a run of 26 ticks, found an end after {len(drive.ticks)}: the"
    ):
        drive.require_end()


def test_a_run_of_all_its_ticks_went_on() -> None:
    run_of(26).require_end()


def test_an_arm_that_does_not_come_up_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[ArmProcess] = []
    close = ArmProcess.close
    monkeypatch.setattr(ArmProcess, "close", lambda arm: (made.append(arm), close(arm)))
    monkeypatch.setattr(bench, "START_NS", 0)
    with pytest.raises(RobotError, match="does not listen"):
        ArmProcess(tmp_path / "arm")
    assert not made[0].alive
