"""A client of a console over real HTTP and a real WebSocket, with the headers that a test wants."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

from websockets.sync.client import ClientConnection, connect

from gatort.runtime.clock import MonotonicClock


class Visitor:
    """A browser as far as a console can tell: cookie, Host and Origin."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.host, self.port, self.token = parts.hostname, parts.port, parts.fragment
        self.origin = f"http://{self.host}:{self.port}"
        self.cookie: str | None = None

    def ask(
        self,
        method: str,
        path: str,
        body: str | None = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Send a request and return status, headers and body. `None` leaves a header out."""
        sent: dict[str, str | None] = {"Cookie": self.cookie}
        if method == "POST":
            sent["Origin"] = self.origin
        sent |= headers or {}
        connection = HTTPConnection(self.host, self.port, timeout=20)
        try:
            connection.putrequest(method, path, skip_host="Host" in sent)
            for name, value in sent.items():
                if value is not None:
                    connection.putheader(name, value)
            content = (body or "").encode()
            if method == "POST":
                connection.putheader("Content-Length", str(len(content)))
            connection.endheaders(content if method == "POST" else None)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def enter(self) -> int:
        """Exchange the token for a cookie. Return the status."""
        status, headers, _ = self.ask("POST", "/enter", self.token)
        if status == 204:
            self.cookie = headers["set-cookie"].partition(";")[0]
        return status

    @contextmanager
    def live(self, headers: Mapping[str, str | None] | None = None) -> Iterator[ClientConnection]:
        """Open the stream of a live run."""
        sent = {"Cookie": self.cookie} | dict(headers or {})
        given = {name: value for name, value in sent.items() if value is not None}
        origin = given.pop("Origin", self.origin)
        address = f"ws://{self.host}:{self.port}/live"
        with connect(
            address,
            origin=origin or None,
            additional_headers=given,
            compression=None,
            max_size=None,
        ) as stream:
            yield stream

    @contextmanager
    def deaf(self) -> Iterator[None]:
        """Open the stream of a live run, and never read from it."""
        request = (
            f"GET /live HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nOrigin: {self.origin}\r\n"
            f"Cookie: {self.cookie}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        with socket.socket() as plain:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            plain.connect((self.host, self.port))
            plain.sendall(request.encode())
            assert plain.recv(12) == b"HTTP/1.1 101"
            yield


def heard(stream: ClientConnection, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return the first message to a page that meets a condition; fail after 20 s."""
    clock = MonotonicClock()
    until_ns = clock.now_ns() + 20_000_000_000
    while clock.now_ns() < until_ns:
        news: dict[str, Any] = json.loads(stream.recv(timeout=20))
        if wanted(news):
            return news
    raise AssertionError("the page never got it")
