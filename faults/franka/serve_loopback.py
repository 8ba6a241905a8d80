"""Start franka-sim on loopback alone. Its own environment's Python runs this file.

    PYTHON serve_loopback.py ADDRESS OPTIONS…

franka-sim listens on all addresses of the machine, and has no option for another one. It ends with
the process that started it. This file imports nothing of gatort, which is not installed there.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_NICENESS = -15
"""A control box shares its processor with nobody. At ordinary priority, beside two programs
that compute, it sent no state for 100 ms in one of ten starts. The arm's process then took the
link for lost."""


class LoopbackSocket(socket.socket):
    """A socket that binds to one address where it is asked to bind to all."""

    address = "127.0.0.1"

    def bind(self, address: Any) -> None:
        """See `socket.socket.bind`."""
        if isinstance(address, tuple) and address[0] in ("0.0.0.0", ""):  # noqa: S104  # never bound
            address = (self.address, *address[1:])
        super().bind(address)


def main() -> int:
    """Serve until a signal or the end of the parent ends it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    with suppress(PermissionError):
        os.nice(_NICENESS)
    LoopbackSocket.address = sys.argv.pop(1)
    socket.socket = LoopbackSocket  # type: ignore[misc]  # before franka-sim makes one
    from franka_sim.run_server import main as serve

    return int(serve() or 0)


if __name__ == "__main__":
    sys.exit(main())
