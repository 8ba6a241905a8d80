"""Routes that every console has, and those of a live run: the stream of news, and Stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from gatort.runtime.clock import Clock

from .access import Access, Gate
from .feed import Feed, Position
from .messages import Event, LineKind

PAGE: Final = Path(__file__).with_name("page")
"""Folder of the files that a browser gets."""
PUSH_S: Final = 0.1
"""Time between two messages to a page."""
ALIVE_S: Final = 1.0
"""Longest time without a message: a page takes a longer silence for a lost connection."""
LOG_NS: Final = 1_000_000_000
"""Shortest time between two lines on Stop: one press arrives over two ways."""
LARGEST_TOKEN_BYTES: Final = 128
STOP_WORD: Final = "stop"
"""Message of a page whose Stop was pressed."""
HOLD_WORD: Final = "hold"
"""Message of a page that holds the run, twice a second while a person can see the page."""

Endpoint = Callable[[Request], Awaitable[Response]]


def make_app(access: Access, files: dict[str, str], routes: Sequence[BaseRoute]) -> Starlette:
    """Return a console's application.

    Args:
        access: tokens and sessions.
        files: file of the folder `PAGE` for each path.
        routes: further routes.
    """

    async def redeem(request: Request) -> Response:
        token = await _body(request)
        secret = access.redeem(token) if token is not None else None
        if secret is None:
            return PlainTextResponse("this link was used before, or is not of this console\n", 403)
        return Response(status_code=204, headers={"Set-Cookie": access.set_cookie(secret)})

    async def invite(_: Request) -> Response:
        return PlainTextResponse(access.invite())

    common = {
        "/enter": "enter.html",
        "/enter.js": "enter.js",
        "/console.css": "console.css",
        "/icon.svg": "icon.svg",
    }
    served = [Route(path, _file(PAGE / name)) for path, name in {**common, **files}.items()]
    return Starlette(
        routes=[
            *served,
            Route("/enter", redeem, methods=["POST"]),
            Route("/invite", invite, methods=["POST"]),
            *routes,
        ],
        middleware=[Middleware(Gate, access=access)],
    )


def _file(path: Path) -> Endpoint:
    async def answer(_: Request) -> Response:
        return FileResponse(path)

    return answer


async def _body(request: Request) -> str | None:
    """Return a short body as text, or `None` if it is too long or no text."""
    found = b""
    async for part in request.stream():
        found += part
        if len(found) > LARGEST_TOKEN_BYTES:
            return None
    with suppress(UnicodeDecodeError):
        return found.decode("ascii")
    return None


class LivePages:
    """Pages that show a live run."""

    def __init__(
        self, feed: Feed, clock: Clock, stop: Callable[[str], None], hold: Callable[[], None]
    ) -> None:
        """Prepare.

        Args:
            feed: newest messages of the run.
            clock: clock of the ticks.
            stop: stops the run; it gets a clause that says who asked.
            hold: tells the run that a page holds it.
        """
        self._feed = feed
        self._clock = clock
        self._stop = stop
        self._hold = hold
        self._count = 0
        self._logged_ns = -LOG_NS

    @property
    def routes(self) -> list[BaseRoute]:
        """Routes of the pages."""
        return [
            Route("/stop", self._post_stop, methods=["POST"]),
            WebSocketRoute("/live", self._live),
        ]

    async def _post_stop(self, request: Request) -> Response:
        """Stop the run: the way of a page whose stream is lost, or whose script failed."""
        self._stop_for("a page", request.client.host if request.client else "?")
        return Response(status_code=204)

    async def _live(self, socket: WebSocket) -> None:
        await socket.accept()
        self._count += 1
        page, host = f"page {self._count}", socket.client.host if socket.client else "?"
        sending = asyncio.create_task(self._send_news(socket))
        try:
            await self._obey(socket, page, host)
        finally:
            sending.cancel()
            with suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                await sending

    async def _send_news(self, socket: WebSocket) -> None:
        """Send the news at the page's own pace: `send_text` waits for a slow page."""
        sent = Position()
        silent_s = 0.0
        while True:
            now_ns = self._clock.now_ns()
            text = self._feed.news(sent, now_ns)
            if text is None and silent_s >= ALIVE_S:
                text = f'{{"now_ns":{now_ns}}}'
            if text is not None:
                await socket.send_text(text)
                silent_s = 0.0
            silent_s += PUSH_S
            await asyncio.sleep(PUSH_S)

    async def _obey(self, socket: WebSocket, page: str, host: str) -> None:
        """Obey a page's words until it is gone."""
        holds = False
        with suppress(WebSocketDisconnect):
            while True:
                word = await socket.receive_text()
                if word == STOP_WORD:
                    self._stop_for(page, host)
                elif word == HOLD_WORD:
                    self._hold()
                    if not holds:
                        self._log(f"{page} ({host}) holds the run", "armed")
                    holds = True
        if holds:
            self._log(f"{page} ({host}), which held the run, is gone", "stop")

    def _stop_for(self, page: str, host: str) -> None:
        # First of all the signal: a log that fails must not cost the stop.
        self._stop(f"Stop on {page} of the console, {host}")
        now_ns = self._clock.now_ns()
        if now_ns - self._logged_ns >= LOG_NS:
            self._logged_ns = now_ns
            self._log(f"Stop was pressed on {page} ({host})", "stop")

    def _log(self, sentence: str, kind: LineKind) -> None:
        self._feed.take(Event.now(sentence, kind))
