"""MJPEG over HTTP, as network cameras and mjpg-streamer serve it.

OpenCV's own reader buffers frames, hides stalls and shows torn JPEGs. This one takes everything
that has arrived, decodes the newest frame alone and never waits longer than `POLL_S`.
"""

from __future__ import annotations

import select
import socket
import zlib
from base64 import b64encode
from collections.abc import Sequence
from email.message import Message
from typing import Final
from urllib.parse import unquote, urlsplit

from gatort.runtime.clock import Clock

from .config import CameraConfig
from .frames import BadFrame, SourceLost, VideoFrame
from .jpeg import check_jpeg
from .multipart import LONGEST_HEADER, MultipartParser, StreamPart
from .opencv import decode_jpeg

POLL_S: Final = 0.02
"""Longest wait for bytes in one call."""
CONNECT_S: Final = 2.0
"""Longest wait for a connection, and again for the answer's header."""
CHUNK: Final = 1 << 18
"""Number of bytes that are read at once."""
MOST_CHUNKS: Final = 64
"""Number of chunks after which a frame is decoded although more bytes wait."""


class HttpSource:
    """One MJPEG stream. Only `http://` and HTTP's basic authentication are supported."""

    def __init__(self, config: CameraConfig, clock: Clock) -> None:
        self._config = config
        self._shown = config.address.shown
        self._clock = clock
        self._socket: socket.socket | None = None
        self._parser: MultipartParser | None = None
        self._parts: list[StreamPart | BadFrame] = []
        """Parts that came with the answer's header."""

    def open(self) -> None:
        """See `FrameSource.open`."""
        url = urlsplit(self._config.address.place)
        try:
            connection = socket.create_connection((url.hostname, url.port or 80), CONNECT_S)
            self._socket = connection
            connection.sendall(_request(self._config.address.place))
            header, rest = _read_header(connection)
        except (OSError, ValueError) as error:
            raise SourceLost(
                f"expected a stream at {self._shown}, found none ({_said(error)})"
            ) from error
        boundary = _boundary(header, self._shown)
        self._parser = MultipartParser(boundary, self._config.largest_bytes)
        self._parts = self._parser.feed(rest)

    def read(self) -> Sequence[VideoFrame | BadFrame]:
        """See `FrameSource.read`."""
        parts = self._receive()
        arrived_ns = self._clock.now_ns()
        frames: list[VideoFrame | BadFrame] = [part for part in parts if isinstance(part, BadFrame)]
        whole = [part for part in parts if isinstance(part, StreamPart)]
        if whole:
            frames.append(_decode(whole[-1], arrived_ns))
        return frames

    def _receive(self) -> list[StreamPart | BadFrame]:
        """Return the parts that are complete now. Older ones come first."""
        connection, parser = self._socket, self._parser
        if connection is None or parser is None:
            raise SourceLost(f"expected an open stream at {self._shown}, found a closed one")
        parts, self._parts = self._parts, []
        wait_s = POLL_S
        for _ in range(MOST_CHUNKS):
            if not select.select([connection], [], [], wait_s)[0]:
                break
            parts += parser.feed(self._bytes(connection))
            wait_s = 0.0
        return parts

    def _bytes(self, connection: socket.socket) -> bytes:
        try:
            data = connection.recv(CHUNK)
        except OSError as error:
            raise SourceLost(
                f"expected frames from {self._shown}, found none ({_said(error)})"
            ) from error
        if not data:
            raise SourceLost(f"expected frames from {self._shown}, found the end of the stream")
        return data

    def close(self) -> None:
        """See `FrameSource.close`."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _decode(part: StreamPart, arrived_ns: int) -> VideoFrame | BadFrame:
    body = part.body.rstrip(b"\r\n\0")
    bad = check_jpeg(body)
    if bad is not None:
        return bad
    pixels = decode_jpeg(body)
    if isinstance(pixels, BadFrame):
        return pixels
    return VideoFrame(pixels, zlib.crc32(body), arrived_ns, part.taken_ns)


def _request(place: str) -> bytes:
    """Return the request. HTTP/1.0 keeps servers from cutting the stream into chunks."""
    url = urlsplit(place)
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    lines = [f"GET {path} HTTP/1.0", f"Host: {url.netloc.rpartition('@')[2]}"]
    if url.username is not None:
        secret = f"{unquote(url.username)}:{unquote(url.password or '')}".encode()
        lines.append(f"Authorization: Basic {b64encode(secret).decode()}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _said(error: Exception) -> str:
    """Return an error without the number that the system gives it."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _read_header(connection: socket.socket) -> tuple[list[str], bytes]:
    """Return the lines of the answer's header, and the bytes that follow it."""
    data = b""
    while b"\r\n\r\n" not in data:
        if len(data) > LONGEST_HEADER:
            raise ValueError("an answer without an end of its header")
        received = connection.recv(4_096)
        if not received:
            raise ValueError("an end before the answer's header")
        data += received
    header, _, rest = data.partition(b"\r\n\r\n")
    return header.decode("latin-1").split("\r\n"), rest


def _boundary(header: list[str], shown: str) -> str:
    """Return the boundary between parts.

    Raises:
        SourceLost: the server refuses, or serves something else.
    """
    status, *lines = header
    if status.split(" ")[1:2] != ["200"]:
        raise SourceLost(f"{shown}: expected status 200, found {status!r}")

    fields = {name.strip().lower(): value for name, _, value in map(_split, lines)}
    content = Message()
    content["Content-Type"] = fields.get("content-type", "").strip() or "nothing"
    boundary = content.get_boundary()
    if content.get_content_type() != "multipart/x-mixed-replace" or not boundary:
        raise SourceLost(
            f"{shown}: expected multipart/x-mixed-replace with a boundary, "
            f"found {content['Content-Type']!r}"
        )
    return boundary


def _split(line: str) -> tuple[str, str, str]:
    return line.partition(":")
