"""Wakes the loop at absolute deadlines; a deadline that has passed is skipped and counted, never caught up."""

from __future__ import annotations

import gc
from dataclasses import dataclass

from .clock import Clock
from .errors import ConfigError

_WAKE_MARGIN_NS = 5_000_000
"""Slack that garbage collection must leave before the next deadline."""
_DUE_EVERY_TICKS = (1, 20, 1_200)
"""When each generation is collected: at 20 Hz the youngest every tick, the next every second, the last every minute."""
_FIRST_GUESSES_NS = (0, 0, 10_000_000)
"""How long each is taken to last before it was measured; the last one walks the whole heap that is not frozen."""


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
            collect_garbage: collect garbage in the slack, for a loop that runs with `gc` disabled: young generations
                often, the last one now and then, each only where what it took last time leaves enough.

        Raises:
            ConfigError: the period is not positive.
        """
        if period_ns <= 0:
            raise ConfigError(f"expected a period above 0 ns, found {period_ns}")
        self.period_ns = period_ns
        self._clock, self._collects = clock, collect_garbage
        self._took_ns = list(_FIRST_GUESSES_NS)
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
        """Collect the oldest generation that is due and that fits, at twice what it took last time."""
        before_ns = self._clock.now_ns()
        slack_ns = deadline_ns - before_ns - _WAKE_MARGIN_NS
        for generation in (2, 1, 0):
            if (
                self._tick % _DUE_EVERY_TICKS[generation] == 0
                and 2 * self._took_ns[generation] <= slack_ns
            ):
                gc.collect(generation)
                self._learn(generation, self._clock.now_ns() - before_ns)
                return

    def _learn(self, generation: int, took_ns: int) -> None:
        """A younger generation takes no longer, so that one slow collection does not end that generation's for good."""
        self._took_ns[generation] = took_ns
        for younger in range(generation):
            self._took_ns[younger] = min(self._took_ns[younger], took_ns)
