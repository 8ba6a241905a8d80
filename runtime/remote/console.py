"""The console of a robot's process: signals, keys, and lines that nothing waits for."""

from __future__ import annotations

import os
import signal
import sys
import termios
import tty
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread

from gatort.runtime.onlooker import Onlooker
from gatort.runtime.printable import printable

from .server import RobotServer

KEPT_LINES = 64
"""Most lines that wait for a terminal that blocks."""
_ENDING = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)
_STOPPING = (signal.SIGUSR1, signal.SIGTSTP)
"""SIGTSTP (Ctrl-Z) stops the arm and not the process: a suspended process has no watchdog."""
_IGNORED = (signal.SIGTTIN, signal.SIGTTOU)
"""Signals that would suspend a process in the background."""


class Lines(Onlooker):
    """Prints lines from a thread of its own. A terminal that blocks loses the oldest lines."""

    def __init__(self) -> None:
        super().__init__("lines")
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)

    def offer(self, line: str) -> None:
        """Hand over a line. Never wait."""
        self._lines.append(line)
        self._offered.set()

    def _show(self) -> None:
        for _ in self._offers():
            while self._lines:
                with suppress(OSError):  # A lost terminal must not end the arm's process.
                    print(printable(self._lines.popleft()), flush=True)


@contextmanager
def console(server: RobotServer) -> Iterator[list[int]]:
    """Obey signals, and keys where there is a terminal. Restore both at the end.

    Enter, space, Ctrl-Z and SIGUSR1 stop the arm. The key `a` and SIGUSR2 allow arming again.
    Ctrl-C, SIGTERM and SIGHUP end the process. Yields the signals that did so, which is a list
    that grows.
    """
    ended_by: list[int] = []

    def end(number: int, _: object) -> None:
        ended_by.append(number)
        server.end()

    before = {each: signal.signal(each, end) for each in _ENDING}
    before |= {
        each: signal.signal(each, lambda number, _: server.stop(signal.Signals(number).name))
        for each in _STOPPING
    }
    before |= {each: signal.signal(each, signal.SIG_IGN) for each in _IGNORED}
    before[signal.SIGUSR2] = signal.signal(signal.SIGUSR2, lambda *_: server.allow_arming())
    try:
        with _keys(server):
            yield ended_by
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def _keys(server: RobotServer) -> Iterator[None]:
    """Obey keys while the process is in the foreground of a terminal."""
    stdin = sys.stdin.fileno() if sys.stdin else -1
    # A process in the background would be suspended for touching the terminal.
    if not os.isatty(stdin) or os.tcgetpgrp(stdin) != os.getpgrp():
        yield
        return

    before = termios.tcgetattr(stdin)
    tty.setcbreak(stdin)
    Thread(target=_read_keys, args=(stdin, server), name="keys", daemon=True).start()
    try:
        yield
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


def _read_keys(stdin: int, server: RobotServer) -> None:
    with suppress(OSError):
        while key := os.read(stdin, 1):
            if key in (b"\n", b"\r", b" "):
                server.stop("a key")
            elif key == b"a":
                server.allow_arming()
