"""The table of faults, and each row of the control loop on a virtual clock.

Loop, guard, link, inner loop and arm are the real ones, and so is the code that injects and judges.
Only the clock is virtual, so the recorded trace is the same to the nanosecond on every machine.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gatort.faults.loop_bench import TICKS, LoopBench
from gatort.faults.operator_stop import stop_while_driving
from gatort.faults.rows import ROWS, Fault, Row
from gatort.faults.sensors import good_ticks
from gatort.faults.trace import Excerpt
from gatort.runtime.inner_loop import FADE_NS
from gatort.runtime.safety import State

MS = 1_000_000
PERIOD_MS = 50
RUN, HOLD, SAFE, LATCHED = State.RUN, State.HOLD, State.SAFE, State.LATCHED

Changes = list[tuple[State, float]]
"""States with the instants at which they begin, in ms after the tick of the fault."""

BY_GUARD: Changes = [(HOLD, 36), (SAFE, 50), (LATCHED, 90)]
"""The guard refuses two ticks: SAFE at the second one."""
BY_WATCHDOG: Changes = [(HOLD, 36), (SAFE, 70), (LATCHED, 110)]
"""No command comes: SAFE 95 ms after the last one took effect, 25 ms before the fault's tick."""
HELD_ONCE: Changes = [(HOLD, 36), (RUN, 75)]
"""One command is missing, and the next one takes effect 25 ms after its tick."""
GOES_ON: Changes = []

EXPECTED: dict[str, Changes] = {
    "camera frozen": BY_GUARD,
    "camera absent": BY_GUARD,
    "joint_state frozen": BY_GUARD,
    "joint_state absent": BY_GUARD,
    "joint_state nan": BY_GUARD,
    "joint_state inf": BY_GUARD,
    "joint_state jump": BY_GUARD,
    "policy late": HELD_ONCE,
    "policy hang": BY_WATCHDOG,
    "policy nan": BY_GUARD,
    "policy illegal_token": BY_GUARD,
    "torque range": GOES_ON,
    "torque rate": GOES_ON,
    "torque nan": BY_GUARD,
    "torque inf": BY_GUARD,
    # Its first bad command is limited and takes effect: the watchdog's times begin a tick later.
    "torque unguarded": [(HOLD, 86), (SAFE, 120), (LATCHED, 160)],
    "link loss_once": HELD_ONCE,
    "link loss": BY_WATCHDOG,
    "link repeat": GOES_ON,
    "policy raise": [(SAFE, 0), (LATCHED, 40)],
}
LOGIC_ROWS = {1, 2, 3, 4, 5, 6, 7, 8, 9, 19}


ENVELOPE_ROWS = {25, 26, 28, 29, 30, 31}
"""Rows whose instants follow from the motion of the arm, and not from the fault alone."""
UNIT_ROW = 32


def faults_of(rows: set[int]) -> list[tuple[Row, Fault]]:
    return [(row, fault) for row in ROWS if row.number in rows for fault in row.faults]


def every_fault_of(rows: set[int]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("row", "fault"),
        faults_of(rows),
        ids=lambda each: each.name if isinstance(each, Fault) else str(each.number),
    )


def steps_since_armed(bench: LoopBench, began_ns: int) -> Excerpt:
    steps = bench.arm.trace.since(began_ns)
    return steps.since(steps.first(RUN) or began_ns)


def end_of_run(fault: Fault, good: int) -> Changes:
    """A run that nothing stops is stopped by its controller at its last tick."""
    ticks = good if fault.name == "link repeat" else TICKS
    stopped_ms = PERIOD_MS * (ticks - 1 - good)
    return [(SAFE, stopped_ms), (LATCHED, stopped_ms + FADE_NS / MS)]


def test_the_rows_are_numbered_and_no_fault_has_two_names() -> None:
    assert [row.number for row in ROWS] == list(range(1, 33))
    names = [fault.name for row in ROWS for fault in row.faults]
    assert len(set(names)) == len(names)


def test_every_fault_of_the_logic_rows_has_an_expected_trace() -> None:
    assert {fault.name for _, fault in faults_of(LOGIC_ROWS)} == set(EXPECTED)


@pytest.mark.parametrize("seed", [0, 7])
@every_fault_of(LOGIC_ROWS)
def test_the_arm_s_states_begin_exactly_when_the_row_says(
    virtual_bench: LoopBench, row: Row, fault: Fault, seed: int
) -> None:
    began_ns = virtual_bench.clock.now_ns()
    result = fault.inject(virtual_bench, seed)
    assert (result.wrong, result.late) == (None, None)

    good = good_ticks(seed)
    expected = EXPECTED[fault.name]
    if expected in (HELD_ONCE, GOES_ON):
        expected = expected + end_of_run(fault, good)
    steps = steps_since_armed(virtual_bench, began_ns)
    fault_ns = steps.taken_ns[0] + good * PERIOD_MS * MS
    found = [(state, (at_ns - fault_ns) / MS) for state, at_ns in steps.changes]
    assert found == [(RUN, -good * PERIOD_MS), *expected]


@every_fault_of(LOGIC_ROWS | ENVELOPE_ROWS)
def test_every_row_is_inside_its_bounds_and_its_torques_within_range_and_rate(
    virtual_bench: LoopBench, row: Row, fault: Fault
) -> None:
    began_ns = virtual_bench.clock.now_ns()
    result = fault.inject(virtual_bench, 3)
    for found_ms, bound_ms in (
        (result.detected_ms, row.detection_ms),
        (result.safe_ms, row.safe_ms),
    ):
        assert found_ms is None or bound_ms is None or 0 <= found_ms <= bound_ms

    steps = steps_since_armed(virtual_bench, began_ns)
    assert steps.fault() is None
    assert np.abs(steps.values).max() > 1  # It moved before the fault.
    assert steps.safe_ns is not None


def test_an_arm_that_reports_degrees_is_refused_and_never_armed(virtual_bench: LoopBench) -> None:
    began_ns = virtual_bench.clock.now_ns()
    ((_, fault),) = faults_of({UNIT_ROW})
    result = fault.inject(virtual_bench, 0)
    assert result.wrong is None
    assert virtual_bench.arm.trace.since(began_ns).first(RUN) is None


@every_fault_of({25, 29, 30})
def test_wrong_readings_of_the_joints_leave_the_arm_itself_as_it_is(
    virtual_bench: LoopBench,
    row: Row,  # one mark names both
    fault: Fault,
) -> None:
    fault.inject(virtual_bench, 0)
    moment = virtual_bench.arm._driver.moment()  # type: ignore[attr-defined]  # of the virtual arm
    assert np.isfinite(moment.arm.joint_velocity).all()
    assert abs(moment.arm.joint_position[0]) < 0.5  # A spoiled reading lies at the joint's stop.


def test_one_seed_gives_the_same_trace_to_the_last_bit(
    make_virtual_bench: Callable[[], LoopBench],
) -> None:
    fault = next(fault for _, fault in faults_of(LOGIC_ROWS) if fault.name == "link loss_once")
    values = []
    for _ in range(2):
        bench = make_virtual_bench()
        fault.inject(bench, 4)
        values.append(bench.arm.trace.since(0).values)
    assert np.array_equal(*values)


@pytest.mark.parametrize("seed", range(5))
def test_a_stop_at_the_arm_s_own_console_fades_from_that_instant_on(
    virtual_bench: LoopBench, seed: int
) -> None:
    began_ns = virtual_bench.clock.now_ns()
    arm = virtual_bench.arm
    with virtual_bench.controller(arm) as robot:
        result = stop_while_driving(virtual_bench, arm, robot, lambda: arm.press(b" "), seed)
    assert (result.wrong, result.late) == (None, None)
    assert result.detected_ms is not None
    assert result.safe_ms is not None
    assert 0 <= result.detected_ms <= 1  # The next inner step.
    assert result.safe_ms - result.detected_ms == pytest.approx(FADE_NS / MS, abs=1)
    assert steps_since_armed(virtual_bench, began_ns).sequence == [RUN, SAFE, LATCHED]
