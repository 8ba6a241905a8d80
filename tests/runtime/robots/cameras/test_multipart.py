"""The parser of a multipart stream, however the bytes arrive, and the check of a JPEG."""

from __future__ import annotations

import numpy as np
import pytest

from gatort.runtime.robots.cameras.frames import BadFrame, CameraFault
from gatort.runtime.robots.cameras.jpeg import check_jpeg
from gatort.runtime.robots.cameras.multipart import LONGEST_HEADER, MultipartParser, StreamPart
from gatort.runtime.robots.cameras.opencv import encode

from .conftest import numbered_frame

LARGEST = 50_000


def part(body: bytes, length: int | None = None, boundary: bytes = b"--frame") -> bytes:
    lines = [boundary, b"Content-Type: image/jpeg", b"X-Timestamp: 12.5"]
    if length is not None:
        lines.append(b"Content-Length: %d" % length)
    return b"\r\n".join([*lines, b"", body, b""])


def feed(parser: MultipartParser, stream: bytes, step: int) -> list[StreamPart | BadFrame]:
    pieces = (stream[at : at + step] for at in range(0, len(stream), step))
    return [found for piece in pieces for found in parser.feed(piece)]


@pytest.mark.parametrize("step", [1, 7, 1_000_000])
@pytest.mark.parametrize("with_length", [True, False])
def test_parts_come_whole_however_the_bytes_are_cut(
    jpegs: list[bytes], step: int, with_length: bool
) -> None:
    stream = b"".join(part(body, len(body) if with_length else None) for body in jpegs[:3])
    found = feed(MultipartParser("frame", LARGEST), stream, step)
    assert [each.body for each in found if isinstance(each, StreamPart)] == jpegs[:3]
    assert {each.taken_ns for each in found if isinstance(each, StreamPart)} == {12_500_000_000}


@pytest.mark.parametrize("declared", ["frame", "--frame", '"frame"'])
def test_a_boundary_is_found_with_the_dashes_of_any_server(
    jpegs: list[bytes], declared: str
) -> None:
    found = MultipartParser(declared, LARGEST).feed(part(jpegs[0], len(jpegs[0])))
    assert [type(each) for each in found] == [StreamPart]


def test_a_part_that_is_shorter_than_it_says_is_torn_and_the_next_one_is_whole(
    jpegs: list[bytes],
) -> None:
    stream = part(jpegs[0][:500], len(jpegs[0])) + part(jpegs[1], len(jpegs[1]))
    torn, whole = MultipartParser("frame", LARGEST).feed(stream)
    assert isinstance(torn, BadFrame)
    assert torn.fault is CameraFault.TORN
    assert isinstance(whole, StreamPart)
    assert whole.body == jpegs[1]


@pytest.mark.parametrize("with_length", [True, False])
def test_a_part_over_the_limit_is_refused_and_takes_no_more_memory(
    jpegs: list[bytes], with_length: bool
) -> None:
    parser = MultipartParser("frame", LARGEST)
    found = parser.feed(part(b"", 10**12 if with_length else None))
    for _ in range(100):
        found += parser.feed(bytes(10_000))
        assert len(parser._buffer) <= LARGEST + LONGEST_HEADER + 10_000
    found += parser.feed(part(jpegs[0], len(jpegs[0])))
    assert [each.fault for each in found if isinstance(each, BadFrame)] == [CameraFault.TOO_LARGE]
    assert [each.body for each in found if isinstance(each, StreamPart)] == [jpegs[0]]


def test_a_header_without_an_end_is_refused(jpegs: list[bytes]) -> None:
    parser = MultipartParser("frame", LARGEST)
    (bad,) = parser.feed(b"--frame\r\n" + b"x" * (LONGEST_HEADER + 1))
    assert isinstance(bad, BadFrame)
    assert [type(each) for each in parser.feed(part(jpegs[0], len(jpegs[0])))] == [StreamPart]


def test_random_bytes_never_make_the_parser_fail_or_grow() -> None:
    random = np.random.default_rng(1)
    parser = MultipartParser("f", 1_000)
    for _ in range(200):
        parser.feed(random.bytes(500) + b"--f\r\nContent-Length: 9x\r\n\r\n")
        assert len(parser._buffer) <= 1_000 + LONGEST_HEADER + 1_000


def test_a_whole_jpeg_passes_also_when_it_is_progressive(jpegs: list[bytes]) -> None:
    import cv2

    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    progressive = cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert check_jpeg(progressive) is None
    assert all(check_jpeg(jpeg) is None for jpeg in jpegs)


@pytest.mark.parametrize(
    ("made", "fault"),
    [
        (lambda jpeg: jpeg[: len(jpeg) // 2], CameraFault.TORN),
        (lambda jpeg: jpeg[1:], CameraFault.TORN),
        (lambda jpeg: jpeg[:-2] + jpeg, CameraFault.TORN),
        (lambda _: b"\xff\xd8\xff\xd9", CameraFault.TORN),
        (lambda _: b"", CameraFault.TORN),
    ],
    ids=["half", "no beginning", "two glued together", "empty JPEG", "no bytes"],
)
def test_a_jpeg_that_is_not_whole_is_torn(jpegs: list[bytes], made, fault) -> None:
    bad = check_jpeg(made(jpegs[0]))
    assert bad is not None
    assert bad.fault is fault


def test_a_small_jpeg_that_claims_a_giant_picture_is_not_decoded() -> None:
    jpeg = bytearray(encode(numbered_frame(1), ".jpg"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = b"\xff\xff\xff\xff"
    bad = check_jpeg(bytes(jpeg))
    assert bad is not None
    assert bad.fault is CameraFault.TOO_LARGE
    assert "found 65535×65535" in bad.found
