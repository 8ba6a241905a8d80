"""Pacing: wake the loop at absolute deadlines.

A missed deadline is skipped and counted, never caught up.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass

from .clock import Clock
from .errors import ConfigError

_WAKE_MARGIN_NS = 5_000_000
"""Slack that garbage collection must leave before the next deadline."""
_DUE_EVERY_TICKS = (1, 20, 1_200)
"""Interval of each generation: at 20 Hz every tick, every second, every minute."""
_FIRST_GUESSES_NS = (0, 0, 10_000_000)
"""Assumed duration of each generation before it was measured; the last walks the unfrozen heap."""


@dataclass(frozen=True, slots=True)
class Wake:
    """One wake-up."""

    tick: int
    """Number of deadlines since the start, skipped ones included."""
    deadline_ns: int
    """Instant at which the tick should have begun."""
    woke_ns: int
    """Instant at which it began."""
    skipped: int
    """Number of deadlines passed over since the previous wake-up."""

    @property
    def lateness_ns(self) -> int:
        """Time from the deadline to the wake-up."""
        return self.woke_ns - self.deadline_ns


class Pacer:
    """Deadlines at start + tick · period on the given clock."""

    def __init__(self, clock: Clock, period_ns: int, collect_garbage: bool = False) -> None:
        """Prepare; `start` sets the first deadline.

        Args:
            clock: clock to wait on.
            period_ns: one tick.
            collect_garbage: collect garbage in the slack, for a loop that runs with `gc` disabled.
                Young generations are collected often, the last one seldom. Each must fit: twice
                its last duration must leave enough slack.

        Raises:
            ConfigError: the period is not positive.
        """
        if period_ns <= 0:
            raise ConfigError(f"expected a period above 0 ns, found {period_ns}")
        self.period_ns = period_ns
        self._clock = clock
        self._collects = collect_garbage
        self._took_ns = list(_FIRST_GUESSES_NS)
        self.start()

    def start(self) -> None:
        """Make now the first deadline."""
        self._start_ns = self._clock.now_ns()
        self._tick = -1
        self.skipped = 0
        """Number of deadlines skipped since the start."""

    def wait(self) -> Wake:
        """Sleep until the next deadline in the future."""
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
        """Collect the oldest generation that is due and fits, at twice its last duration."""
        before_ns = self._clock.now_ns()
        slack_ns = deadline_ns - before_ns - _WAKE_MARGIN_NS
        for generation in (2, 1, 0):
            due = self._tick % _DUE_EVERY_TICKS[generation] == 0
            if due and 2 * self._took_ns[generation] <= slack_ns:
                gc.collect(generation)
                self._learn(generation, self._clock.now_ns() - before_ns)
                return

    def _learn(self, generation: int, took_ns: int) -> None:
        """Store a duration. A younger generation takes no longer than an older one.

        Without that rule, one slow collection of a generation would end it for good.
        """
        self._took_ns[generation] = took_ns
        for younger in range(generation):
            self._took_ns[younger] = min(self._took_ns[younger], took_ns)
