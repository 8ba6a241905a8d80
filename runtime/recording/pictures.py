"""Camera pictures as viewers show them: JPEG in `foxglove.CompressedImage` messages.

Foxglove reads these messages in JSON and in Protobuf, Rerun in Protobuf only. Five fields need no
Protobuf library: the bytes are written here (protobuf.dev/programming-guides/encoding). The field
numbers are those of foxglove/CompressedImage.proto.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Final

import msgspec
import numpy as np
from mcap.well_known import MessageEncoding, SchemaEncoding
from mcap.writer import Writer
from numpy.typing import NDArray

from gatort.runtime.packages import installed_version

from .messages import Image

Encode = Callable[[NDArray[np.uint8]], bytes]
"""Turns a picture (height, width, 3) into JPEG."""

SCHEMA_NAME: Final = "foxglove.CompressedImage"
QUALITY: Final = 90
"""JPEG quality, of 100. The exact pixels are in the observation."""
RAW_ONLY: Final = "pictures are raw only: JPEG needs Pillow, pip install 'gatort[trials]'"

_VARINT: Final = 0
_BYTES: Final = 2
_SECOND_NS: Final = 1_000_000_000


class _Seen(msgspec.Struct):
    """Parts of an observation that a picture needs."""

    stamp_ns: int
    values: dict[str, msgspec.Raw]


class PictureWriter:
    """Writes the pictures of observations as JPEG, in a file that is under way.

    Args:
        writer: writer of the file.
        offset_ns: UTC minus the clock of an observation's stamp.
    """

    def __init__(self, writer: Writer, offset_ns: int) -> None:
        self._writer = writer
        self._offset_ns = offset_ns
        self._encode = load_encoder()
        self._schema = writer.register_schema(SCHEMA_NAME, SchemaEncoding.Protobuf, schema())
        self._cameras: list[tuple[int, str, str]] = []
        """Channel, field of the values, and frame of reference of each camera."""

    def register(self, topic: str, field: str, frame: str) -> None:
        """Add the channel of a camera whose pictures lie in a field of the values."""
        channel = self._writer.register_channel(topic, MessageEncoding.Protobuf, self._schema)
        self._cameras.append((channel, field, frame))

    def add(self, observation: bytes, log_ns: int, sequence: int) -> None:
        """Write the pictures of an observation in JSON, as far as it has them."""
        seen = msgspec.json.decode(observation, type=_Seen)
        stamp_ns = seen.stamp_ns + self._offset_ns
        for channel, field, frame in self._cameras:
            raw = seen.values.get(field)
            picture = None if raw is None else _pixels(msgspec.json.decode(raw, type=Image))
            if picture is not None:
                data = compressed_image(stamp_ns, frame, self._encode(picture))
                self._writer.add_message(channel, log_ns, data, log_ns, sequence)


# -- JPEG ----------------------------------------------------------------------------------------


def can_encode() -> bool:
    """Check if a package that writes JPEG is installed, without importing it."""
    packages = ("pillow", "opencv-python-headless", "opencv-python")
    return any(installed_version(package) is not None for package in packages)


def load_encoder() -> Encode:
    """Return the JPEG encoder of Pillow, or else of OpenCV."""
    try:
        from PIL import Image as pillow  # noqa: N813  # a module
    except ImportError:
        return _opencv_encoder()

    def encode(picture: NDArray[np.uint8]) -> bytes:
        file = BytesIO()
        pillow.fromarray(picture).save(file, "JPEG", quality=QUALITY, subsampling=0)
        return file.getvalue()

    return encode


def warm_up() -> None:
    """Load everything that the first picture would load."""
    load_encoder()(np.zeros((16, 16, 3), np.uint8))


def _opencv_encoder() -> Encode:
    import cv2

    parameters = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]

    def encode(picture: NDArray[np.uint8]) -> bytes:
        _, data = cv2.imencode(".jpg", picture[..., ::-1], parameters)  # OpenCV takes BGR.
        return bytes(data)

    return encode


def _pixels(image: Image) -> NDArray[np.uint8] | None:
    """Return a recorded image (height, width, 3), or `None` if it is no colour picture."""
    shape = tuple(image.shape)
    if len(shape) != 3 or shape[2] != 3 or int(np.prod(shape)) != len(image.data) or not image.data:
        return None
    return np.frombuffer(image.data, np.uint8).reshape(shape)


# -- Protobuf ------------------------------------------------------------------------------------


def compressed_image(stamp_ns: int, frame: str, jpeg: bytes) -> bytes:
    """Return a `foxglove.CompressedImage`.

    Args:
        stamp_ns: time of the picture, UTC.
        frame: name of the camera's frame of reference.
        jpeg: the picture.
    """
    seconds, nanoseconds = divmod(stamp_ns, _SECOND_NS)
    stamp = _number(1, seconds) + _number(2, nanoseconds)
    return _text(1, stamp) + _text(2, jpeg) + _text(3, b"jpeg") + _text(4, frame.encode())


def _varint(value: int) -> bytes:
    """Return a number in groups of seven bits, the lowest first."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _text(field: int, value: bytes) -> bytes:
    """Return a field that holds a string, bytes or a message."""
    return _varint(field << 3 | _BYTES) + _varint(len(value)) + value


_INT64: Final = 3
_INT32: Final = 5
_STRING: Final = 9
_MESSAGE: Final = 11
_BINARY: Final = 12
_TIMESTAMP: Final = b".google.protobuf.Timestamp"


def _member(name: bytes, number: int, kind: int, message: bytes = b"") -> bytes:
    """Return a `FieldDescriptorProto` of an optional field."""
    optional = 1
    described = _text(1, name) + _number(3, number) + _number(4, optional) + _number(5, kind)
    return described + (_text(6, message) if message else b"")


def _file(path: bytes, package: bytes, name: bytes, *members: bytes, imports: bytes = b"") -> bytes:
    """Return a `FileDescriptorProto` that holds one message."""
    message = _text(1, name) + b"".join(_text(2, member) for member in members)
    imported = _text(3, imports) if imports else b""
    return _text(1, path) + _text(2, package) + imported + _text(4, message) + _text(12, b"proto3")


def schema() -> bytes:
    """Return the `FileDescriptorSet` of `foxglove.CompressedImage`, which a reader needs."""
    timestamp = _file(
        b"google/protobuf/timestamp.proto",
        b"google.protobuf",
        b"Timestamp",
        _member(b"seconds", 1, _INT64),
        _member(b"nanos", 2, _INT32),
    )
    image = _file(
        b"foxglove/CompressedImage.proto",
        b"foxglove",
        b"CompressedImage",
        _member(b"timestamp", 1, _MESSAGE, _TIMESTAMP),
        _member(b"data", 2, _BINARY),
        _member(b"format", 3, _STRING),
        _member(b"frame_id", 4, _STRING),
        imports=b"google/protobuf/timestamp.proto",
    )
    return _text(1, timestamp) + _text(1, image)
