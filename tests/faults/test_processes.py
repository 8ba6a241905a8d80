"""Faults of real processes, files and keys: eventual states and messages, without bounds in ms.

`wrong` holds what no lateness explains: states, torques, messages, files and exit codes. Times are
judged by `gatort faults`, which measures the machine beside them.
"""

from __future__ import annotations

import shutil

import pytest

from gatort.faults.bench import Bench
from gatort.faults.drive import EndedEarlyError
from gatort.faults.rows import ROWS, Fault

FAULTS = {fault.name: fault for row in ROWS for fault in row.faults}

REFUSALS = (
    "key wrong_robot",
    "bundle tampered",
    "configuration nan",
    "configuration unknown_key",
    "configuration no_rate",
    "configuration timeout",
)
"""Faults whose controller or command is refused; no arm moves."""
PROCESSES = (
    "key unknown",
    "session forged",
    "controller kill",
    "controller suspend",
    "robot kill",
    "disk full",
    "recorder kill",
    "cpu busy",
    "operator interrupt",
    "operator key",
    "viewer hang",
    "wall_clock jump",
)


def wrong_about(fault: Fault, bench: Bench) -> str | None:
    """A run that a busy machine ends before its fault says nothing of the fault."""
    try:
        return fault.inject(bench, 7).wrong
    except EndedEarlyError:
        return None


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_names_its_reason_and_nothing_moves(bench: Bench, name: str) -> None:
    assert wrong_about(FAULTS[name], bench) is None


@pytest.mark.parametrize("name", PROCESSES)
def test_an_arm_s_process_ends_in_the_right_state_and_says_why(bench: Bench, name: str) -> None:
    if name == "wall_clock jump" and shutil.which("gcc") is None:
        pytest.skip("no gcc to build the clock that jumps")
    assert wrong_about(FAULTS[name], bench) is None
