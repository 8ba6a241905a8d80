"""A recording: what was given comes back to the bit, in any MCAP reader; no fault of the writer reaches the loop."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Any

import msgspec
import numpy as np
import pytest
from mcap.reader import make_reader
from mcap.well_known import MessageEncoding
from mcap.writer import Writer
from numpy.typing import NDArray

from gatort.runtime.clock import (
    MonotonicClock,
    VirtualClock,
)
from gatort.runtime.engines.engine import ScriptedEngine
from gatort.runtime.errors import RecordingError
from gatort.runtime.loop import (
    ControlLoop,
    TickRecord,
)
from gatort.runtime.policy import Policy
from gatort.runtime.recording import recorder as recorder_module
from gatort.runtime.recording.process import (
    _MOST_WAITING_BYTES,
    _Packets,
    _receive,
)
from gatort.runtime.recording.reader import (
    CHANNELS,
    CommandMessage,
    FaultMessage,
    ObservationMessage,
    PromptMessage,
    Recording,
    RunRecord,
    StateMessage,
    StepMessage,
    TickMessage,
    TokensMessage,
    arrays,
    field_names,
    numbers,
    to_metadata,
)
from gatort.runtime.recording.recorder import (
    Recorder,
    StepRecorder,
    TickRecorder,
)
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.safety import State
from gatort.runtime.spec import (
    FIRST_CONTINUOUS_ID,
    ModelDims,
    PolicySpec,
)

MS = 1_000_000
TOKENS = [FIRST_CONTINUOUS_ID + index for index in (512, 700, 300)]
Read = Callable[[int], list[NDArray[Any]]]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(1_000 * MS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.mcap"


@pytest.fixture
def recorder(path: Path, spec: PolicySpec, clock: VirtualClock) -> Iterator[Recorder]:
    with Recorder(path, RunRecord.of("scripted", spec, "a machine", clock)) as made:
        yield made


def messages(path: Path, kind: type) -> list[Any]:
    return [each.message for each in Recording(path).messages() if isinstance(each.message, kind)]


def read_whole(path: Path) -> Recording:
    recording = Recording(path)
    for _ in recording.messages():
        pass
    return recording


def control(
    spec: PolicySpec,
    dims: ModelDims,
    clock: VirtualClock | MonotonicClock,
    read: Read | None = None,
) -> ControlLoop:
    policy = Policy.of(spec, dims, ScriptedEngine(TOKENS))
    return policy.control(ScriptedRobot(spec, clock, read), clock)


def random_values(spec: PolicySpec, seed: int) -> list[NDArray[Any]]:
    random = np.random.default_rng(seed)
    return [
        random.normal(size=key.shape).astype(np.float32)
        if key.dtype == "float32"
        else random.integers(0, 256, key.shape, key.dtype)
        for key in spec.observations
    ]


# -- What is in it ---------------------------------------------------------------------------------------------------


def test_every_kind_of_observation_comes_back_to_the_bit(
    every_encoding_spec: PolicySpec, dims: ModelDims, clock: VirtualClock, path: Path
) -> None:
    spec = every_encoding_spec
    wide = dims.model_copy(update={"first_token_id": 0})
    loop = control(spec, wide, clock, lambda sequence: random_values(spec, sequence))
    with Recorder(path, RunRecord.of("scripted", spec, "", clock)) as recorder:
        loop.run(5, TickRecorder(recorder, loop))
        recorder.close("done")
    found = messages(path, ObservationMessage)
    assert [each.tick for each in found] == [0, 1, 2, 3, 4]
    for message in found:
        given = random_values(spec, message.sequence)
        for array, expected in zip(arrays(message.values, spec.observations), given, strict=True):
            assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
            assert array.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_survive_to_the_bit_those_that_json_has_no_word_for_too(dtype: type) -> None:
    info = np.finfo(dtype)
    values = np.array(
        [0.1, -0.0, info.max, info.smallest_subnormal, np.pi, np.nan, np.inf, -np.inf], dtype
    )
    text = msgspec.json.encode(StepMessage(state="run", values=numbers(values)))
    assert json.loads(text)["values"][-3:] == ["NaN", "Infinity", "-Infinity"]
    back = msgspec.json.decode(text, type=StepMessage, strict=False)
    assert np.array(back.values, dtype).tobytes() == values.tobytes()


def test_an_observation_refused_for_its_nan_is_recorded_with_it_and_why(
    spec: PolicySpec, dims: ModelDims, clock: VirtualClock, path: Path, recorder: Recorder
) -> None:
    def values(sequence: int) -> list[NDArray[Any]]:
        positions, velocities = random_values(spec, 0)
        velocities[1] = np.nan if sequence == 4 else 0.0
        return [positions, velocities]

    loop = control(spec, dims, clock, values)
    loop.run(4, TickRecorder(recorder, loop))
    recorder.close("done")
    _, velocities = arrays(messages(path, ObservationMessage)[2].values, spec.observations)
    assert np.isnan(velocities).tolist() == [False, True]
    tick = messages(path, TickMessage)[2]
    assert tick.reason == "observation refused"
    assert "arm/velocity: expected finite values" in tick.refusal
    assert [each.sentence for each in messages(path, FaultMessage)] == [tick.refusal]
    assert [each.tick for each in messages(path, TokensMessage)] == [0, 1, 3]
    assert [(each.guard, each.robot) for each in messages(path, StateMessage)][:2] == [
        ("run", "run"),
        ("hold", "run"),
    ]


def test_an_observation_that_lacks_an_array_is_recorded_as_far_as_it_goes_and_the_run_goes_on(
    spec: PolicySpec, dims: ModelDims, clock: VirtualClock, path: Path, recorder: Recorder
) -> None:
    loop = control(
        spec, dims, clock, lambda sequence: random_values(spec, 0)[: 1 if sequence == 4 else 2]
    )
    assert loop.run(4, TickRecorder(recorder, loop)) == 4
    recorder.close("done")
    lacking = messages(path, ObservationMessage)[2]
    with pytest.raises(RecordingError, match="arm/velocity: expected 2 recorded values, found 0"):
        arrays(lacking.values, spec.observations)
    assert [bool(tick.refusal) for tick in messages(path, TickMessage)] == [
        False,
        False,
        True,
        False,
    ]


def test_a_command_goes_from_asked_through_limited_to_applied(
    spec: PolicySpec, dims: ModelDims, clock: VirtualClock, path: Path, recorder: Recorder
) -> None:
    sent = []
    loop = control(spec, dims, clock)

    def look(tick: TickRecord) -> None:
        sent.append((tick, recorded(tick)))

    recorded = TickRecorder(recorder, loop)
    loop.run(3, look)
    recorder.close("done")
    for message, (tick, _) in zip(messages(path, CommandMessage), sent, strict=True):
        assert message.asked == tick.decision.action.tolist()
        assert message.limited == tick.command.values.tolist()
        assert message.applied == tick.observation.applied.tolist()
        assert message.apply_at_ns == tick.observation.stamp_ns + spec.action_delay_ns
    tokens = messages(path, TokensMessage)
    assert [(each.frame, each.slot, each.completed) for each in tokens] == [
        (0, 0, True),
        (1, 1, True),
        (2, 2, True),
    ]
    assert [each.raw for each in tokens] == [each.sampled for each in tokens] == [TOKENS] * 3


def test_any_mcap_reader_finds_channels_with_schemas_and_messages_that_keep_to_them(
    every_encoding_spec: PolicySpec, dims: ModelDims, clock: VirtualClock, path: Path
) -> None:
    spec = every_encoding_spec
    loop = control(spec, dims.model_copy(update={"first_token_id": 0}), clock)
    with Recorder(path, RunRecord.of("scripted", spec, "", clock)) as recorder:
        loop.run(3, TickRecorder(recorder, loop))
        recorder.close("done")
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        assert [each.name for each in reader.iter_metadata()] == ["run", "outcome"]
        offset_ns = Recording(path).run.wall_clock_offset_ns
        count = 0
        for schema, channel, message in reader.iter_messages():
            assert schema is not None
            assert (schema.encoding, channel.message_encoding) == ("jsonschema", "json")
            check(json.loads(message.data), json.loads(schema.data))
            assert message.log_time - offset_ns in [
                clock.now_ns() - back * 50 * MS for back in range(3)
            ]
            count += 1
    assert count == sum(read_whole(path).counts.values()) == 13


def check(value: Any, schema: dict[str, Any]) -> None:
    """Hold a value against the subset of JSON Schema that viewers read: one type a field, lists of scalars."""
    types = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
    }
    assert isinstance(value, types[schema["type"]])
    if isinstance(value, dict):
        assert set(schema.get("required", [])) <= value.keys() <= schema["properties"].keys()
        assert all(name.replace("_", "").isalnum() for name in value)
        for name, inner in value.items():
            check(inner, schema["properties"][name])
    if isinstance(value, list):
        assert schema["items"]["type"] in ("number", "integer", "string")
        for inner in value:
            check(inner, schema["items"])


def test_keys_whose_names_differ_only_in_punctuation_keep_fields_of_their_own(
    spec: PolicySpec,
) -> None:
    position = spec.observations[0]
    keys = [position.model_copy(update={"name": name}) for name in ("a/b", "a_b", "a b", "ä")]
    assert field_names(keys) == ["a_b", "a_b_", "a_b__", "_"]


def test_a_robots_inner_loop_is_recorded_step_by_step(
    spec: PolicySpec, clock: VirtualClock, path: Path, recorder: Recorder
) -> None:
    seen: list[tuple[int, State, list[float]]] = []
    robot, record = ScriptedRobot(spec, clock), StepRecorder(recorder)

    def on_step(at_ns: int, state: State, values: NDArray[np.float64]) -> None:
        seen.append((at_ns, state, values.tolist()))
        record(at_ns, state, values)

    robot.on_step = on_step
    robot.arm()
    clock.advance_ns(333 * MS)  # through HOLD and SAFE to LATCHED
    robot.observe()
    recorder.close("done")
    trace = Recording(path).steps()
    assert {State.RUN, State.HOLD, State.SAFE, State.LATCHED} <= set(trace.states)
    assert list(zip(trace.at_ns.tolist(), trace.states, trace.values.tolist(), strict=True)) == seen


def test_the_sequence_of_a_topic_goes_round_after_its_32_bits(
    path: Path, recorder: Recorder
) -> None:
    recorder._sequences = [0xFFFF_FFFE] * len(CHANNELS)  # 49 days of inner steps
    for at_ns in range(3):
        recorder.add(at_ns, StepMessage(state="run", values=[0.0]))
    recorder.close("done")
    assert [each.sequence for each in Recording(path).messages()] == [0xFFFF_FFFF, 0, 1]


# -- Faults of the recorder ------------------------------------------------------------------------------------------


def test_a_file_that_cannot_be_opened_is_refused_in_one_sentence(
    tmp_path: Path, spec: PolicySpec, clock: VirtualClock
) -> None:
    with pytest.raises(
        RecordingError, match=r"cannot write .*/no/x\.mcap: No such file or directory"
    ):
        Recorder(tmp_path / "no" / "x.mcap", RunRecord.of("scripted", spec, "", clock))


def test_a_process_that_does_not_start_is_refused_in_one_sentence_and_leaves_nothing_open(
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
    spec: PolicySpec, dims: ModelDims
) -> None:
    clock = MonotonicClock()
    loop = control(spec, dims, clock)
    with Recorder(Path("/dev/full"), RunRecord.of("scripted", spec, "", clock)) as recorder:
        assert loop.run(10, TickRecorder(recorder, loop)) == 10
        assert recorder.degraded == "cannot write /dev/full: No space left on device"
        recorder.close("done")
    assert (loop.telemetry.refused, loop.pacer.skipped) == (0, 0)
    assert not recorder.complete
    assert recorder.dropped > 0


def test_a_disk_that_fills_up_leaves_a_file_that_can_be_read_to_its_last_whole_chunk(
    spec: PolicySpec, dims: ModelDims, path: Path
) -> None:
    clock = MonotonicClock()
    loop = control(spec, dims, clock)
    recorder = Recorder(path, RunRecord.of("scripted", spec, "", clock))
    resource.prlimit(recorder._process.pid, resource.RLIMIT_FSIZE, (10_000, 10_000))
    assert loop.run(50, TickRecorder(recorder, loop)) == 50
    recorder.close("done")
    assert (loop.telemetry.refused, loop.pacer.skipped) == (0, 0)
    assert recorder.degraded == f"cannot write {path}: File too large"
    recording = read_whole(path)
    assert 0 < recording.counts["/tick"] < 50
    assert recording.incomplete == "the file was cut off after a whole chunk"


def test_the_death_of_the_recorder_costs_no_tick_and_at_most_a_second_of_the_file(
    spec: PolicySpec, dims: ModelDims, path: Path
) -> None:
    clock = MonotonicClock()
    loop = control(spec, dims, clock)
    recorder = Recorder(path, RunRecord.of("scripted", spec, "", clock))
    record = TickRecorder(recorder, loop)

    def kill_at_tick_30(tick: TickRecord) -> None:
        record(tick)
        if tick.wake.tick == 30:
            recorder._process.kill()

    assert loop.run(35, kill_at_tick_30) == 35
    recorder.close("done")
    assert (loop.telemetry.refused, loop.pacer.skipped) == (0, 0)
    assert recorder.degraded == "the recorder process ended"
    assert 30 - 20 <= messages(path, TickMessage)[-1].tick <= 30
    assert (read_whole(path).incomplete or "").startswith("the file was cut off")


def test_signals_that_end_a_session_do_not_end_its_recorder(
    path: Path, recorder: Recorder, spec: PolicySpec, dims: ModelDims, clock: VirtualClock
) -> None:
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(recorder._process.pid, each)
    loop = control(spec, dims, clock)
    loop.run(5, TickRecorder(recorder, loop))
    recorder.close("done")
    assert recorder.complete
    assert read_whole(path).incomplete is None


def test_a_recorder_that_stands_still_is_dropped_on_and_never_waited_for(
    path: Path, recorder: Recorder, spec: PolicySpec, clock: VirtualClock
) -> None:
    os.kill(recorder._process.pid, signal.SIGSTOP)
    step = StepRecorder(recorder)
    for at_ns in range(200_000):  # more than the link holds
        step(at_ns, State.RUN, np.zeros(3))
    assert recorder.degraded == "the recorder process fell behind"
    assert 0 < recorder.dropped < 200_000
    os.kill(recorder._process.pid, signal.SIGCONT)
    recorder.close("done")
    recording = read_whole(path)
    assert recording.counts["/step"] + recorder.dropped == 200_000
    assert recording.outcome is not None
    assert (recording.outcome.complete, recording.outcome.dropped) == (False, recorder.dropped)
    assert recording.incomplete == "the recorder process fell behind"


def test_an_operators_stop_leaves_a_tick_whole_or_absent_wherever_it_comes(
    path: Path, recorder: Recorder, spec: PolicySpec, dims: ModelDims, clock: VirtualClock
) -> None:
    loop, before, interrupted = control(spec, dims, clock), sys.gettrace(), set()

    def stop_at_line(number: int) -> Callable[..., Any]:
        lines = count()

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            if frame.f_code.co_filename != recorder_module.__file__:
                return None
            if event == "line" and next(lines) == number:
                raise KeyboardInterrupt
            return trace

        return trace

    def record(tick: TickRecord) -> None:
        record_tick = TickRecorder(recorder, loop)
        sys.settrace(stop_at_line(tick.wake.tick))
        try:
            record_tick(tick)
        except KeyboardInterrupt:
            interrupted.add(tick.wake.tick)
        finally:
            sys.settrace(before)
            recorder.flush()  # as `close` does

    loop.run(200, record)
    recorder.close("done")
    assert 20 < len(interrupted) < 200  # It came at each line, and at last after all of them.
    parts: dict[int, set[type]] = {}
    for _, _, message in Recording(path).messages():
        if not isinstance(message, StateMessage):
            parts.setdefault(message.tick, set()).add(type(message))
    assert {frozenset(kinds) for kinds in parts.values()} == {
        frozenset({ObservationMessage, TokensMessage, CommandMessage, TickMessage})
    }
    assert set(range(200)) - parts.keys() <= interrupted


def test_a_disk_that_hangs_makes_the_sender_drop_before_it_takes_the_memory() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    packets, packet = _Packets(), bytes(1 << 16)
    receiver = Thread(target=_receive, args=(theirs, packets))
    most = _MOST_WAITING_BYTES // len(packet) + 200  # The link holds less than that.
    with theirs:
        with ours, suppress(TimeoutError):
            receiver.start()
            ours.settimeout(0.5)  # 25 looks of the receiver; nothing is written meanwhile.
            sent = 0
            while sent < most:
                ours.send(packet)
                sent += 1
        received = 0
        while packets.get() is not None:
            received += 1
        receiver.join()
    assert received == sent < most


def test_a_prompt_longer_than_the_link_is_recorded_whole(
    path: Path,
    spec: PolicySpec,
    dims: ModelDims,
    clock: VirtualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gatort.runtime.recording.recorder._LINK_BYTES", 1 << 14)
    frames = [(random_values(spec, seed), np.full(3, float(seed))) for seed in range(500)]
    with Recorder(path, RunRecord.of("scripted", spec, "", clock)) as recorder:
        TickRecorder(recorder, control(spec, dims, clock)).prompt(clock.now_ns(), frames)
        recorder.close("done")
    assert recorder.complete
    assert [each.action[0] for each in messages(path, PromptMessage)] == list(range(500))


CONTROLLER = """
import sys
from pathlib import Path
from gatort.runtime.clock import MonotonicClock
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.engines.engine import ScriptedEngine
from gatort.runtime.policy import Policy
from gatort.runtime.recording.recorder import Recorder, TickRecorder
from gatort.runtime.recording.reader import RunRecord
from gatort.runtime.spec import FIRST_CONTINUOUS_ID, ModelDims, PolicySpec

spec, dims = PolicySpec.model_validate_json(sys.argv[2]), ModelDims.model_validate_json(sys.argv[3])
clock = MonotonicClock()
loop = Policy.of(spec, dims, ScriptedEngine([FIRST_CONTINUOUS_ID])).control(ScriptedRobot(spec, clock), clock)
recorder = Recorder(Path(sys.argv[1]), RunRecord.of("scripted", spec, "", clock))
record = TickRecorder(recorder, loop)
loop.run(1_000, lambda tick: (record(tick), print(tick.wake.tick, flush=True))[1])
"""


def test_sigkill_of_the_controller_loses_nothing_that_it_had_sent(
    path: Path, spec: PolicySpec, dims: ModelDims
) -> None:
    command = [
        sys.executable,
        "-c",
        CONTROLLER,
        str(path),
        spec.model_dump_json(),
        dims.model_dump_json(),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as controller:
        assert controller.stdout is not None
        for line in controller.stdout:
            if int(line) == 15:
                controller.kill()
                break
        # The recorder process holds standard error too, so this waits until it has finished.
        _, complaints = controller.communicate(timeout=30)
    assert complaints == ""
    assert [each.tick for each in messages(path, TickMessage)][:16] == list(range(16))
    recording = read_whole(path)
    assert recording.finished
    assert recording.incomplete == "whoever recorded ended without closing it"


# -- Files that are not whole ----------------------------------------------------------------------------------------


@pytest.fixture
def recorded(
    path: Path, recorder: Recorder, spec: PolicySpec, dims: ModelDims, clock: VirtualClock
) -> bytes:
    """A small recording with several chunks."""
    loop = control(spec, dims, clock)
    record = TickRecorder(recorder, loop)

    def look(tick: TickRecord) -> None:
        record(tick)
        if tick.wake.tick in (3, 6):
            recorder.fault(clock.now_ns(), "test", "x" * 1_100_000)  # longer than a chunk

    loop.run(10, look)
    recorder.close("done")
    return path.read_bytes()


def test_a_file_cut_off_anywhere_is_read_as_far_as_it_goes_and_says_so(
    path: Path, recorded: bytes
) -> None:
    ticks = set()
    whole = len(recorded)
    anywhere = np.random.default_rng(0).integers(0, whole, 300).tolist()
    for cut in [*anywhere, *range(whole - 6_000, whole, 10), *range(whole - 20, whole)]:
        path.write_bytes(recorded[:cut])
        try:
            recording = read_whole(path)
        except RecordingError:
            continue
        assert recording.incomplete is not None
        assert (
            recording.outcome is None or recording.counts["/tick"] == 10
        )  # it vouches for what stands before it
        ticks.add(recording.counts.get("/tick", 0))
    assert len(ticks) >= 3
    assert max(ticks) == 10


def test_a_file_with_a_flipped_bit_is_read_up_to_it_or_refused_and_one_that_says_complete_is_the_original(
    path: Path, recorded: bytes
) -> None:
    random = np.random.default_rng(0)
    original = everything(Recording(path))
    in_metadata = [recorded.index(value) for value in (b"a machine", b"done")]
    for at in [*in_metadata, *random.integers(0, len(recorded), 300).tolist()]:
        path.write_bytes(with_flipped_bit(recorded, 8 * at + int(random.integers(0, 8))))
        try:
            recording = Recording(path)
        except RecordingError:
            continue
        found = everything(recording)
        assert found == original or recording.incomplete is not None
        assert recording.counts.get("/tick", 0) <= 10


def everything(recording: Recording) -> list[Any]:
    read = list(recording.messages())  # before the outcome is known
    return [recording.run, recording.policy, recording.outcome, read]


def with_flipped_bit(data: bytes, bit: int) -> bytes:
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


def test_a_chunk_whose_length_is_damaged_is_where_reading_ends(path: Path, recorded: bytes) -> None:
    length_at = recorded.index(b"zstd") + 4  # (8,) bytes, after the name of the compression
    for bit in range(64):
        path.write_bytes(with_flipped_bit(recorded, 8 * length_at + bit))
        assert (read_whole(path).incomplete or "").startswith("the file was cut off")


def test_a_file_of_another_program_with_a_topic_of_ours_is_refused_in_one_sentence(
    path: Path,
) -> None:
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start()
        channel = writer.register_channel("/state", MessageEncoding.JSON, schema_id=0)
        writer.add_message(channel, 0, b'{"guard":"run","robot":"run"}', 0)
        writer.finish()
    with pytest.raises(
        RecordingError, match=r"expected a recording, found another file \(no run in it\)"
    ):
        Recording(path)


@pytest.mark.parametrize("contents", [b"", b"gatort", b"\x89MCAP0\r\n", bytes(10_000)])
def test_a_file_that_is_no_recording_is_refused_in_one_sentence(
    path: Path, contents: bytes
) -> None:
    path.write_bytes(contents)
    with pytest.raises(RecordingError, match="expected a recording"):
        Recording(path)


@pytest.mark.parametrize(("record", "field"), [("run", "robot"), ("policy", "bundle")])
def test_a_recording_of_another_version_is_refused_by_both_versions_and_the_field(
    path: Path, spec: PolicySpec, clock: VirtualClock, record: str, field: str
) -> None:
    run = RunRecord.of("scripted", spec, "", clock).model_copy(update={"gatort": "0.0.9"})
    records = {"run": to_metadata(run), "policy": {"bundle": '"stack"'}}
    del records[record][field]
    write_metadata(path, records)
    with pytest.raises(
        RecordingError, match=f"recorded by gatort 0.0.9, this is .*: {field}: Field required"
    ):
        Recording(path)


def test_an_outcome_of_another_version_leaves_what_stands_before_it(
    path: Path, spec: PolicySpec, clock: VirtualClock
) -> None:
    run = to_metadata(RunRecord.of("scripted", spec, "", clock))
    write_metadata(path, {"run": run, "outcome": {"result": '"done"'}})
    recording = read_whole(path)
    assert recording.run.robot == "scripted"
    assert "complete: Field required" in (recording.incomplete or "")


def write_metadata(path: Path, records: dict[str, dict[str, str]]) -> None:
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start()
        for name, data in records.items():
            writer.add_metadata(name, data)
        writer.finish()


def test_an_absent_file_is_refused_in_one_sentence(path: Path) -> None:
    with pytest.raises(
        RecordingError, match=r"run\.mcap: expected a recording, found none \(No such file"
    ):
        Recording(path)
