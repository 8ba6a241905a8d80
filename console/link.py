"""The run's end of the link to its console, a process of its own that a run never waits for.

The link is a pair of sockets of type `SOCK_SEQPACKET` with a small buffer. A message that does not
fit is dropped and counted, and a console that ended costs one failed call a message. The console
stops the run with the signal of Ctrl-C, so no thread of the run listens to it.

    run ──Opening, Tick, Status, Event──▶ console ──pages──▶ browsers
    run ◀───────SIGINT, and who asked──── console ◀──Stop───
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec

from gatort.runtime.clock import Clock, MonotonicClock
from gatort.runtime.errors import ConfigError
from gatort.runtime.linked_process import start_linked
from gatort.runtime.packages import require_packages

from .address import Address
from .messages import HELD, LARGEST_PACKET_BYTES, STOP, Message

PACKAGES: Final = ("starlette", "uvicorn", "websockets")
"""Packages of the extra `console`."""
LINK_BYTES: Final = 1 << 16
"""Size asked for the link's buffer: a few seconds of ticks. Older ones are of no use to a page."""
START_S: Final = 20.0
"""Longest wait for the console's first packet. It starts in less than 1 s."""
CLOSE_S: Final = 1.0
"""Longest wait, at the end, for a console that tells its pages how the run ended."""
_MOST_WORDS: Final = 65_536
UNWATCHED_NS: Final = 2_000_000_000
"""Silence of every page that holds a run, after which the run stops."""


Say = Callable[[str], object]
"""Prints a line on the terminal."""


class ConsoleSettings(msgspec.Struct, frozen=True):
    """Settings of a console's process, on its command line."""

    address: Address
    """Address to listen on."""
    stop_signal: int = signal.SIGINT
    """Signal that stops the process that started the console."""
    repeats: bool = False
    """Send it at each Stop. By default once: a third SIGINT would end a run at once."""


class ConsoleLink:
    """A console beside this process. Use it from one thread at a time."""

    def __init__(self, settings: ConsoleSettings, clock: Clock) -> None:
        """Start the console and wait until it listens.

        Call it before the thread takes a real-time priority, which the process would inherit.

        Args:
            settings: address of the console, and the signal that stops this process.
            clock: the machine's monotonic clock.

        Raises:
            MissingDependency: a package of the console is not installed.
            ConfigError: the address cannot be bound, or the process does not start.
        """
        require_packages("a console", "console", *PACKAGES)
        self.dropped = 0
        """Number of messages that were lost."""
        self.is_lost = False
        """True if the console ended before this process closed it."""
        self.stopped_by: str | None = None
        """Clause that says who stopped the run on a page; `None` if nobody did."""
        self._clock = clock
        self._heard_ns: int | None = None
        self._is_open = True
        self._encode = msgspec.json.Encoder().encode
        self._start(settings)
        self.url = self._first_packet()
        """Address of the page, with a token that works once."""
        self._link.setblocking(False)

    def _start(self, settings: ConsoleSettings) -> None:
        # A descriptor of this process, not its number: no later process can get the signal.
        this_process = os.pidfd_open(os.getpid())
        try:
            self._errors = os.memfd_create("console")  # Last words of one that does not start.
            self._link, self._process = start_linked(
                "gatort.console.process",
                str(this_process),
                str(os.getpid()),
                msgspec.json.encode(settings).decode(),
                passed=(this_process,),
                buffer_bytes=LINK_BYTES,
                stderr=self._errors,
            )
        finally:
            os.close(this_process)

    def _first_packet(self) -> str:
        self._link.settimeout(START_S)
        answer = ""
        with suppress(OSError):
            answer = self._link.recv(LARGEST_PACKET_BYTES).decode()
        try:
            if answer.startswith("http://"):
                return answer
            self.close()  # Its last words are whole then.
            words = os.pread(self._errors, _MOST_WORDS, 0).decode(errors="replace").splitlines()
        finally:
            os.close(self._errors)
        last = f": {words[-1]}" if words else ""
        raise ConfigError(answer or f"the console's process did not start{last}")

    # -- During the run ------------------------------------------------------------------------

    def offer(self, message: Message) -> None:
        """Send a message, or drop and count it. Never wait."""
        if not self._is_open:
            self.dropped += 1
            return
        try:
            packet = self._encode(message)
            if len(packet) > LARGEST_PACKET_BYTES:
                self.dropped += 1
                return
            self._link.send(packet)
        except (BlockingIOError, TimeoutError):
            self.dropped += 1
        except OSError:  # The console ended. The run goes on without it.
            self.dropped += 1
            self._lose()

    @property
    def is_held(self) -> bool:
        """True while a page that holds the run was heard within the last `UNWATCHED_NS`."""
        self.listen()
        heard_ns = self._heard_ns
        return heard_ns is not None and self._clock.now_ns() - heard_ns <= UNWATCHED_NS

    def wait_until_held(self) -> None:
        """Wait until a page holds the run.

        Raises:
            ConfigError: the console ended.
        """
        while not self.is_held:
            if not self._is_open:
                raise ConfigError(
                    "the console's process ended before a page held the run: start again"
                )
            select.select((self._link,), (), (), 1.0)

    def listen(self) -> None:
        """Take the console's packets that have arrived. Never wait."""
        with suppress(BlockingIOError):
            while self._is_open:
                try:
                    packet = self._link.recv(LARGEST_PACKET_BYTES)
                except ConnectionError:
                    packet = b""
                self._take(packet)

    def _take(self, packet: bytes) -> None:
        if packet.startswith(HELD):
            self._heard_ns = int(packet.removeprefix(HELD))
        elif packet.startswith(STOP):
            self.stopped_by = packet.removeprefix(STOP).decode(errors="replace")
        elif not packet:
            self._lose()

    def _lose(self) -> None:
        self._is_open = False
        self.is_lost = True

    # -- End -----------------------------------------------------------------------------------

    def close(self, *last: Message) -> None:
        """End the console, once it has told its pages the last messages. Wait for `CLOSE_S`."""
        if not self._is_open and not self.is_lost:
            return
        with suppress(OSError):
            self._link.settimeout(CLOSE_S)  # A console that fell behind still gets these.
            for message in last:
                self.offer(message)
            self._link.setblocking(False)
            self.listen()
            self._link.shutdown(socket.SHUT_WR)
        try:
            self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._link.close()
        self._is_open = False


def started(settings: ConsoleSettings, say: Say) -> ConsoleLink:
    """Start a console. Say its URL, and a warning where others can read along.

    Raises:
        ConfigError: the console cannot be started.
    """
    link = ConsoleLink(settings, MonotonicClock())
    if (warning := settings.address.warning) is not None:
        say(warning)
    say(f"console: {link.url}")
    return link
