"""Each row of the faults once: real processes, signals, sockets and files, judged by the arm's trace.

A row's judgement is in `bench.must_stop` and `bench.must_go_on`; tests/faults/test_trace.py tries what they must catch.
"""

from __future__ import annotations

import shutil

import pytest

from gatort.launch.faults.bench import (
    Bench,
    Outcome,
)
from gatort.launch.faults.rows import (
    ROWS,
    Fault,
    Row,
)
from gatort.runtime.errors import RobotError
from gatort.runtime.inner_loop import FADE_NS

SLOW = {13, 17, 18, 24}
"""Rows whose injection takes more than five seconds."""


ATTEMPTS = 3
"""A machine that takes a core away for a moment breaks a bound. `gatort faults` counts that; a test asks again."""


def _cases() -> list[object]:
    cases: list[object] = []
    for row in ROWS:
        for fault in row.faults:
            marks = [pytest.mark.slow] if row.number in SLOW else []
            cases.append(
                pytest.param(
                    row, fault, id=f"{row.number}-{fault.component}-{fault.type}", marks=marks
                )
            )
    return cases


def test_there_are_twenty_four_rows_and_no_fault_has_two_names() -> None:
    assert [row.number for row in ROWS] == list(range(1, 25))
    names = [(fault.component, fault.type) for row in ROWS for fault in row.faults]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("row", "fault"), _cases())
def test_the_arm_does_what_the_row_says_within_its_bounds(
    bench: Bench, row: Row, fault: Fault
) -> None:
    if row.number == 13 and shutil.which("gcc") is None:
        pytest.skip("no gcc to build the clock that jumps")
    for attempt in range(ATTEMPTS):
        try:
            outcome = fault.inject(bench, 7 + attempt)
        except RobotError as error:
            outcome = Outcome(wrong=str(error))
        # Being crowded explains an arm that stopped though it need not, and never one that did otherwise than it must.
        assert outcome.wrong is None or row.safe_ms is None
        if (complaint := outcome.wrong or too_late(row, outcome)) is None:
            return
    pytest.fail(complaint)


def too_late(row: Row, outcome: Outcome) -> str | None:
    """Which bound of the row was broken."""
    late = [
        f"{what} after {found} ms, at most {bound} allowed"
        for what, found, bound in (
            ("detected", outcome.detected_ms, row.detection_ms),
            ("safe", outcome.safe_ms, row.safe_ms),
        )
        if found is not None and bound is not None and not 0 <= found <= bound
    ]
    return late[0] if late else None


def test_a_fault_that_must_stop_the_arm_is_timed_to_the_safe_command(bench: Bench) -> None:
    for row in ROWS:
        if row.number in (2, 5, 8):
            outcome = row.faults[-1].inject(bench, 3)
            assert outcome.safe_ms is not None
            assert outcome.detected_ms is not None
            assert outcome.safe_ms - outcome.detected_ms >= FADE_NS * 1e-6
