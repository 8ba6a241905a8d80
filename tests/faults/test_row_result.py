"""The verdict on a row: held, broken, or explained by a pause of the machine."""

from __future__ import annotations

import pytest

from gatort.faults.fault_report import FaultReport
from gatort.faults.judging import InjectionResult
from gatort.faults.row_result import EXPLAINING_MS, RowResult
from gatort.faults.rows import Fault, Row
from gatort.runtime.witness import WitnessReport

FAULT = Fault("camera", "frozen", lambda _, __: InjectionResult(), 3)
ROW = Row(1, "SAFE", (FAULT,), 75, 165)


def witness(pause_ms: float) -> WitnessReport:
    return WitnessReport(
        periods=100, work_ms=4.0, p50_ms=4.0, p99_ms=4.0 + pause_ms, max_ms=4.0 + pause_ms
    )


def row_result(*injections: InjectionResult, pause_ms: float = 0.0) -> RowResult:
    return RowResult(ROW, tuple((FAULT, each) for each in injections), witness(pause_ms))


def test_a_row_inside_its_bounds_holds_on_any_machine() -> None:
    result = row_result(InjectionResult(75.0, 165.0), pause_ms=28)
    assert (result.verdict, result.broken, result.inconclusive) == ("held", [], [])


@pytest.mark.parametrize(
    ("injection", "sentence"),
    [
        (InjectionResult(80.1, 100.0), "detection: 80.1 ms, more than 75"),
        (InjectionResult(10.0, 170.1), "safe torque: 170.1 ms, more than 165"),
    ],
)
def test_a_late_time_is_broken_unless_a_pause_as_long_as_the_excess_was_seen(
    injection: InjectionResult, sentence: str
) -> None:
    quiet = row_result(injection, pause_ms=5.0)
    assert (quiet.verdict, quiet.broken) == ("broken", [sentence])
    paused = row_result(injection, pause_ms=5.2)
    assert (paused.verdict, paused.broken, paused.inconclusive) == ("inconclusive", [], [sentence])


def test_a_state_that_only_lateness_brings_needs_a_pause_of_the_command_s_margin() -> None:
    late = InjectionResult(10.0, None, late="expected the arm in run, found run, hold, run")
    assert EXPLAINING_MS == 10
    assert row_result(late, pause_ms=9.9).verdict == "broken"
    assert row_result(late, pause_ms=10.0).verdict == "inconclusive"


def test_what_no_lateness_explains_is_broken_however_long_the_machine_pauses() -> None:
    wrong = InjectionResult(10.0, 60.0, "a value in effect was out of its range")
    result = row_result(wrong, InjectionResult(80.0, 60.0), pause_ms=1000)
    assert result.verdict == "broken"
    assert result.broken == ["camera frozen: a value in effect was out of its range"]
    assert result.inconclusive == ["detection: 80.0 ms, more than 75"]


def test_a_failure_of_the_bench_is_inconclusive_on_any_machine_and_hides_nothing_wrong() -> None:
    failed = InjectionResult(unmeasured="franka-sim fell silent")
    result = row_result(failed, InjectionResult(10.0, 60.0))
    assert result.verdict == "inconclusive"
    assert result.inconclusive == ["camera frozen: franka-sim fell silent"]
    assert row_result(failed, InjectionResult(wrong="a jump")).verdict == "broken"


def test_without_a_witness_nothing_is_explained() -> None:
    result = RowResult(ROW, ((FAULT, InjectionResult(75.1, 60.0)),))
    assert result.verdict == "broken"


@pytest.mark.parametrize(
    ("results", "status"),
    [
        ([InjectionResult(10.0, 60.0)], 0),
        ([InjectionResult(10.0, 60.0), InjectionResult(76.0, 60.0)], 3),
        ([InjectionResult(10.0, 60.0, "wrong"), InjectionResult(76.0, 60.0)], 1),
    ],
)
def test_the_exit_status_tells_broken_from_inconclusive(
    results: list[InjectionResult], status: int
) -> None:
    rows = tuple(row_result(each, pause_ms=2.0) for each in results)
    assert FaultReport(rows, witness(2.0)).status == status
