"""A damaged, cut-off or foreign file is read as far as it goes, or refused in one sentence."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from mcap.data_stream import RecordBuilder
from mcap.opcode import Opcode
from mcap.records import Chunk, Header, Metadata, SummaryOffset
from mcap.stream_reader import StreamReader
from mcap.well_known import MessageEncoding
from mcap.writer import Writer
from tests.runtime.recording.conftest import control, read_whole, sync

from gatort.runtime.clock import VirtualClock
from gatort.runtime.errors import RecordingError
from gatort.runtime.loop import TickRecord
from gatort.runtime.recording.messages import RunRecord, to_metadata
from gatort.runtime.recording.reader import Recording
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.recording.tick_recorder import TickRecorder
from gatort.runtime.spec import ModelDims, PolicySpec


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
            sync(recorder)

    loop.run(10, look)
    recorder.close("done")
    return path.read_bytes()


def test_a_file_cut_off_anywhere_is_read_as_far_as_it_goes_and_says_so(
    path: Path, recorded: bytes
) -> None:
    ticks = set()
    whole = len(recorded)
    anywhere = np.random.default_rng(0).integers(0, whole, 150).tolist()
    for cut in [*anywhere, *range(whole - 6_000, whole, 60), *range(whole - 20, whole)]:
        path.write_bytes(recorded[:cut])
        try:
            recording = read_whole(path)
        except RecordingError:
            continue
        assert recording.incomplete is not None
        # The outcome vouches for everything before it.
        assert recording.outcome is None or recording.counts["/tick"] == 10
        ticks.add(recording.counts.get("/tick", 0))
    assert len(ticks) >= 3
    assert max(ticks) == 10


def test_a_file_with_a_flipped_bit_is_the_original_or_incomplete_or_refused(
    path: Path, recorded: bytes
) -> None:
    random = np.random.default_rng(0)
    original = everything(Recording(path))
    in_metadata = [recorded.index(value) for value in (b"a machine", b"done")]
    for at in [*in_metadata, *random.integers(0, len(recorded), 150).tolist()]:
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


def test_reading_ends_at_a_chunk_whose_length_is_damaged(path: Path, recorded: bytes) -> None:
    length_at = recorded.index(b"zstd") + 4  # (8,) bytes, after the name of the compression
    for bit in range(64):
        path.write_bytes(with_flipped_bit(recorded, 8 * length_at + bit))
        assert (read_whole(path).incomplete or "").startswith("the file was cut off")


def test_another_programs_file_with_a_topic_of_this_name_is_refused_in_one_sentence(
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


@pytest.mark.parametrize(
    ("contents", "found"),
    [
        (b"", "it is empty"),
        (b"gatort", "in the middle of a record"),
        (b"\x89MCAP0\r\n", "in the middle of a record"),
        (bytes(10_000), "it begins or ends unlike an MCAP file"),
    ],
)
def test_a_file_that_is_no_recording_is_refused_in_one_sentence(
    path: Path, contents: bytes, found: str
) -> None:
    path.write_bytes(contents)
    with pytest.raises(RecordingError, match=rf"found another file \({found}\); name one"):
        Recording(path)


@pytest.mark.parametrize(("record", "field"), [("run", "robot"), ("policy", "bundle")])
def test_the_refusal_of_another_versions_recording_names_both_versions_and_the_field(
    path: Path, spec: PolicySpec, clock: VirtualClock, record: str, field: str
) -> None:
    run = RunRecord.of("scripted", spec, "", clock).model_copy(update={"gatort": "0.0.9"})
    records = {"run": to_metadata(run), "policy": {"bundle": '"stack"'}}
    del records[record][field]
    write_metadata(path, records)
    with pytest.raises(
        RecordingError,
        match=f"recorded by gatort 0.0.9, this is .*: {field}: expected a value, found none",
    ):
        Recording(path)


def test_another_versions_outcome_leaves_the_messages_before_it_readable(
    path: Path, spec: PolicySpec, clock: VirtualClock
) -> None:
    run = to_metadata(RunRecord.of("scripted", spec, "", clock))
    write_metadata(path, {"run": run, "outcome": {"result": '"done"'}})
    recording = read_whole(path)
    assert recording.run.robot == "scripted"
    assert "complete: expected a value, found none" in (recording.incomplete or "")


def write_metadata(path: Path, records: dict[str, dict[str, str]]) -> None:
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start()
        for name, data in records.items():
            writer.add_metadata(name, data)
        writer.finish()


def test_an_absent_file_is_refused_in_one_sentence(path: Path) -> None:
    with pytest.raises(
        RecordingError,
        match=r"run\.mcap: expected a recording that .* wrote, found none \(No such file",
    ):
        Recording(path)


def test_a_chunk_that_unpacks_to_far_more_than_the_file_ends_the_reading(
    path: Path, spec: PolicySpec, clock: VirtualClock
) -> None:
    data = zstandard.compress(bytes(1 << 30))
    chunk = Chunk("zstd", data, 0, 0, 0, 1 << 30)
    write_records(path, RunRecord.of("scripted", spec, "", clock), chunk)
    tracemalloc.start()
    recording = read_whole(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 23
    tracemalloc.stop()
    assert "a chunk of 1073741824 bytes, expected at most" in (recording.incomplete or "")


def test_a_frame_that_claims_more_than_its_chunk_ends_the_reading(
    path: Path, spec: PolicySpec, clock: VirtualClock
) -> None:
    chunk = Chunk("zstd", zstandard.compress(bytes(1 << 26)), 0, 0, 0, 10)
    write_records(path, RunRecord.of("scripted", spec, "", clock), chunk)
    assert "a chunk whose two sizes differ" in (read_whole(path).incomplete or "")


def write_records(path: Path, run: RunRecord, chunk: Chunk) -> None:
    records = RecordBuilder()
    Header("", "gatort").write(records)
    Metadata("run", to_metadata(run)).write(records)
    chunk.write(records)
    path.write_bytes(b"\x89MCAP0\r\n" + records.end())


def test_a_pipe_is_refused_without_waiting(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(RecordingError, match=r"expected a recording that .* wrote, found a pipe"):
        Recording(path)


def test_a_recording_is_for_its_owner_alone(
    path: Path, spec: PolicySpec, clock: VirtualClock
) -> None:
    with Recorder(path, RunRecord.of("scripted", spec, "", clock)) as recorder:
        assert path.stat().st_mode & 0o777 == 0o600
        recorder.close("done")


def test_a_pipe_that_nobody_reads_is_no_place_for_a_recording(
    path: Path, spec: PolicySpec, clock: VirtualClock
) -> None:
    os.mkfifo(path)
    with pytest.raises(RecordingError, match=r"cannot write .*run\.mcap: No such device"):
        Recorder(path, RunRecord.of("scripted", spec, "", clock))


def test_a_name_that_is_no_utf_8_is_written_and_read(
    tmp_path: Path, spec: PolicySpec, clock: VirtualClock
) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mcap"))
    with Recorder(path, RunRecord.of("scripted", spec, "", clock)) as recorder:
        recorder.close("done")
    assert read_whole(path).incomplete is None


def test_every_group_of_the_summary_that_an_offset_names_has_records(
    path: Path, recorded: bytes
) -> None:
    path.write_bytes(recorded)
    with path.open("rb") as file:
        offsets = [each for each in StreamReader(file).records if isinstance(each, SummaryOffset)]
    assert {each.group_opcode for each in offsets} >= {Opcode.CHANNEL, Opcode.METADATA_INDEX}
    assert all(each.group_length > 0 for each in offsets)
