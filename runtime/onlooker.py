"""A thread that shows what it is offered, and that no loop ever waits for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from threading import Event, Thread
from types import TracebackType
from typing import Self

CLOSE_S = 2.0
"""How long the end waits for a terminal or a window that blocks."""


class Onlooker(ABC):
    """Something with a thread of its own between `with` and its end; a subclass keeps what it is offered."""

    def __init__(self, name: str) -> None:
        self._offered, self._closed = Event(), False
        # A daemon, so that a terminal that never unblocks cannot keep the process alive.
        self._thread = Thread(target=self._show, name=name, daemon=True)

    @abstractmethod
    def _show(self) -> None:
        """Show what is offered, once for each of `_offers`; runs in the thread."""

    def _offers(self) -> Iterator[None]:
        """Each time that something was offered, and a last time at the end."""
        closed = False
        while not closed:
            self._offered.wait()
            self._offered.clear()
            closed = self._closed
            yield

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed = True
        self._offered.set()
        self._thread.join(CLOSE_S)
