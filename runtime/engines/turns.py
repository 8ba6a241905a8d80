"""Engines over the same weights that share the cores: a tick waits for its turn, the most urgent
first.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from threading import Lock

from gatort.runtime.clock import Clock
from gatort.runtime.context import Frame
from gatort.runtime.errors import EngineError

from .engine import Engine, Mark, no_mark

LONGEST_S = 60.0
"""Longest wait for a turn, also of a tick that is never due, as in a warm-up."""
_Waiting = tuple[int, int, Lock]
"""A waiting thread: when its action is due, its place among equals, and the lock it waits for."""


class Turns:
    """Lets a number of threads compute at once; of those that wait, the one that is due first.

    A thread waits no longer than until its action is due: later, the engine's time would be taken
    from ticks that can still be in time.
    """

    def __init__(self, at_once: int, clock: Clock) -> None:
        """Make `at_once` turns. Instants are on `clock`."""
        self._clock = clock
        self._free = at_once
        self._waiting: list[_Waiting] = []
        self._places = count()
        self._guard = Lock()

    @contextmanager
    def take(self, due_ns: int) -> Iterator[None]:
        """Wait for a turn and keep it until the end of the context.

        Args:
            due_ns: instant after which the action is of no use.

        Raises:
            EngineError: no turn was free before that.
        """
        self._begin(due_ns)
        try:
            yield
        finally:
            self._end()

    def _begin(self, due_ns: int) -> None:
        with self._guard:
            if self._free:
                self._free -= 1
                return
            turn = Lock()
            turn.acquire()
            waiting = (due_ns, next(self._places), turn)
            heapq.heappush(self._waiting, waiting)

        left_s = max(0, due_ns - self._clock.now_ns()) * 1e-9
        if turn.acquire(timeout=min(left_s, LONGEST_S)):
            return
        with self._guard:
            if waiting not in self._waiting:  # The turn came in the last instant.
                return
            self._waiting.remove(waiting)
            heapq.heapify(self._waiting)
        raise EngineError(
            "expected a turn on the engine before the action is due, found none: "
            "the ticks of other robots take it; serve fewer robots"
        )

    def _end(self) -> None:
        with self._guard:
            if self._waiting:
                heapq.heappop(self._waiting)[2].release()  # Hand the turn over.
            else:
                self._free += 1


class TurnEngine:
    """An engine whose passes wait for a turn. Implements `Engine`."""

    def __init__(self, engine: Engine, turns: Turns) -> None:
        """Wrap an engine with a cache of its own. All engines of a fleet share the turns."""
        self.name = engine.name
        self.stepwise = engine.stepwise
        self.due_ns = sys.maxsize
        """Instant after which the next tick's action is of no use. Its user sets it."""
        self._engine = engine
        self._turns = turns

    def see(self, frame: Frame) -> None:
        """See `Engine.see`.

        Raises:
            EngineError: the pass failed, or had no turn in time.
        """
        with self._turns.take(self.due_ns):
            self._engine.see(frame)

    def tick(self, frame: Frame, mark: Mark = no_mark) -> None:
        """See `Engine.tick`.

        Raises:
            EngineError: a pass failed, or had no turn in time.
        """
        with self._turns.take(self.due_ns):
            self._engine.tick(frame, mark)

    def reset(self) -> None:
        """See `Engine.reset`."""
        self._engine.reset()
