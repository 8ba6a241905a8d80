"""Eight faults of a Franka arm on franka-sim: real processes, real signals, Franka's own protocol.

They judge orders of states, torques, errors and sentences, and no times.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.waiting import eventually

from gatort.faults.drive import BenchFailedError
from gatort.faults.franka.bench import FrankaBench
from gatort.faults.franka.rows import FRANKA_ROWS
from gatort.faults.franka.simulator import DEFAULT_PYTHON, LISTENS
from gatort.faults.injecting import inject
from gatort.faults.rows import Row
from gatort.faults.run_process import children
from gatort.launch import cli

pytest.importorskip("mujoco")
PYTHON = Path(__file__).parents[2] / DEFAULT_PYTHON
EIGHT_CASES = [row for row in FRANKA_ROWS if row.number not in (5, 8)]
"""Rows without those that need no franka-sim, or a quiet machine."""


@pytest.fixture(scope="module")
def python() -> Path:
    if not PYTHON.is_file():
        pytest.skip("franka-sim is not installed: run `make .venv-franka-sim/.installed`")
    return PYTHON


@pytest.fixture(scope="module")
def bench(python: Path) -> Iterator[FrankaBench]:
    with FrankaBench(python) as bench:
        yield bench


@pytest.fixture
def starter(python: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has started franka-sim. A machine has room for one: use it before `bench`."""
    command = [sys.executable, "-m", "gatort.faults.franka.simulator"]
    with subprocess.Popen(
        command,
        cwd=python.parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert "Ctrl-C ends it" in process.stdout.readline()
        yield process
        process.kill()


def test_franka_sim_ends_with_the_process_that_started_it(starter: subprocess.Popen[str]) -> None:
    starter.kill()
    starter.wait()
    eventually(lambda: LISTENS not in Path("/proc/net/tcp").read_text())


def test_the_end_of_franka_sim_is_said_with_its_status(starter: subprocess.Popen[str]) -> None:
    (simulator,) = children(starter.pid)
    os.kill(simulator, signal.SIGKILL)
    _, said = starter.communicate()
    assert starter.returncode == 2
    assert said.startswith("gatort: franka-sim ended with status -9: ")


@pytest.mark.parametrize(
    ("row", "index"),
    [
        pytest.param(row, index, id=fault.name)
        for row in EIGHT_CASES
        for index, fault in enumerate(row.faults)
    ],
)
def test_a_fault_of_a_franka_arm_ends_as_its_row_says(
    bench: FrankaBench, row: Row, index: int
) -> None:
    result = row.faults[index].inject(bench, 0)
    assert (result.wrong, result.late) == (None, None)


def fall_silent(bench: FrankaBench) -> None:
    """Suspend franka-sim while an arm is at rest, and wait until its process ends."""
    with bench.arm() as arm:
        assert bench._simulator is not None
        os.kill(bench._simulator.process.pid, signal.SIGSTOP)
        arm.wait_until(lambda: False)


def test_a_simulator_that_falls_silent_is_a_failure_of_the_bench(bench: FrankaBench) -> None:
    silent = re.compile("franka-sim fell silent: .*link to the arm was lost", re.DOTALL)
    with pytest.raises(BenchFailedError, match=silent):
        fall_silent(bench)


def test_an_arm_of_another_protocol_needs_no_simulator_to_be_refused() -> None:
    (row,) = [row for row in FRANKA_ROWS if row.number == 5]
    chosen = ((row, row.faults),)
    report = inject(chosen, 0, lambda _, __: None, lambda: FrankaBench(Path("absent")))
    assert report.count("held") == 1


def test_without_franka_sim_the_command_that_installs_it_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["faults", "--robot", "franka", "--franka-sim", "absent"]) == 2
    assert "run `make .venv-franka-sim/.installed`" in capsys.readouterr().err


def test_the_rows_are_numbered_and_no_fault_has_two_names() -> None:
    assert [row.number for row in FRANKA_ROWS] == list(range(1, 9))
    names = [fault.name for row in FRANKA_ROWS for fault in row.faults]
    assert len(set(names)) == len(names)
    assert sum(len(row.faults) for row in EIGHT_CASES) == 8
