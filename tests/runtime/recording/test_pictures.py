"""Pictures of a recording: JPEG for viewers, the exact pixels for a replay."""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap.reader import make_reader
from numpy.typing import NDArray
from tests.runtime.recording.conftest import MS, control, messages, read_whole

from gatort.runtime.clock import VirtualClock
from gatort.runtime.recording import pictures
from gatort.runtime.recording.messages import ObservationMessage, RunRecord, arrays
from gatort.runtime.recording.pictures import compressed_image, load_encoder, schema
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.recording.tick_recorder import TickRecorder
from gatort.runtime.spec import ModelDims, PolicySpec

pillow = pytest.importorskip("PIL.Image")
descriptor_pool = pytest.importorskip("google.protobuf.descriptor_pool")
STAMP_NS = 1_765_432_109_876_543_210


def gradient(height: int, width: int, level: int) -> NDArray[np.uint8]:
    """Return a smooth picture, which JPEG keeps nearly exactly."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack(
        [rows * 4, columns * 4, np.full_like(rows, level)], axis=2
    ).astype(np.uint8)  # fmt: skip


def read_values(spec: PolicySpec, sequence: int) -> list[NDArray[Any]]:
    return [
        gradient(*key.shape[:2], level=10 * sequence)
        if key.encoding == "image"
        else np.zeros(key.shape, key.dtype)
        for key in spec.observations
    ]


def message_class() -> Any:
    """Return the class that Google's library makes from the written schema."""
    from google.protobuf import descriptor_pb2, message_factory

    files = descriptor_pb2.FileDescriptorSet.FromString(schema())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("foxglove.CompressedImage"))


def recorded_pictures(path: Path) -> list[tuple[str, Any, Any]]:
    """Return topic, MCAP record and message of each JPEG picture."""
    kind = message_class()
    found = []
    with path.open("rb") as file:
        for described, channel, record in make_reader(file).iter_messages():
            if described is not None and described.name == "foxglove.CompressedImage":
                assert (described.encoding, channel.message_encoding) == ("protobuf",) * 2
                found.append((channel.topic, record, kind.FromString(record.data)))
    return found


def record(spec: PolicySpec, dims: ModelDims, path: Path, drop: int | None = None) -> Recorder:
    """Record five ticks; the observation of one lacks its last arrays."""

    def read(sequence: int) -> list[NDArray[Any]]:
        values = read_values(spec, sequence)
        return values[:1] if sequence == drop else values

    clock = VirtualClock(1_000 * MS)
    wide = dims.model_copy(update={"first_token_id": 0})
    loop = control(spec, wide, clock, read)
    with Recorder(path, RunRecord.of("scripted", spec, "", clock)) as recorder:
        loop.run(5, TickRecorder(recorder, loop))
        recorder.close("done")
    assert recorder.complete
    return recorder


def test_a_message_is_foxgloves_compressed_image() -> None:
    message = message_class().FromString(compressed_image(STAMP_NS, "camera/front", b"\xff\xd8"))
    assert message.timestamp.seconds == STAMP_NS // 1_000_000_000
    assert message.timestamp.nanos == STAMP_NS % 1_000_000_000
    assert (message.frame_id, message.format, message.data) == ("camera/front", "jpeg", b"\xff\xd8")


def test_each_picture_is_written_as_jpeg_beside_its_exact_pixels(
    every_encoding_spec: PolicySpec, dims: ModelDims, path: Path
) -> None:
    keys = every_encoding_spec.observations
    images = [number for number, key in enumerate(keys) if key.encoding == "image"]
    record(every_encoding_spec, dims, path)
    observed = messages(path, ObservationMessage)
    found = recorded_pictures(path)
    assert [topic for topic, _, _ in found] == ["/picture/left", "/picture/right"] * 5
    run = read_whole(path).run
    for index, message in enumerate(observed):
        exact = arrays(message.values, keys)
        given = read_values(every_encoding_spec, message.sequence)
        for number, (_, entry, picture) in zip(
            images, found[2 * index : 2 * index + 2], strict=True
        ):
            np.testing.assert_array_equal(exact[number], given[number])
            shown = np.asarray(pillow.open(BytesIO(picture.data)))
            # Levels of 255: rounding at quality 90 of a smooth picture.
            np.testing.assert_allclose(shown.astype(int), given[number], atol=6)
            stamp_ns = picture.timestamp.seconds * 1_000_000_000 + picture.timestamp.nanos
            assert stamp_ns == message.stamp_ns + run.wall_clock_offset_ns
            assert entry.sequence == index + 1


def test_an_observation_without_a_picture_writes_none(
    every_encoding_spec: PolicySpec, dims: ModelDims, path: Path
) -> None:
    record(every_encoding_spec, dims, path, drop=4)
    assert len(recorded_pictures(path)) < 10
    assert read_whole(path).incomplete is None


def test_a_recording_without_pictures_has_no_channel_for_them(
    spec: PolicySpec, dims: ModelDims, path: Path
) -> None:
    assert record(spec, dims, path).note is None
    with path.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    assert not [each for each in summary.channels.values() if "picture" in each.topic]


def test_without_an_encoder_the_pixels_are_recorded_and_the_recorder_says_so(
    every_encoding_spec: PolicySpec, dims: ModelDims, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "installed_version", lambda _: None)
    recorder = record(every_encoding_spec, dims, path)
    assert recorder.note == (
        "pictures are raw only: JPEG needs Pillow, pip install 'gatort[trials]'"
    )
    assert recorded_pictures(path) == []
    assert len(messages(path, ObservationMessage)) == 5


def test_opencv_stands_in_for_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cv2")
    picture = gradient(48, 64, level=120)
    encoders = [load_encoder()]
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "PIL", None)
        encoders.append(load_encoder())
    jpegs = [encode(picture) for encode in encoders]
    assert jpegs[0] != jpegs[1]
    shown = [np.asarray(pillow.open(BytesIO(jpeg))).astype(int) for jpeg in jpegs]
    for each in shown:
        np.testing.assert_allclose(each, picture, atol=8)  # Levels: OpenCV halves the colours.


@pytest.mark.parametrize(("shape", "size"), [([4, 4], 16), ([4, 4, 1], 16), ([4, 4, 3], 47)])
def test_data_that_is_no_colour_picture_is_left_alone(shape: list[int], size: int) -> None:
    assert pictures._pixels(pictures.Image(shape, bytes(size))) is None
