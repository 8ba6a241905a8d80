"""Access to a console: tokens, sessions, and the headers that keep other pages out.

A token opens one session and then is worth nothing. It stands in the part of the URL after `#`,
which a browser sends to no server. The session is a cookie that no script can read and that the
browser sends with no request of another site. Each request must name this console as its `Host`,
and one that comes from a page must come from a page of this console.
"""

from __future__ import annotations

import secrets
from collections import deque
from http.cookies import CookieError, SimpleCookie
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .address import Address

MOST_SESSIONS: Final = 64
"""Most sessions at once. A further one ends the oldest."""
OPEN_PATHS: Final = frozenset({"/enter", "/enter.js", "/console.css", "/icon.svg"})
"""Paths that need no session. They tell nothing about a run."""
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


class Access:
    """Tokens and sessions of one console."""

    def __init__(self, address: Address) -> None:
        """Begin without any.

        Args:
            address: address of the console, with its port.
        """
        self.address = address
        # Browsers send a cookie to every port of a host, so each console has its own name.
        self.cookie = f"gatort_{address.port}"
        self._tokens: set[str] = set()
        self._sessions: deque[str] = deque(maxlen=MOST_SESSIONS)

    def invite(self) -> str:
        """Return a URL that opens one session."""
        token = secrets.token_urlsafe(24)
        self._tokens.add(token)
        return f"{self.address.origin}/enter#{token}"

    def redeem(self, token: str) -> str | None:
        """Return the secret of a new session for a token; `None` for one that is not valid."""
        known = next((each for each in self._tokens if secrets.compare_digest(each, token)), None)
        if known is None:
            return None
        self._tokens.discard(known)
        secret = secrets.token_urlsafe(32)
        self._sessions.append(secret)
        return secret

    def has_session(self, headers: Headers) -> bool:
        """Check that a request has the cookie of a session."""
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load(headers.get("cookie", ""))
        except CookieError:
            return False
        found = cookies.get(self.cookie)
        if found is None:
            return False
        given = found.value.encode()
        return any(secrets.compare_digest(each.encode(), given) for each in self._sessions)

    def set_cookie(self, secret: str) -> str:
        """Return the value of `Set-Cookie` for a session."""
        return f"{self.cookie}={secret}; HttpOnly; SameSite=Strict; Path=/"


class Gate:
    """ASGI middleware that refuses requests of other pages."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        headers = Headers(scope=scope)
        status, sentence = self._refusal(scope, headers)
        if not sentence:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": sentence})
        else:
            answer = PlainTextResponse(f"{sentence}\n", status)
            await answer(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str]:
        """Return a status and the sentence on a request that is refused; an empty one otherwise."""
        address = self._access.address
        if headers.getlist("host") not in [[host] for host in address.hosts]:
            return 421, f"expected Host: {min(address.hosts)}, found another"

        origins = headers.getlist("origin")
        acts = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        if (origins or acts) and origins != [f"http://{headers['host']}"]:
            return 403, "expected a request of this console's own page, found another origin"
        if not self._is_own_fetch(scope, headers):
            return 403, "expected a request of this console's own page, found another site's"

        if scope["path"] not in OPEN_PATHS and not self._access.has_session(headers):
            return 401, "expected the cookie of a session: open the URL that gatort printed"
        return 200, ""

    @staticmethod
    def _is_own_fetch(scope: Scope, headers: Headers) -> bool:
        """Check the browser's own word on who asks. A link elsewhere may lead to `/enter`."""
        site = headers.get("sec-fetch-site", "none")
        is_link = headers.get("sec-fetch-mode") == "navigate" and scope["path"] == "/enter"
        return site in ("same-origin", "none") or is_link


def _with_headers(send: Send) -> Send:
    """Return `send` with the headers that keep other pages out of every answer."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            answered = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                answered[name] = value
        await send(message)

    return sending
