"""Wakes the loop at absolute deadlines; a deadline that has passed is skipped and counted, never caught up."""

from __future__ import annotations

import gc
from dataclasses import dataclass

from .clock import Clock
from .errors import ConfigError

_WAKE_MARGIN_NS = 5_000_000
"""Slack that garbage collection must leave before the next deadline."""
_LATEST_GENERATION_EVERY = 20


@dataclass(frozen=True, slots=True)
class Wake:
    """One wake-up."""

    tick: int
    """Deadlines since the start, skipped ones included."""
    deadline_ns: int
    """When the tick should have begun."""
    woke_ns: int
    """When it did."""
    skipped: int
    """Deadlines passed over since the wake-up before."""

    @property
    def lateness_ns(self) -> int:
        """How long after its deadline the loop woke."""
        return self.woke_ns - self.deadline_ns


class Pacer:
    """Deadlines at start + tick · period on the given clock."""

    def __init__(self, clock: Clock, period_ns: int, collect_garbage: bool = False) -> None:
        """Prepare; the first deadline is set by `start`.

        Args:
            clock: what to wait on.
            period_ns: one tick.
            collect_garbage: collect the young generations in the slack, for a loop that runs with `gc` disabled.

        Raises:
            ConfigError: the period is not positive.
        """
        if period_ns <= 0:
            raise ConfigError(f"expected a period above 0 ns, found {period_ns}")
        self.period_ns = period_ns
        self._clock, self._collects = clock, collect_garbage
        self._longest_collection_ns = [0, 0]
        self.start()

    def start(self) -> None:
        """Make now the first deadline."""
        self._start_ns = self._clock.now_ns()
        self._tick = -1
        self.skipped = 0
        """Deadlines skipped since the start."""

    def wait(self) -> Wake:
        """Sleep until the next deadline that has not passed yet."""
        next_tick = self._tick + 1
        late_ns = self._clock.now_ns() - (self._start_ns + next_tick * self.period_ns)
        # The first deadline is the start itself, which is always a little past by now.
        skipped = -(-late_ns // self.period_ns) if late_ns > 0 and next_tick else 0
        self._tick = next_tick + skipped
        self.skipped += skipped
        deadline_ns = self._start_ns + self._tick * self.period_ns
        if self._collects:
            self._collect(deadline_ns)
        self._clock.sleep_until_ns(deadline_ns)
        return Wake(self._tick, deadline_ns, self._clock.now_ns(), skipped)

    def _collect(self, deadline_ns: int) -> None:
        """Collect generation 0, every twentieth time 0 and 1, if twice the longest so far fits before the deadline."""
        generation = int(self._tick % _LATEST_GENERATION_EVERY == 0)
        before_ns = self._clock.now_ns()
        if before_ns + 2 * self._longest_collection_ns[generation] + _WAKE_MARGIN_NS > deadline_ns:
            return
        gc.collect(generation)
        took_ns = self._clock.now_ns() - before_ns
        self._longest_collection_ns[generation] = max(self._longest_collection_ns[generation], took_ns)
