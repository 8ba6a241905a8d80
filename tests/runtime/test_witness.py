"""The computing witness on a virtual clock that pauses, and its process without bounds on time."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from gatort.runtime.clock import MonotonicClock, VirtualClock
from gatort.runtime.errors import GatortError
from gatort.runtime.witness import (
    CALIBRATIONS,
    PERIOD_NS,
    WORK_NS,
    Witness,
    WitnessReport,
    calibrated_work,
)
from gatort.runtime.witness_process import WitnessProcess

MS = 1_000_000


class Paused:
    """Work of 4 ms on a virtual clock that a hypervisor pauses at some of its calls."""

    def __init__(self, pauses_ms: dict[int, int]) -> None:
        self.clock, self.calls, self.pauses_ms = VirtualClock(), 0, pauses_ms
        self.began_ns: list[int] = []

    def __call__(self) -> None:
        self.began_ns.append(self.clock.now_ns())
        self.clock.advance_ns((4 + self.pauses_ms.get(self.calls, 0)) * MS)
        self.calls += 1


def test_work_that_nothing_pauses_takes_as_long_every_time() -> None:
    work = Paused({})
    report = Witness(work.clock, work).observe(2.0)
    assert report == WitnessReport(periods=40, work_ms=4.0, p50_ms=4.0, p99_ms=4.0, max_ms=4.0)
    assert report.pause_ms == 0


def test_the_longest_pause_is_reported_in_words_and_numbers() -> None:
    work = Paused({3: 11, 7: 28})
    report = Witness(work.clock, work).observe(10.0)
    assert report.pause_ms == 28
    assert report.max_ms == 32
    assert report.p50_ms == 4
    assert report.sentence == "this machine paused a 4.0 ms computation for 28 ms"


def test_the_work_is_done_once_a_period() -> None:
    work = Paused({})
    Witness(work.clock, work).observe(1.0)
    assert set(np.diff(work.began_ns)) == {PERIOD_NS}


def test_a_pause_longer_than_a_period_moves_the_periods_and_none_is_caught_up() -> None:
    work = Paused({1: 120})
    Witness(work.clock, work).observe(0.3)
    assert np.diff(work.began_ns).tolist() == [50 * MS, 124 * MS, 50 * MS, 50 * MS, 50 * MS]


def test_the_work_is_repeated_until_it_takes_about_four_milliseconds() -> None:
    class Ticking(VirtualClock):
        """Each reading of the clock takes a millisecond, and with it each calibration."""

        def now_ns(self) -> int:
            self.advance_ns(MS)
            return super().now_ns()

    clock = Ticking()
    calibrated_work(clock)
    assert clock.now_ns() == (2 * CALIBRATIONS + 1) * MS
    assert WORK_NS == 4 * MS


def test_a_witness_beside_a_measurement_reports_the_stretch_of_time_that_is_asked_for() -> None:
    clock = MonotonicClock()
    with WitnessProcess() as witness:
        began_ns = clock.now_ns()
        while (report := witness.between(began_ns, clock.now_ns())) is None:
            clock.sleep_until_ns(clock.now_ns() + MS)
        assert report.periods >= 1
        assert report.work_ms > 0
        assert witness.between(0, 1) is None


def test_the_witness_ends_with_the_process_that_started_it() -> None:
    script = (
        "from gatort.runtime.witness_process import WitnessProcess\n"
        "import os\n"
        "witness = WitnessProcess().__enter__()\n"
        "print(witness._process.pid, flush=True)\n"
        "os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    clock = MonotonicClock()
    deadline_ns = clock.now_ns() + 30_000 * MS
    while os.path.exists(f"/proc/{int(done.stdout)}") and clock.now_ns() < deadline_ns:  # noqa: PTH110
        if _is_zombie(int(done.stdout)):
            return
        clock.sleep_until_ns(clock.now_ns() + MS)
    assert clock.now_ns() < deadline_ns


def _is_zombie(pid: int) -> bool:
    """Return true if an ended process waits for its parent, as in a container without init."""
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
            return stat.read().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return False


def test_a_witness_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with pytest.raises(GatortError, match="expected the witness's process to compute"):
        WitnessProcess().__enter__()
