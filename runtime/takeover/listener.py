"""A thread that hears a person's device. The loop takes its newest wish and never waits."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from threading import Thread
from typing import Final, Protocol

from gatort.runtime.clock import Clock
from gatort.runtime.robot import Observation

from .wish import Wish

LOOK_S: Final = 0.05
"""Longest time between two signs of life of a device that has nothing to say."""
CLOSE_S: Final = 1.0
"""Longest wait for the thread at the end."""


class Controls(Protocol):
    """Meaning of a device's keys, buttons and axes. It has no clock and no thread."""

    help: str
    """Keys or buttons in one line."""

    def take(self, data: bytes, now_ns: int) -> None:
        """Take bytes that were read from the device."""
        ...

    def wish(self, now_ns: int) -> Wish:
        """Return the person's wish at an instant."""
        ...


class ListenedDevice:
    """A device that a thread reads. Implements `TakeoverDevice`.

    The thread gives a sign of life every 50 ms. It gives none once the device was unplugged, its
    terminal was lost, or the thread hangs.
    """

    def __init__(
        self,
        name: str,
        open_it: Callable[[], AbstractContextManager[int]],
        controls: Controls,
        clock: Clock,
    ) -> None:
        """Prepare. `listening` opens the device.

        Args:
            name: name for tables.
            open_it: opens the device, and yields its file descriptor.
            controls: meaning of its bytes.
            clock: the loop's clock.
        """
        self.name = name
        self.help = controls.help
        self._open_it = open_it
        self._controls = controls
        self._clock = clock
        self._newest = controls.wish(clock.now_ns())
        self._is_closed = False

    def wish(self, observation: Observation) -> Wish:  # noqa: ARG002
        """See `TakeoverDevice.wish`."""
        return self._newest

    @contextmanager
    def listening(self) -> Iterator[None]:
        """See `TakeoverDevice.listening`."""
        with self._open_it() as descriptor:
            self._newest = self._controls.wish(self._clock.now_ns())
            thread = Thread(target=self._listen, args=(descriptor,), name=self.name, daemon=True)
            thread.start()
            try:
                yield
            finally:
                self._is_closed = True
                thread.join(CLOSE_S)

    def _listen(self, descriptor: int) -> None:
        """Read until the device is gone. Runs in the thread."""
        with suppress(OSError):
            while not self._is_closed:
                readable, _, _ = select.select([descriptor], [], [], LOOK_S)
                data = os.read(descriptor, 4_096) if readable else None
                if data == b"":
                    return
                now_ns = self._clock.now_ns()
                if data is not None:
                    self._controls.take(data, now_ns)
                self._newest = self._controls.wish(now_ns)
