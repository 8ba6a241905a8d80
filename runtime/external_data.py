"""Which files beside it an ONNX graph would have read, found before any library that would read them sees it.

A weight may be left out of the graph and name a file instead. Whoever wrote the bundle chose that name, so it may
say `/etc/shadow`, `../../x` or a file that the manifest does not vouch for. The robot's computer has no `onnx`
package, and what ONNX Runtime and TensorRT check themselves differs by version; so the names are read here from the
protobuf's wire format alone (protobuf.dev, "Encoding"; onnx.proto for the field numbers). What is not a message on
the way to a name is stepped over by its length: the weights of a large graph are never touched.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from .errors import BundleError

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED_64: 8, _FIXED_32: 4}
_DEPTH = 64
"""Messages within messages; our graphs need 5, protobuf itself stops at 100."""

# Message → field number → message in that field, for every way from a model to a tensor's external_data.
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
_KEY, _VALUE = 1, 2


def external_locations(path: Path) -> set[str]:
    """Names of the files in which the graph at `path` says that weights lie, as they stand there.

    Raises:
        BundleError: the file is not a protobuf message.
    """
    if not path.stat().st_size:
        return set()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
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
    """Every `location` in the message between two offsets."""
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
    """The values of one key and value pair whose key is `location`; all of them, should one be given twice."""
    fields = [(number, content[first:last]) for number, first, last in _fields(content, start, end)]
    if (_KEY, b"location") in fields:
        yield from (value for number, value in fields if number == _VALUE)


def _fields(content: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, first and one-past-last offset of each field that has a length."""
    at = start
    while at < end:
        tag, at = _varint(content, at)
        number, kind = tag >> 3, tag & 7
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
    """A number of seven bits a byte, lowest first, and the offset after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise ValueError(f"a number without an end at byte {at}")
