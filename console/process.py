"""The console's process: it serves the pages of one live run, and ends with that run.

    python -P -m gatort.console.process LINK RUN PARENT SETTINGS

It may be slow, hang or end without the run noticing. Only its signal reaches the run.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from typing import Final

import msgspec

from gatort.runtime.clock import Clock, MonotonicClock
from gatort.runtime.errors import GatortError
from gatort.runtime.parent import end_before_others, end_with_parent
from gatort.runtime.process_name import name_process

from .access import Access
from .app import LivePages, make_app
from .feed import Feed
from .link import ConsoleSettings
from .listening import listening, server
from .messages import HELD, LARGEST_PACKET_BYTES, STOP, Event, Message

LOOK_S: Final = 0.02
"""Time between two looks at the link. A process that waits in `recv` would be woken by each tick,
and on a crowded machine the run would lose its core to it."""
FAREWELL_S: Final = 0.3
"""Time for the pages to get the last messages."""
HOLD_NS: Final = 100_000_000
"""Shortest time between two packets that tell the run that a page holds it."""
FILES: Final = {"/": "live.html", "/live.js": "live.js", "/plots.js": "plots.js"}


class RunLink:
    """The console's end of the link."""

    def __init__(
        self, link: socket.socket, run: int, settings: ConsoleSettings, clock: Clock
    ) -> None:
        """Take over a link.

        Args:
            link: one end of a `SOCK_SEQPACKET` pair.
            run: descriptor of the run's process (pidfd_open(2)).
            settings: signal that stops the run.
            clock: the machine's monotonic clock.
        """
        link.setblocking(False)
        self._link = link
        self._run = run
        self._settings = settings
        self._clock = clock
        self._decode = msgspec.json.Decoder(Message).decode
        self._held_ns = -HOLD_NS
        self._is_stopped = False

    def stop(self, by: str) -> None:
        """Send the run the operator's signal."""
        if self._is_stopped and not self._settings.repeats:
            return
        self._is_stopped = True
        with suppress(OSError):
            self._link.send(STOP + by.encode())
        with suppress(OSError):  # It has ended by itself.
            signal.pidfd_send_signal(self._run, signal.Signals(self._settings.stop_signal))

    def hold(self) -> None:
        """Tell the run that a page holds it."""
        now_ns = self._clock.now_ns()
        if now_ns - self._held_ns >= HOLD_NS:
            self._held_ns = now_ns
            with suppress(OSError):
                self._link.send(HELD + str(now_ns).encode())

    async def follow(self, feed: Feed) -> None:
        """Keep the run's messages until the run ends the link."""
        while True:
            try:
                packet = self._link.recv(LARGEST_PACKET_BYTES)
            except BlockingIOError:
                await asyncio.sleep(LOOK_S)
                continue
            except OSError:
                return
            if not packet:
                return
            feed.take(self._read(packet))

    def _read(self, packet: bytes) -> Message:
        """Decode a message; one that cannot be read must not cost the pages and their Stop."""
        try:
            message: Message = self._decode(packet)
        except msgspec.MsgspecError as error:
            return Event.now(f"the console cannot read a message of the run: {error}", "note")
        return message


async def serve(link: socket.socket, run: int, settings: ConsoleSettings) -> None:
    """Serve the pages until the run ends the link.

    Raises:
        ConfigError: the address cannot be bound.
    """
    listener, address = listening(settings.address)
    access = Access(address)
    clock = MonotonicClock()
    feed = Feed()
    run_link = RunLink(link, run, settings, clock)
    pages = LivePages(feed, clock, run_link.stop, run_link.hold)
    served = server(make_app(access, FILES, pages.routes))
    link.send(access.invite().encode())
    _silence()

    serving = asyncio.create_task(served.serve([listener]))
    await run_link.follow(feed)
    await asyncio.sleep(FAREWELL_S)
    served.should_exit = served.force_exit = True
    await serving


def _silence() -> None:
    """Write no more into the memory that the run reads the last words of a failed start from."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stderr.fileno())
    os.close(nowhere)


def main() -> int:
    """Serve a console: `python -m gatort.console.process LINK RUN PARENT SETTINGS`."""
    descriptor, run, parent, text = sys.argv[1:]
    end_with_parent(int(parent))
    name_process("console")
    end_before_others()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # A core file would hold the cookies.
    settings = msgspec.json.decode(text, type=ConsoleSettings)
    with socket.socket(fileno=int(descriptor)) as link:
        try:
            asyncio.run(serve(link, int(run), settings))
        except GatortError as error:
            with suppress(OSError):
                link.send(str(error).encode())
            return 2
        except (BrokenPipeError, ConnectionResetError):
            return 0
        finally:
            os.close(int(run))
    return 0


if __name__ == "__main__":
    sys.exit(main())
