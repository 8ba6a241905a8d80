"""Faults of recordings (rows 17 and 18): a full disk, and a SIGKILL while recording."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from gatort.runtime.recording.reader import Recording

from .bench import Bench
from .judging import Deviation, InjectionResult, must_go_on, must_stop, seeded
from .loop_bench import MS, PERIOD_NS
from .run_process import RunProcess, children, limit_files, running

FULL_BYTES = 20_000
RECORDED_NS = 2_000 * MS
RECORDER_ENDS_NS = 30_000 * MS
"""Longest time that a recorder may outlive its controller."""


def _recorder_of(run: RunProcess) -> int:
    """Return the process that writes a run's recording."""
    for child in children(run.process.pid):
        if b"recording.process" in Path(f"/proc/{child}/cmdline").read_bytes():
            return child
    raise LookupError("the run has no recorder process")


# -- 17: a full disk -------------------------------------------------------------------------------


def disk_full(bench: Bench, _: int) -> InjectionResult:
    """The recording can grow no further: it is marked incomplete, and no tick is lost."""
    arm = bench.arm
    with running(arm.endpoint, bench.new_folder()) as run:
        armed_ns = bench.wait_for_motion(arm, run)
        limit_files(_recorder_of(run), FULL_BYTES)
        bench.wait(RECORDED_NS)
        steps = bench.stop_run(arm, run, armed_ns)

    deviation = run.losses()
    if "incomplete" not in " ".join(run.said.split()):
        said = run.said[-300:]
        deviation = Deviation(wrong=f"the run does not say that it is incomplete: {said!r}")
    return must_go_on(steps, deviation=deviation)


# -- 18: a kill while recording --------------------------------------------------------------------


def killed_while_recording(
    victim: Literal["recorder", "controller"], bench: Bench, seed: int
) -> InjectionResult:
    """SIGKILL of the process that records or drives: the file is readable to its last chunk."""
    arm = bench.arm
    with running(arm.endpoint, bench.new_folder()) as run:
        armed_ns = bench.wait_for_motion(arm, run, RECORDED_NS)
        bench.wait_within_a_tick(seeded(seed))
        recorder = _recorder_of(run)
        killed_ns = bench.clock.now_ns()
        if victim == "recorder":
            os.kill(recorder, signal.SIGKILL)
            bench.wait(10 * PERIOD_NS)
            steps = bench.stop_run(arm, run, armed_ns)
            result = must_go_on(steps, deviation=run.losses())
        else:
            run.process.send_signal(signal.SIGKILL)
            result = must_stop(arm, armed_ns, killed_ns)
            _wait_for_end(bench, recorder)

    messages = Recording(run.recording).messages()
    newest_ns = max((stamped.at_ns for stamped in messages), default=0)
    lost_ms = max(0.0, (killed_ns - newest_ns) * 1e-6)
    return replace(result, detected_ms=lost_ms)


def _wait_for_end(bench: Bench, recorder: int) -> None:
    """Wait until a recorder that outlives its controller has closed the file."""
    deadline_ns = bench.clock.now_ns() + RECORDER_ENDS_NS
    command_line = Path(f"/proc/{recorder}/cmdline")
    while bench.clock.now_ns() < deadline_ns:
        try:
            if not command_line.read_bytes():  # It has ended, and nobody has waited for it yet.
                return
        except OSError:
            return
        bench.wait(MS)


recorder_killed = partial(killed_while_recording, "recorder")
recorded_controller_killed = partial(killed_while_recording, "controller")
