"""Address of a robot, tcp://HOST:PORT, without the network library."""

from __future__ import annotations

import re

LAST_PORT = 65_535
_ADDRESS = re.compile(r"tcp://(?P<host>[\w.*-]+):(?P<port>[0-9]{1,5})")


def host_of(endpoint: str) -> str | None:
    """Return the host of an address, or `None` for another text. Port 0 is any free one."""
    found = _ADDRESS.fullmatch(endpoint)
    return found["host"] if found is not None and int(found["port"]) <= LAST_PORT else None
