"""The server of a console."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

import uvicorn

from gatort.runtime.errors import ConfigError

from .address import Address

MOST_CONNECTIONS: Final = 256
"""Most connections at once. A further request is refused with the status 503."""
LARGEST_FRAME_BYTES: Final = 1_024
"""Longest message of a page. Pages only send single words."""
LARGEST_HEAD_BYTES: Final = 16_384
"""Longest head of a request."""
GONE_S: Final = 10.0
"""Silence after which a page's connection is closed: it answers a ping every five seconds."""


def listening(address: Address) -> tuple[socket.socket, Address]:
    """Listen on an address. Return the socket, and the address with its port.

    A browser that is quicker than the server waits for it.

    Raises:
        ConfigError: the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {address.host}:{address.port}: {error.strerror}; "
            "choose another --listen HOST:PORT of this computer"
        ) from error
    return listener, Address(address.host, listener.getsockname()[1])


def server(app: Callable[..., Awaitable[Any]]) -> uvicorn.Server:
    """Return a server for an application. It writes nothing to the terminal."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http="h11",
            loop="asyncio",
            ws="websockets-sansio",
            ws_max_size=LARGEST_FRAME_BYTES,
            ws_ping_interval=5.0,
            ws_ping_timeout=GONE_S,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,  # A header must not change who a client is.
            server_header=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=LARGEST_HEAD_BYTES,
        )
    )
