"""Parser of a multipart/x-mixed-replace stream (RFC 2046, section 5.1): bytes in, parts out.

It holds at most one part of the allowed size. After anything wrong it goes on at the next boundary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .frames import BadFrame, CameraFault

LONGEST_HEADER: Final = 8_192
_HEADER_END: Final = b"\r\n\r\n"
_JPEG_END: Final = b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class StreamPart:
    """One part of the stream."""

    body: bytes
    """Bytes of the part."""
    taken_ns: int | None
    """Value of the header `X-Timestamp`, in ns on the server's clock."""


class MultipartParser:
    """Cuts a stream into parts."""

    def __init__(self, boundary: str, largest_bytes: int) -> None:
        """Begin a stream.

        Args:
            boundary: boundary of the Content-Type header. Servers disagree on its dashes.
            largest_bytes: largest body of a part.
        """
        self._delimiter = b"--" + boundary.strip('"').lstrip("-").encode("latin-1")
        self._largest = largest_bytes
        self._buffer = bytearray()
        self._part: _Header | None = None
        """Header of the part whose body is arriving."""
        self._searched = 0

    def feed(self, data: bytes) -> list[StreamPart | BadFrame]:
        """Add bytes, and return the parts that are now whole or known to be bad."""
        self._buffer += data
        found: list[StreamPart | BadFrame] = []
        while (part := self._next()) is not None:
            found.append(part)
        return found

    def _next(self) -> StreamPart | BadFrame | None:
        if self._part is None:
            bad = self._read_header()
            if bad is not None or self._part is None:
                return bad
        return self._read_body(self._part)

    def _read_header(self) -> BadFrame | None:
        """Take the next header from the buffer, if it is whole."""
        buffer = self._buffer
        start = buffer.find(self._delimiter)
        if start < 0:
            del buffer[: max(0, len(buffer) - len(self._delimiter))]
            return None
        del buffer[:start]
        end = buffer.find(_HEADER_END)
        if end < 0:
            if len(buffer) <= LONGEST_HEADER:
                return None
            return self._skip(CameraFault.TORN, "expected the header of a part, found no end of it")
        header = _Header.parse(bytes(buffer[:end]))
        del buffer[: end + len(_HEADER_END)]
        if header.length is not None and header.length > self._largest:
            return self._too_large(header.length)
        self._part = header
        self._searched = 0
        return None

    def _read_body(self, header: _Header) -> StreamPart | BadFrame | None:
        """Take the body from the buffer, once its length or the next boundary is there."""
        buffer = self._buffer
        next_part = buffer.find(self._delimiter, self._searched)
        self._searched = max(0, len(buffer) - len(self._delimiter))
        length = header.length
        if length is None:
            length = self._guess_length(next_part)
        elif 0 <= next_part < length:
            return self._skip(
                CameraFault.TORN,
                f"expected {length} bytes, found the next part after {next_part}",
                next_part,
            )
        if length is None or len(buffer) < length:
            over = len(buffer) > self._largest + LONGEST_HEADER
            return self._too_large(len(buffer)) if over else None

        body = bytes(buffer[:length])
        del buffer[:length]
        self._part = None
        return StreamPart(body, header.taken_ns)

    def _guess_length(self, next_part: int) -> int | None:
        """Return the length of a body without one: up to a JPEG's end, or to the next boundary."""
        if next_part >= 0:
            return len(self._buffer[:next_part].rstrip(b"\r\n"))
        # The next boundary comes a whole frame later. A picture at its end is shown now.
        arrived = self._buffer.rstrip(b"\r\n")
        return len(arrived) if arrived.endswith(_JPEG_END) else None

    def _too_large(self, found: int) -> BadFrame:
        return self._skip(
            CameraFault.TOO_LARGE, f"expected at most {self._largest} bytes, found {found} or more"
        )

    def _skip(self, fault: CameraFault, found: str, to: int | None = None) -> BadFrame:
        """Drop the part. Go on at `to`, or at the next boundary after the bytes that are here."""
        del self._buffer[: len(self._delimiter) if to is None else to]
        self._part = None
        return BadFrame(fault, found)


@dataclass(frozen=True, slots=True)
class _Header:
    """Header of a part."""

    length: int | None
    taken_ns: int | None

    @classmethod
    def parse(cls, text: bytes) -> _Header:
        """Read `Content-Length` and `X-Timestamp`. Values that are no numbers are ignored."""
        lines = (line.partition(b":") for line in text.split(b"\r\n"))
        fields = {name.strip().lower(): value.strip() for name, _, value in lines}
        length = fields.get(b"content-length", b"")
        return cls(int(length) if length.isdigit() else None, _nanoseconds(fields))


def _nanoseconds(fields: dict[bytes, bytes]) -> int | None:
    seconds, _, fraction = fields.get(b"x-timestamp", b"").partition(b".")
    if not seconds.isdigit() or not (fraction or b"0").isdigit():
        return None
    return int(seconds) * 1_000_000_000 + int(fraction.ljust(9, b"0")[:9] or b"0")
