"""No fault of the writing process or its disk reaches the control loop."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from tests.runtime.recording.conftest import control, messages, read_whole, sync

from gatort.runtime.clock import MonotonicClock, VirtualClock
from gatort.runtime.errors import RecordingError
from gatort.runtime.loop import TickRecord
from gatort.runtime.recording import recorder as recorder_module
from gatort.runtime.recording.messages import CHANNELS, RunRecord, StepMessage, TickMessage
from gatort.runtime.recording.reader import Recording
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.recording.tick_recorder import StepRecorder, TickRecorder
from gatort.runtime.safety import State
from gatort.runtime.spec import ModelDims, PolicySpec

PATIENCE_S = 30
"""Bound on an event that must happen sooner or later."""


def test_sequence_numbers_wrap_around_after_32_bits(path: Path, recorder: Recorder) -> None:
    recorder._sequences = [0xFFFF_FFFE] * len(CHANNELS)  # 49 days of inner steps
    for at_ns in range(3):
        recorder.add(at_ns, StepMessage(state="run", values=[0.0]))
    recorder.close("done")
    assert [each.sequence for each in Recording(path).messages()] == [0xFFFF_FFFF, 0, 1]


def test_a_file_that_cannot_be_opened_is_refused_in_one_sentence(
    tmp_path: Path, spec: PolicySpec, clock: VirtualClock
) -> None:
    with pytest.raises(
        RecordingError, match=r"cannot write .*/no/x\.mcap: No such file or directory"
    ):
        Recorder(tmp_path / "no" / "x.mcap", RunRecord.of("scripted", spec, "", clock))


def test_an_existing_recording_is_never_replaced_not_even_by_a_run_beside_it(
    path: Path, spec: PolicySpec, clock: VirtualClock
) -> None:
    run = RunRecord.of("scripted", spec, "", clock)
    with Recorder(path, run) as first:
        with pytest.raises(RecordingError, match=r"cannot write .*run\.mcap: File exists"):
            Recorder(path, run)
        first.close("done")
    assert first.complete
    with pytest.raises(RecordingError, match="File exists"):
        Recorder(path, run)
    assert Recording(path).incomplete is None


def test_a_process_that_does_not_start_is_refused_and_leaves_nothing_open(
    path: Path, spec: PolicySpec, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/python")
    descriptors = Path("/proc/self/fd")
    before = set(descriptors.iterdir())
    with pytest.raises(
        RecordingError,
        match=r"run\.mcap: the recorder process did not start: .*No such .*/no/python",
    ):
        Recorder(path, RunRecord.of("scripted", spec, "", clock))
    assert set(descriptors.iterdir()) == before


def test_a_process_that_ends_at_once_is_refused_in_one_sentence(
    path: Path, spec: PolicySpec, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with pytest.raises(
        RecordingError, match=r"^cannot record .*run\.mcap: the recorder process did not start: ."
    ):
        Recorder(path, RunRecord.of("scripted", spec, "", clock))


def test_a_full_disk_degrades_the_recorder_and_costs_no_tick(
    spec: PolicySpec, dims: ModelDims, clock: VirtualClock
) -> None:
    loop = control(spec, dims, clock)
    with Recorder(Path("/dev/full"), RunRecord.of("scripted", spec, "", clock)) as recorder:
        assert loop.run(10, TickRecorder(recorder, loop)) == 10
        recorder.close("done")
    assert loop.telemetry.refused == 0
    assert recorder.degraded == "cannot write /dev/full: No space left on device"
    assert not recorder.complete


def test_a_disk_that_fills_up_leaves_every_chunk_that_fitted(
    spec: PolicySpec, dims: ModelDims, clock: VirtualClock, path: Path
) -> None:
    loop = control(spec, dims, clock)
    recorder = Recorder(path, RunRecord.of("scripted", spec, "", clock))
    record = TickRecorder(recorder, loop)
    resource.prlimit(recorder._process.pid, resource.RLIMIT_FSIZE, (10_000, 10_000))

    def record_and_sync(tick: TickRecord) -> None:
        record(tick)
        if recorder.degraded is None:
            sync(recorder)

    assert loop.run(50, record_and_sync) == 50
    recorder.close("done")
    assert loop.telemetry.refused == 0
    assert recorder.degraded == f"cannot write {path}: File too large"
    recording = read_whole(path)
    assert 0 < recording.counts["/tick"] < 50
    assert recording.incomplete == "the file was cut off after a whole chunk"


def test_the_death_of_the_process_costs_no_tick_and_nothing_that_was_synced(
    spec: PolicySpec, dims: ModelDims, clock: VirtualClock, path: Path
) -> None:
    loop = control(spec, dims, clock)
    recorder = Recorder(path, RunRecord.of("scripted", spec, "", clock))
    record = TickRecorder(recorder, loop)

    def kill_after_tick_19(tick: TickRecord) -> None:
        record(tick)
        if tick.wake.tick == 19:
            sync(recorder)
            wait_for_tick(path, 19)
            recorder._process.kill()
            recorder._process.wait(PATIENCE_S)

    assert loop.run(35, kill_after_tick_19) == 35
    recorder.close("done")
    assert loop.telemetry.refused == 0
    assert recorder.degraded == "the recorder process ended"
    assert recorder.dropped > 0
    assert messages(path, TickMessage)[-1].tick == 19
    assert (read_whole(path).incomplete or "").startswith("the file was cut off")


def wait_for_tick(path: Path, number: int) -> None:
    clock = MonotonicClock()
    end_ns = clock.now_ns() + PATIENCE_S * 10**9
    while clock.now_ns() < end_ns:
        with suppress(RecordingError):  # The file's beginning is not there yet.
            if any(tick.tick == number for tick in messages(path, TickMessage)):
                return
        clock.sleep_until_ns(clock.now_ns() + 10_000_000)
    raise TimeoutError(f"{path}: expected tick {number} within {PATIENCE_S} s")


def test_signals_that_end_a_session_do_not_end_the_process(
    path: Path, recorder: Recorder, spec: PolicySpec, dims: ModelDims, clock: VirtualClock
) -> None:
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(recorder._process.pid, each)
    loop = control(spec, dims, clock)
    loop.run(5, TickRecorder(recorder, loop))
    recorder.close("done")
    assert recorder.complete
    assert read_whole(path).incomplete is None


def test_the_sender_drops_and_counts_and_never_waits_for_a_stopped_process(
    path: Path, spec: PolicySpec, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 20_000  # more than the link holds
    monkeypatch.setattr(recorder_module, "_LINK_BYTES", 1 << 14)
    recorder = Recorder(path, RunRecord.of("scripted", spec, "a machine", clock))
    os.kill(recorder._process.pid, signal.SIGSTOP)
    try:
        step = StepRecorder(recorder)
        for at_ns in range(steps):
            step(at_ns, State.RUN, np.zeros(3))
        assert recorder.degraded == "the recorder process fell behind"
        assert 0 < recorder.dropped < steps
    finally:  # A stopped process would outlive the tests, and obeys no SIGTERM.
        os.kill(recorder._process.pid, signal.SIGCONT)
        recorder.close("done")
    recording = read_whole(path)
    assert recording.counts["/step"] + recorder.dropped == steps
    assert recording.outcome is not None
    assert (recording.outcome.complete, recording.outcome.dropped) == (False, recorder.dropped)
    assert recording.incomplete == "the recorder process fell behind"


CONTROLLER = """
import sys
from contextlib import suppress
from pathlib import Path
from tests.runtime.recording.conftest import control
from gatort.runtime.clock import VirtualClock
from gatort.runtime.recording.messages import RunRecord
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.recording.tick_recorder import TickRecorder
from gatort.runtime.spec import ModelDims, PolicySpec

spec, dims = PolicySpec.model_validate_json(sys.argv[2]), ModelDims.model_validate_json(sys.argv[3])
clock = VirtualClock()
loop = control(spec, dims, clock)
recorder = Recorder(Path(sys.argv[1]), RunRecord.of("scripted", spec, "", clock))
loop.run(16, TickRecorder(recorder, loop))
print("sent", flush=True)
sys.stdin.read()
"""


def test_sigkill_of_the_controller_loses_nothing_that_was_sent(
    path: Path, spec: PolicySpec, dims: ModelDims
) -> None:
    arguments = [str(path), spec.model_dump_json(), dims.model_dump_json()]
    with subprocess.Popen(
        [sys.executable, "-c", CONTROLLER, *arguments],
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as controller:
        assert controller.stdout is not None
        assert controller.stdout.readline() == "sent\n"
        controller.kill()
        # The recorder process holds standard error too, so this waits until it has finished.
        _, complaints = controller.communicate(timeout=PATIENCE_S)

    assert complaints == ""
    assert [each.tick for each in messages(path, TickMessage)] == list(range(16))
    recording = read_whole(path)
    assert recording.finished
    assert recording.incomplete == "the recording program ended without closing the file"
