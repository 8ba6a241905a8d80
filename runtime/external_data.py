"""Names of the files that an ONNX graph would make a library read, found before any library sees
it.

A graph may leave out a weight and name a file instead. The bundle's author chose that name: it may
be `/etc/shadow`, `../../x` or a file that the manifest does not vouch for. The robot's computer has
no `onnx` package, and the checks of ONNX Runtime and TensorRT differ by version. The names are
therefore read from the protobuf's wire format alone (protobuf.dev, "Encoding"; onnx.proto for the
field numbers). Every field that leads to no name is skipped by its length, so the weights of a
large graph are never read.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from .errors import BundleError

# Wire types of the format.
_VARINT = 0
_FIXED_64 = 1
_BYTES = 2
_FIXED_32 = 5
_FIXED_BYTES = {_FIXED_64: 8, _FIXED_32: 4}
_DEPTH = 64
"""Most messages inside one another; our graphs need 5, protobuf itself stops at 100."""

# Message → field number → message in that field, on every way from a model to external_data.
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
# Fields of an entry of external_data.
_KEY = 1
_VALUE = 2


def external_locations(path: Path, file: IO[bytes]) -> set[str]:
    """Return the names of the files that hold weights, as a graph spells them.

    Args:
        path: path of the graph, for messages.
        file: the open graph.

    Raises:
        BundleError: the file is not a protobuf message.
    """
    if not os.fstat(file.fileno()).st_size:
        return set()
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            return {
                each.decode(errors="replace")
                for each in _locations(content, "model", 0, len(content), 0)
            }
        except (IndexError, ValueError) as error:
            raise BundleError(f"{path}: expected an ONNX graph: {error}") from error


def _locations(
    content: mmap.mmap, message: str, start: int, end: int, depth: int
) -> Iterator[bytes]:
    """Yield every `location` in the message between two offsets.

    Raises:
        IndexError, ValueError: the bytes are no such message.
    """
    if depth > _DEPTH:
        raise ValueError(f"more than {_DEPTH} messages within each other")
    if message == "entry":
        yield from _location(content, start, end)
        return

    within = _MESSAGES[message]
    for number, first, last in _fields(content, start, end):
        if number in within:
            yield from _locations(content, within[number], first, last, depth + 1)


def _location(content: mmap.mmap, start: int, end: int) -> Iterator[bytes]:
    """Yield the values of an entry whose key is `location`, all of them if it has several."""
    fields = [(number, content[first:last]) for number, first, last in _fields(content, start, end)]
    if (_KEY, b"location") in fields:
        yield from (value for number, value in fields if number == _VALUE)


def _fields(content: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the number, the first offset and the offset after each field that has a length."""
    at = start
    while at < end:
        tag, at = _varint(content, at)
        number = tag >> 3
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(content, at)
            continue

        if kind == _BYTES:
            size, at = _varint(content, at)
        elif kind in _FIXED_BYTES:
            size = _FIXED_BYTES[kind]
        else:
            raise ValueError(f"wire type {kind} at byte {at}")

        if at + size > end:
            raise ValueError(f"a field of {size} bytes at byte {at} of {end}")
        if kind == _BYTES:
            yield number, at, at + size
        at += size


def _varint(content: mmap.mmap, at: int) -> tuple[int, int]:
    """Return a number of seven bits per byte, lowest first, and the offset after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise ValueError(f"a number without an end at byte {at}")
