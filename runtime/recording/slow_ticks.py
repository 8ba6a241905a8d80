"""The slowest ticks of a run or of a recording, and the ticks around each, in bounded memory."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from gatort.runtime.durations import Histogram

from .causes import Cause, TimedTick, Typical, probable_cause
from .messages import TickMessage, TokensMessage
from .reader import Recording

MOST_SLOW: Final = 10
"""Number of slow ticks that a run keeps."""
AROUND: Final = 2
"""Number of ticks that are kept before a slow one, and after it."""


@dataclass(frozen=True, slots=True)
class ExplainedTick:
    """A tick and the probable cause of its duration."""

    timed: TimedTick
    cause: Cause
    stages_ms: dict[str, float]
    """Duration of each stage that the tick reached."""


@dataclass(frozen=True, slots=True)
class SlowTick:
    """A slow tick between its neighbours."""

    slow: ExplainedTick
    around: list[ExplainedTick]
    """The ticks before it and after it, in order."""


@dataclass(order=True, slots=True)
class _Kept:
    """A tick that is among the slowest so far; ordered by misses first, then by the lost time."""

    missed: bool
    lost_ns: int
    number: int
    slow: TimedTick = field(compare=False)
    around: list[TimedTick] = field(compare=False)
    after: int = field(default=AROUND, compare=False)
    """Number of ticks after it that are still to come."""


class SlowTicks:
    """Keeps the slowest ticks of a run, each with the ticks around it. Fed in the slack."""

    def __init__(self, stages: Sequence[str], budget_ns: int, period_ns: int, most: int) -> None:
        """Prepare.

        Args:
            stages: name of the stage that ends at each stamp after the first.
            budget_ns: longest tick that is not a miss.
            period_ns: time between two deadlines.
            most: number of ticks to keep.
        """
        self._stages = tuple(stages)
        self._budget_ns = budget_ns
        self._period_ns = period_ns
        self._most = most
        self._kept: list[_Kept] = []
        self._open: list[_Kept] = []
        self._before: deque[TimedTick] = deque(maxlen=AROUND)
        self._first_ns: int | None = None

    def add(self, tick: TickMessage, passes: int) -> None:
        """Take the next tick and the number of its forward passes."""
        timed = self._timed(tick, passes)
        for kept in self._open:
            kept.around.append(timed)
            kept.after -= 1
        self._open = [kept for kept in self._open if kept.after]

        entry = _Kept(timed.missed, timed.lost_ns, tick.tick, timed, list(self._before))
        if len(self._kept) < self._most:
            heapq.heappush(self._kept, entry)
            self._open.append(entry)
        elif self._kept and entry > self._kept[0]:
            heapq.heapreplace(self._kept, entry)
            self._open.append(entry)
        self._before.append(timed)

    def _timed(self, tick: TickMessage, passes: int) -> TimedTick:
        if self._first_ns is None:
            self._first_ns = tick.woke_ns
        before = self._before[-1].tick if self._before else None
        due_ns = tick.deadline_ns - tick.skipped * self._period_ns
        # A deadline that passed during the tick before is that tick's doing.
        busy = before is not None and bool(before.stamps_ns) and before.stamps_ns[-1] > due_ns
        skipped_ns = 0 if busy else tick.skipped * self._period_ns
        return TimedTick(
            s=(tick.woke_ns - self._first_ns) * 1e-9,
            tick=tick,
            passes=passes,
            late_ns=max(0, tick.lateness_ns) + skipped_ns,
            missed=tick.took_ns > self._budget_ns or skipped_ns > 0 or bool(tick.reason),
        )

    def slowest(self, typical: Typical) -> list[SlowTick]:
        """Return the kept ticks: misses first, then by the time that was lost."""
        return [
            SlowTick(self._explained(kept.slow, typical), self._neighbours(kept, typical))
            for kept in sorted(self._kept, reverse=True)
        ]

    def misses(self, typical: Typical) -> list[SlowTick]:
        """Return those of the kept ticks that are misses, the slowest first."""
        return [each for each in self.slowest(typical) if each.slow.timed.missed]

    def _neighbours(self, kept: _Kept, typical: Typical) -> list[ExplainedTick]:
        return [self._explained(each, typical) for each in kept.around]

    def _explained(self, timed: TimedTick, typical: Typical) -> ExplainedTick:
        named = zip(self._stages, timed.tick.stages_ns, strict=False)
        return ExplainedTick(
            timed,
            probable_cause(timed, self._stages, typical),
            {name: stage_ns * 1e-6 for name, stage_ns in named},
        )


def slow_ticks(recording: Recording, most: int) -> list[SlowTick]:
    """Return the slowest ticks of a recording; none of a robot's own, which has no ticks.

    Args:
        recording: recording of a run.
        most: largest number of ticks.
    """
    policy = recording.policy
    if policy is None:
        return []
    period_ns = policy.spec.period_ns
    found = SlowTicks(policy.stages, period_ns, period_ns, most)
    ticks = Histogram()
    stages = {name: Histogram() for name in policy.stages}
    passes: Counter[int] = Counter()
    newest = 0
    for _, _, message in recording.messages():
        if isinstance(message, TokensMessage):
            newest = message.passes
        elif isinstance(message, TickMessage):
            found.add(message, newest)
            passes[newest] += 1
            newest = 0
            ticks.add(max(0, message.took_ns))
            for name, stage_ns in zip(policy.stages, message.stages_ns, strict=False):
                stages[name].add(max(0, stage_ns))
    typical = Typical(
        tick_ns=_median_ns(ticks),
        stages_ns={name: _median_ns(stage) for name, stage in stages.items()},
        passes=sorted(passes.elements())[passes.total() // 2] if passes else 0,
    )
    return found.slowest(typical)


def _median_ns(durations: Histogram) -> float:
    return durations.percentiles().p50_ms * 1e6
