"""Signals that end a command: at once while it starts or draws, in order while it works.

This module imports next to nothing, because it stands before the command line is loaded.
"""

from __future__ import annotations

import os
import signal
import sys

from gatort.runtime.exit_status import ended_by

TYPE_CHECKING = False  # `typing` would take longer to import than all else here.
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

    Handler = Callable[[int, FrameType | None], None]

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
IMPATIENT = 3
"""Number of signals after which the process ends at once.

Two are no sign of impatience: `timeout` and some launchers send each signal twice."""
LOOK_AGAIN_S = 0.02
"""Time between two looks at whether an import has ended."""


def end_at_once() -> None:
    """Let each ending signal end the process from now on, without a word."""
    _handle(_exit)


def finish() -> None:
    """Ignore Ctrl-C from now on: the command's status stands, and Python is cleaning up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class EndingAtOnce:
    """Context in which each ending signal ends the process at once, for drawing.

    An exception inside a library's C++ code can become a false error, or abort the interpreter.
    """

    def __enter__(self) -> None:
        self._before = _handle(_exit)

    def __exit__(self, *_: object) -> None:
        _restore(self._before)


class Postponed:
    """Context at whose end an ending signal that came meanwhile takes effect, for work that must
    not be cut in two. One of many ends the process at once.
    """

    def __enter__(self) -> None:
        self._received: list[int] = []
        self._before = _handle(self._keep)

    def __exit__(self, *_: object) -> None:
        _restore(self._before)
        if self._received:
            signal.raise_signal(self._received[0])

    def _keep(self, number: int, frame: FrameType | None) -> None:
        self._received.append(number)
        if len(self._received) >= IMPATIENT:
            _exit(self._received[0], frame)


class Interruption:
    """Context in which an ending signal raises KeyboardInterrupt in the main thread.

    While a module is being imported, the exception waits: packages turn it into an ImportError, or
    print it and go on. Where Python can only print the exception, it is raised again.
    """

    def __init__(self) -> None:
        self._received: list[int] = []

    def __enter__(self) -> None:
        self._before = _handle(self._receive)
        self._before |= _handle(self._interrupt, signal.SIGALRM)
        self._unraisable = sys.unraisablehook
        sys.unraisablehook = self._raise_again

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = self._unraisable
        _restore(self._before)

    @property
    def status(self) -> int | None:
        """Exit status after the first signal, or `None` if none has come."""
        return ended_by(self._received[0]) if self._received else None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received.append(number)
        if len(self._received) >= IMPATIENT:
            _exit(self._received[0], frame)
        if len(self._received) == 1:
            self._interrupt(number, frame)

    def _interrupt(self, _: int, frame: FrameType | None) -> None:
        if _imports(frame):
            signal.setitimer(signal.ITIMER_REAL, LOOK_AGAIN_S)
            return
        raise KeyboardInterrupt

    def _raise_again(self, unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, LOOK_AGAIN_S)
        else:
            self._unraisable(unraisable)


def _exit(number: int, _: FrameType | None) -> None:
    os._exit(ended_by(number))


def _imports(frame: FrameType | None) -> bool:
    """Return true if a frame runs inside an import."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _handle(handler: Handler, *signals: signal.Signals) -> dict[signal.Signals, Any]:
    """Set a handler, of the ending signals by default, and return the ones before it.

    `nohup` ignores SIGHUP, and it stays ignored. The other signals are always obeyed, even where a
    script started the command in the background, with SIGINT ignored.
    """
    kept = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    chosen = [each for each in signals or ENDING if not (kept and each == signal.SIGHUP)]
    try:
        return {each: signal.signal(each, handler) for each in chosen}
    except ValueError:  # Python lets only the main thread set handlers.
        return {}


def _restore(before: dict[signal.Signals, Any]) -> None:
    for each, handler in before.items():
        signal.signal(each, handler)
