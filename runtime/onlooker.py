"""A thread that displays values offered to it. No loop ever waits for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from threading import Event, Thread
from types import TracebackType
from typing import Self

CLOSE_S = 2.0
"""Longest wait, at the end, for a terminal or a window that blocks."""


class Onlooker(ABC):
    """A display with a thread of its own inside a `with` block. A subclass keeps the offers."""

    def __init__(self, name: str) -> None:
        """Prepare the thread. Entering the `with` block starts it.

        Args:
            name: name of the thread.
        """
        self._offered = Event()
        self._closed = False
        # A daemon, so that a terminal that blocks for ever cannot keep the process alive.
        self._thread = Thread(target=self._show, name=name, daemon=True)

    @abstractmethod
    def _show(self) -> None:
        """Display the offers, once for each item of `_offers`. Runs in the thread."""

    def _offers(self) -> Iterator[None]:
        """Yield after each offer, and once more at the end."""
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
