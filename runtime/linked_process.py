"""A process beside this one, joined to it by a pair of sockets."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack


def start_linked(
    module: str,
    *arguments: str,
    passed: Sequence[int] = (),
    buffer_bytes: int | None = None,
    stdout: int | None = subprocess.DEVNULL,
    stderr: int | None = None,
) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start a module in a process of its own. Return this end of the link, and the process.

    The link is a pair of sockets of type `SOCK_SEQPACKET`. The descriptor of the other end is the
    module's first argument.

    Args:
        module: module to start.
        *arguments: further arguments of the module.
        passed: descriptors that the process inherits beside its end of the link.
        buffer_bytes: size asked for the buffer towards the process. Default: the kernel's.
        stdout: descriptor for its output; `None` for that of this process.
        stderr: descriptor for its errors; `None` for that of this process.

    Raises:
        OSError: no process, no descriptor or no memory is left.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, ExitStack() as undo:
        undo.callback(ours.close)
        if buffer_bytes is not None:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(theirs.fileno()), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            pass_fds=(theirs.fileno(), *passed),
            start_new_session=True,  # The terminal's Ctrl-C must not reach it.
        )
        undo.pop_all()
    return ours, process
