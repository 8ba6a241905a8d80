"""The console of a robot's process: signals, keys, and lines that nothing waits for."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import termios
import tty
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Final, Literal, NamedTuple, TextIO

from gatort.runtime.clock import MonotonicClock
from gatort.runtime.onlooker import Onlooker
from gatort.runtime.printable import printable
from gatort.runtime.safety import State

from .server import RobotServer

KEPT_LINES = 64
"""Most lines that wait for a terminal that blocks."""
KEY_HELP: Final = "[Enter] stop  [a Enter] allow arming  [s] task done  [Ctrl-C] quit"
"""Keys of a real arm's console."""
SIMULATED_KEY_HELP: Final = KEY_HELP.replace("[s] task done  ", "")
"""Keys of a simulated arm's console: its task tells success itself."""
BURST_NS: Final = 30_000_000
"""Time between two bytes below which they were pasted, not typed."""
CONFIRM_NS: Final = 5_000_000_000
"""Longest time from `a` to the Enter that confirms it."""
_STOP_KEYS = (b"\n", b"\r", b" ")
_ENDING = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)
_STOPPING = (signal.SIGUSR1, signal.SIGTSTP)
"""SIGTSTP (Ctrl-Z) stops the arm and not the process: a suspended process has no watchdog."""
_IGNORED = (signal.SIGTTIN, signal.SIGTTOU)
"""Signals that would suspend a process in the background."""


_COLOURS = {State.RUN: 32, State.HOLD: 33, State.SAFE: 41, State.LATCHED: 41}
"""Colour of each state on a terminal (ECMA-48, SGR); a disarmed robot has none."""


class StatusLine(NamedTuple):
    """Status of a robot in one line."""

    state: State
    """State of the watchdog."""
    facts: Sequence[str]
    """Further facts, the most important ones first."""

    @property
    def sentence(self) -> str:
        """The whole line."""
        return "; ".join((f"{self.state}, {self.facts[0]}", *self.facts[1:]))

    def drawn(self, columns: int, coloured: bool) -> str:
        """Return the line for a terminal, the state first. Facts that do not fit are left out.

        The first fact is cut if the terminal is too narrow for it.
        """
        facts = [printable(fact) for fact in self.facts]
        text = f"{self.state.upper()}, {facts[0]}"
        if len(text) >= columns:
            text = f"{text[: columns - 2]}…"
        for fact in facts[1:]:
            if len(text) + len(fact) + 2 < columns:
                text += f"; {fact}"
        colour = _COLOURS.get(self.state)
        if not coloured or colour is None:
            return text
        length = len(self.state)
        return f"\x1b[1;{colour}m{text[:length]}\x1b[0m{text[length:]}"


class Lines(Onlooker):
    """Prints lines from a thread of its own. A terminal that blocks loses the oldest lines.

    On a terminal the status stays in the last line, redrawn in place. Elsewhere it is a line per
    change.
    """

    def __init__(self) -> None:
        super().__init__("lines")
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._status: StatusLine | None = None
        self.is_terminal = on_terminal(sys.stdout)
        """True if standard output is a terminal that moves its cursor."""

    def offer(self, line: str) -> None:
        """Hand over a line that stays. Never wait."""
        self._lines.append(line)
        self._offered.set()

    def show(self, status: StatusLine, at_s: float) -> None:
        """Hand over a change of the status, and the time since the process began. Never wait."""
        if self.is_terminal:
            self._status = status
            self._offered.set()
        else:
            self.offer(f"{at_s:.1f} s: {status.sentence}")

    def hide(self) -> None:
        """Take the status back. Never wait."""
        self._status = None
        self._offered.set()

    def _show(self) -> None:
        for _ in self._offers():
            # A lost terminal must not end the arm's process.
            with suppress(OSError):
                self._print()
        if self._status is not None:
            with suppress(OSError):
                print(flush=True)

    def _print(self) -> None:
        lines = []
        while self._lines:
            lines.append(printable(self._lines.popleft()))
        begin = "\r\x1b[K" if self.is_terminal else ""
        text = "".join(f"{line}\n" for line in lines)
        if (status := self._status) is not None:
            columns = shutil.get_terminal_size().columns
            text += status.drawn(columns, coloured="NO_COLOR" not in os.environ)
        print(f"{begin}{text}", end="", flush=True)


def on_terminal(stream: TextIO | None) -> bool:
    """Check if a stream is a terminal that moves its cursor."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


class Keys:
    """Meaning of typed keys: Enter and space stop the arm, `a` and then Enter allow arming, and `s`
    reports that the task is done.

    A pasted text must never lift an operator's stop, or report a success. So each of these keys
    must come alone: one byte in a read, and no other byte shortly before it.
    """

    def __init__(self) -> None:
        self._last_ns = -BURST_NS
        self._asked_ns: int | None = None

    def take(self, typed: bytes, now_ns: int) -> Literal["stop", "allow", "succeed"] | None:
        """Return the request that typed bytes make, if they make one."""
        is_alone = len(typed) == 1 and now_ns - self._last_ns >= BURST_NS
        asked_ns = self._asked_ns
        self._last_ns = now_ns
        self._asked_ns = now_ns if is_alone and typed == b"a" else None
        if is_alone and typed == b"s":
            return "succeed"
        if not any(key in typed for key in _STOP_KEYS):
            return None
        confirms = is_alone and typed != b" "
        if confirms and asked_ns is not None and now_ns - asked_ns <= CONFIRM_NS:
            return "allow"
        return "stop"


@contextmanager
def console(server: RobotServer, say: Callable[[str], None]) -> Iterator[list[int]]:
    """Obey signals, and keys where there is a terminal. Restore both at the end.

    Enter, space, Ctrl-Z and SIGUSR1 stop the arm. The key `a`, then Enter, and SIGUSR2 allow arming
    again. The key `s` reports a real arm's success. Ctrl-C, SIGTERM and SIGHUP end the process.
    Yields the signals that did so, which is a list that grows.

    Args:
        server: the arm's server.
        say: receives a line for the operator. It must return at once.
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
        with _keys(server, say):
            yield ended_by
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def standard_input() -> int:
    """Return the descriptor of the standard input; −1 if there is none."""
    try:
        return sys.stdin.fileno() if sys.stdin else -1
    except OSError:  # Something else stands in for it.
        return -1


@contextmanager
def keys_one_by_one(terminal: int) -> Iterator[None]:
    """Let a terminal give each key at once and unseen. Keys typed before do not count."""
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal, termios.TCSAFLUSH)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def is_in_the_foreground(descriptor: int) -> bool:
    """Check if this process may read a descriptor that is its terminal."""
    try:
        return os.isatty(descriptor) and os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:  # A terminal that controls another session.
        return False


@contextmanager
def _keys(server: RobotServer, say: Callable[[str], None]) -> Iterator[None]:
    """Obey keys while the process is in the foreground of a terminal."""
    stdin = standard_input()
    # A process in the background would be suspended for touching the terminal.
    if not is_in_the_foreground(stdin):
        yield
        return

    with keys_one_by_one(stdin):
        Thread(target=_read_keys, args=(stdin, server, say), name="keys", daemon=True).start()
        yield


def _read_keys(stdin: int, server: RobotServer, say: Callable[[str], None]) -> None:
    keys = Keys()
    clock = MonotonicClock()
    with suppress(OSError):
        while typed := os.read(stdin, 4_096):
            request = keys.take(typed, clock.now_ns())
            # Enter always stops an arm that nobody has stopped yet, and that has not itself.
            status = server.status
            if request == "succeed":
                say(f"[s] {server.report_success()}")
            elif request == "allow" and (status.blocked or status.fault is not None):
                server.allow_arming()
            elif request is not None:
                server.stop("a key")
