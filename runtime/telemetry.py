"""What the ticks cost: a stamp per stage in a preallocated array, histograms filled in the slack.

During a tick only `mark` runs: one clock reading and one integer stored. `record` moves a finished tick into the
histograms after its command went out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hdrh.histogram import HdrHistogram

from .clock import Clock, MonotonicClock
from .pacer import Wake
from .spec import PolicySpec

TICK = "tick"
LATENESS = "lateness"
_SHORTEST_NS, _LONGEST_NS, _DIGITS = 100, 60_000_000_000, 3
_SECOND_NS = 1_000_000_000


def stage_names(spec: PolicySpec) -> tuple[str, ...]:
    """The stages of a tick: observe, tokenize, prefill, decode_1 … decode_{A−1}, detokenize, guard, command."""
    decodes = tuple(f"decode_{index}" for index in range(1, spec.action_tokens))
    return ("observe", "tokenize", "prefill", *decodes, "detokenize", "guard", "command")


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Durations of one stage, in nanoseconds."""

    count: int
    p50_ns: int
    p99_ns: int
    p999_ns: int
    max_ns: int


@dataclass(frozen=True, slots=True)
class Rate:
    """Whole ticks per second by their deadlines."""

    now_hz: float
    """Over the last whole second."""
    average_hz: float
    worst_second_hz: float


class Telemetry:
    """Per-tick stamps and histograms of one loop; memory is fixed when it is made."""

    def __init__(
        self, spec: PolicySpec, capacity: int = 1_200, clock: Clock | None = None, budget_ns: int | None = None
    ) -> None:
        """Allocate.

        Args:
            spec: gives the stages and the period.
            capacity: ticks whose stamps are kept, the oldest overwritten.
            clock: what stages are timed with; the machine's, also where the loop runs on a virtual clock.
            budget_ns: a longer tick is a miss; one period when absent.
        """
        self.stages = stage_names(spec)
        self.budget_ns = spec.period_ns if budget_ns is None else budget_ns
        # Written once here, so that no page of it is touched for the first time inside the loop.
        self.stamps = np.full((capacity, len(self.stages) + 1), 0, np.int64)  # (ticks, stages + 1) ns
        """Ring of stamps: column 0 when the tick began, column i + 1 when stage i ended; 0 where it never did."""
        self.ticks = 0
        """Ticks begun, refused ones included."""
        self.refused = 0
        """Ticks that sent no command."""
        self.misses = 0
        """Ticks over the budget, and skipped deadlines that no such tick explains."""
        self._clock = clock or MonotonicClock()
        self._histograms = {
            name: HdrHistogram(_SHORTEST_NS, _LONGEST_NS, _DIGITS) for name in (*self.stages, TICK, LATENESS)
        }
        self._row, self._column = self.stamps[0], 0
        self._over = 0
        self._first_deadline_ns = self._deadline_ns = 0
        self._second = self._in_second = self._whole = 0
        self._last_second: int | None = None
        self._worst_second: int | None = None

    def begin(self, wake: Wake) -> None:
        """Open a tick's row."""
        self._row = self.stamps[self.ticks % len(self.stamps)]
        self._row[:] = 0
        self._row[0] = self._clock.now_ns()
        self._column = 0
        self._count_wake(wake)
        self.ticks += 1

    def mark(self) -> None:
        """Stamp the end of the next stage."""
        self._column += 1
        self._row[self._column] = self._clock.now_ns()

    def record(self) -> None:
        """Move the finished tick into the histograms; call it in the slack."""
        self._over = 0
        row = self._row.tolist()
        if self._column < len(self.stages):
            self.refused += 1
            row = row[: self._column + 1]
        else:
            self._whole += 1
            self._in_second += 1
            self._histograms[TICK].record_value(row[-1] - row[0])
            for name, start_ns, end_ns in zip(self.stages, row, row[1:], strict=False):
                self._histograms[name].record_value(end_ns - start_ns)
        if row[-1] - row[0] > self.budget_ns:
            self.misses += 1
            self._over = 1

    def _count_wake(self, wake: Wake) -> None:
        """A tick over the budget makes the next deadline skip: one miss, not two."""
        self.misses += max(0, wake.skipped - self._over)
        self._histograms[LATENESS].record_value(max(0, wake.lateness_ns))
        if not self.ticks:
            self._first_deadline_ns = wake.deadline_ns
        self._deadline_ns = wake.deadline_ns
        second = (wake.deadline_ns - self._first_deadline_ns) // _SECOND_NS
        if second > self._second:
            skipped_whole = second > self._second + 1
            self._last_second = 0 if skipped_whole else self._in_second
            worst = 0 if skipped_whole else self._in_second
            self._worst_second = worst if self._worst_second is None else min(self._worst_second, worst)
            self._second, self._in_second = second, 0

    def percentiles(self, stage: str) -> Percentiles:
        """Durations of a stage, of `TICK` or of `LATENESS`; zeros when nothing was recorded."""
        histogram = self._histograms[stage]
        if not histogram.get_total_count():
            return Percentiles(0, 0, 0, 0, 0)
        p50, p99, p999 = (int(histogram.get_value_at_percentile(p)) for p in (50.0, 99.0, 99.9))
        return Percentiles(int(histogram.get_total_count()), p50, p99, p999, int(histogram.get_max_value()))

    @property
    def rate(self) -> Rate:
        """Ticks per second now, on average and in the worst whole second."""
        average = self._average_hz()
        now = average if self._last_second is None else float(self._last_second)
        return Rate(now, average, now if self._worst_second is None else float(self._worst_second))

    def _average_hz(self) -> float:
        span_ns = self._deadline_ns - self._first_deadline_ns
        return (self._whole - 1) * _SECOND_NS / span_ns if span_ns > 0 and self._whole > 1 else 0.0

    def tick_durations_ns(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Whole-tick durations still in the ring, oldest first; a new array."""
        kept = min(self.ticks, len(self.stamps))
        order = np.arange(self.ticks - kept, self.ticks) % len(self.stamps)
        rows = self.stamps[order]
        rows = rows[rows[:, -1] > 0]
        return np.asarray(rows[:, -1] - rows[:, 0])
