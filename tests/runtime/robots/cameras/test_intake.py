"""The judgement of frames, on a virtual clock."""

from __future__ import annotations

import numpy as np
import pytest

from gatort.runtime.clock import VirtualClock
from gatort.runtime.errors import ObservationError
from gatort.runtime.robots.cameras.config import CameraConfig
from gatort.runtime.robots.cameras.frames import BadFrame, CameraFault, VideoFrame
from gatort.runtime.robots.cameras.intake import Intake

MS = 1_000_000
CONFIG = CameraConfig(source="file:clip.mp4")


def frame(
    clock: VirtualClock,
    digest: int,
    size: tuple[int, int] = (160, 120),
    taken_ms: int | None = None,
) -> VideoFrame:
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    taken_ns = None if taken_ms is None else taken_ms * MS
    return VideoFrame(pixels, digest, clock.now_ns(), taken_ns)


@pytest.fixture
def intake(clock: VirtualClock) -> Intake:
    intake = Intake("front", CONFIG, clock)
    intake.connected()
    return intake


def test_the_stamp_is_the_arrival_less_the_latency(intake: Intake, clock: VirtualClock) -> None:
    intake.take(frame(clock, 1))
    clock.advance_ns(5 * MS)
    assert intake.read().stamp_ns == clock.now_ns() - 5 * MS - CONFIG.latency_ns
    assert intake.status.fault is None


def test_a_camera_without_a_picture_says_so(intake: Intake) -> None:
    with pytest.raises(ObservationError, match="camera/front: expected a picture, found none yet"):
        intake.read()
    assert intake.status.refused == {CameraFault.ABSENT: 1}


@pytest.mark.parametrize(("silent_ms", "good"), [(75, True), (76, False)])
def test_silence_is_refused_only_beyond_its_limit(
    intake: Intake, clock: VirtualClock, silent_ms: int, good: bool
) -> None:
    intake.take(frame(clock, 1))
    clock.advance_ns(silent_ms * MS)
    assert (intake.status.fault is None) == good
    if not good:
        with pytest.raises(ObservationError, match=r"in the last 75 ms, found none for 76 ms$"):
            intake.read()
        assert intake.status.fault is CameraFault.SILENT


def test_one_repeat_is_counted_and_the_second_in_a_row_is_frozen(
    intake: Intake, clock: VirtualClock
) -> None:
    for digest, fault in ((1, None), (1, None), (2, None), (2, None), (2, CameraFault.REPEATED)):
        intake.take(frame(clock, digest))
        clock.advance_ns(16 * MS)
        assert intake.status.fault is fault
    with pytest.raises(ObservationError, match="found the same one 3 times in a row"):
        intake.read()
    intake.take(frame(clock, 3))
    assert intake.read().sequence == 3
    assert intake.status.bad == {CameraFault.REPEATED: 3}


def test_a_repeat_does_not_renew_the_stamp(intake: Intake, clock: VirtualClock) -> None:
    intake.take(frame(clock, 1))
    stamp_ns = intake.read().stamp_ns
    clock.advance_ns(33 * MS)
    intake.take(frame(clock, 1))
    assert intake.read().stamp_ns == stamp_ns


def test_frames_that_come_later_than_before_are_late(intake: Intake, clock: VirtualClock) -> None:
    taken_ms = 70_000  # The server's clock has another origin.
    for number in range(4):
        intake.take(frame(clock, number, taken_ms=taken_ms))
        assert intake.read().stamp_ns == clock.now_ns() - CONFIG.latency_ns
        clock.advance_ns(33 * MS)
        taken_ms += 33

    intake.take(frame(clock, 9, taken_ms=taken_ms - 91))
    with pytest.raises(ObservationError, match="of the last 120 ms, found one 121 ms old"):
        intake.read()
    assert intake.status.fault is CameraFault.LATE


def test_a_delay_that_stays_is_not_taken_for_normal_within_a_minute(
    intake: Intake, clock: VirtualClock
) -> None:
    intake.take(frame(clock, 0, taken_ms=0))
    for number in range(1, 60):
        clock.advance_ns(1_000 * MS)
        intake.take(frame(clock, number, taken_ms=1_000 * number - 100))
    assert intake.status.fault is CameraFault.LATE


def test_a_new_connection_measures_the_delay_anew(intake: Intake, clock: VirtualClock) -> None:
    intake.take(frame(clock, 0, taken_ms=90_000))
    clock.advance_ns(33 * MS)
    intake.connected()
    intake.take(frame(clock, 1, taken_ms=7))  # The server's clock has begun anew.
    assert intake.status.fault is None


def test_one_torn_frame_is_counted_and_the_one_before_stays(
    intake: Intake, clock: VirtualClock
) -> None:
    intake.take(frame(clock, 1))
    clock.advance_ns(33 * MS)
    intake.refuse(BadFrame(CameraFault.TORN, "expected a whole JPEG, found half of one"))
    assert intake.read().sequence == 1
    clock.advance_ns(43 * MS)
    with pytest.raises(ObservationError, match=r"none for 76 ms \(torn: expected a whole JPEG"):
        intake.read()
    assert intake.status.fault is CameraFault.TORN
    assert intake.status.bad == {CameraFault.TORN: 1}


def test_the_first_frame_sets_the_size_of_all(intake: Intake, clock: VirtualClock) -> None:
    intake.take(frame(clock, 1))
    intake.take(frame(clock, 2, size=(320, 240)))
    assert intake.read().sequence == 1
    clock.advance_ns(80 * MS)
    with pytest.raises(ObservationError, match="expected frames of 160×120, found 320×240"):
        intake.read()


def test_a_crop_outside_the_frame_is_refused(clock: VirtualClock) -> None:
    config = CameraConfig(source="file:clip.mp4", crop=(100, 0, 64, 64))
    intake = Intake("front", config, clock)
    intake.take(frame(clock, 1))
    with pytest.raises(ObservationError, match=r"holds the crop \(100, 0, 64, 64\)"):
        intake.read()
