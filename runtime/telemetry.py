"""What the ticks cost: a stamp per stage in a preallocated array, histograms filled in the slack.

During a tick only `mark` runs: one clock reading and one integer stored. `record` moves a finished tick into the
histograms after its command went out. What a loop reports comes from the histograms, which hold every tick since the
start; the stamps of the newest ticks are kept for pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from .clock import (
    Clock,
    MonotonicClock,
)
from .pacer import Wake
from .spec import PolicySpec

TICK = "tick"
LATENESS = "lateness"
_SHORTEST_NS, _LONGEST_NS, _DIGITS = 100, 60_000_000_000, 3
_SECOND_NS = 1_000_000_000
_FRACTIONS = (0.5, 0.99, 0.999)


def stage_names(spec: PolicySpec, stepwise: bool = True) -> tuple[str, ...]:
    """The stages of a tick: observe, tokenize, prefill, decode_1 … decode_{A−1}, detokenize, guard, command.

    An engine that is not stepwise runs prefill and decodes as one stage, `passes`.
    """
    decodes = (f"decode_{index}" for index in range(1, spec.action_tokens))
    passes = ("prefill", *decodes) if stepwise else ("passes",)
    return ("observe", "tokenize", *passes, "detokenize", "guard", "command")


@dataclass(frozen=True, slots=True)
class Percentiles:
    """A distribution of durations; zeros when there are none."""

    count: int
    p50_ms: float
    p99_ms: float
    p99_9_ms: float
    max_ms: float

    @classmethod
    def of_ns(cls, durations_ns: NDArray[np.int64]) -> Self:
        """Summarise durations (N,), by the same rule as a loop's."""
        histogram = _empty_histogram()
        for duration_ns in durations_ns.tolist():
            histogram.record_value(duration_ns)
        return cls.of_histogram(histogram)

    @classmethod
    def of_histogram(cls, histogram: HdrHistogram) -> Self:
        """Summarise what a histogram has counted; percentiles to its three digits, the longest exactly."""
        if not histogram.get_total_count():
            return cls(0, 0.0, 0.0, 0.0, 0.0)
        found = histogram.get_percentile_to_value_dict([100 * fraction for fraction in _FRACTIONS])
        longest_ns = int(histogram.max_value)
        # A histogram gives the upper end of a bucket, which may lie above everything that fell into it.
        p50_ms, p99_ms, p99_9_ms = (
            _ms(min(found[100 * fraction], longest_ns)) for fraction in _FRACTIONS
        )
        return cls(int(histogram.get_total_count()), p50_ms, p99_ms, p99_9_ms, _ms(longest_ns))


def _empty_histogram() -> HdrHistogram:
    return HdrHistogram(_SHORTEST_NS, _LONGEST_NS, _DIGITS)


def _ms(duration_ns: int) -> float:
    return round(duration_ns * 1e-6, 4)


@dataclass(frozen=True, slots=True)
class Rate:
    """Whole ticks per second by their deadlines."""

    now_hz: float
    """Over the last whole second."""
    average_hz: float
    worst_second_hz: float


class Misses:
    """Ticks over the budget, and skipped deadlines that no such tick explains: a tick too long is one miss, not two."""

    def __init__(self, budget_ns: int) -> None:
        """Count from zero; a tick longer than `budget_ns` is a miss."""
        self.total = 0
        self._budget_ns = budget_ns
        self._over = False

    def woke(self, skipped: int) -> int:
        """A tick begins, so many deadlines after the one that followed the tick before; returns the misses in it."""
        misses = max(0, skipped - self._over)
        self.total += misses
        return misses

    def ended(self, took_ns: int) -> int:
        """The tick is over, whole or refused; returns the misses in it, 0 or 1."""
        self._over = took_ns > self._budget_ns
        self.total += self._over
        return int(self._over)


class Telemetry:
    """Per-tick stamps and histograms of one loop; memory is fixed when it is made."""

    def __init__(
        self,
        spec: PolicySpec,
        capacity: int = 1_200,
        clock: Clock | None = None,
        budget_ns: int | None = None,
        stepwise: bool = True,
    ) -> None:
        """Allocate.

        Args:
            spec: gives the stages and the period.
            capacity: ticks whose stamps are kept, the oldest overwritten.
            clock: what stages are timed with; the machine's, also where the loop runs on a virtual clock.
            budget_ns: a longer tick is a miss; one period when absent.
            stepwise: the engine's, see `stage_names`.
        """
        self.stages = stage_names(spec, stepwise)
        self.budget_ns = spec.period_ns if budget_ns is None else budget_ns
        # Written once here, so that no page of it is touched for the first time inside the loop.
        self.stamps = np.full(
            (capacity, len(self.stages) + 1), 0, np.int64
        )  # (ticks, stages + 1) ns
        """Ring of stamps: column 0 when the tick began, column i + 1 when stage i ended; 0 where it never did."""
        self.ticks = 0
        """Ticks begun, refused ones included."""
        self.refused = 0
        """Ticks that sent no command."""
        self._clock = clock or MonotonicClock()
        self._histograms = {name: _empty_histogram() for name in (*self.stages, TICK, LATENESS)}
        self._row, self._column = self.stamps[0], 0
        self._misses = Misses(self.budget_ns)
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
        """Move the finished tick into the histograms, as far as it came; call it in the slack."""
        row = self._row[: self._column + 1].tolist()
        for name, start_ns, end_ns in zip(self.stages, row, row[1:], strict=False):
            self._histograms[name].record_value(end_ns - start_ns)
        self._histograms[TICK].record_value(row[-1] - row[0])
        if self._column < len(self.stages):
            self.refused += 1
        else:
            self._whole += 1
            self._in_second += 1
        self._misses.ended(row[-1] - row[0])

    def _count_wake(self, wake: Wake) -> None:
        self._misses.woke(wake.skipped)
        self._histograms[LATENESS].record_value(max(0, wake.lateness_ns))
        if not self.ticks:
            self._first_deadline_ns = wake.deadline_ns
        self._deadline_ns = wake.deadline_ns
        second = (wake.deadline_ns - self._first_deadline_ns) // _SECOND_NS
        if second > self._second:
            skipped_whole = second > self._second + 1
            self._last_second = 0 if skipped_whole else self._in_second
            worst = 0 if skipped_whole else self._in_second
            self._worst_second = (
                worst if self._worst_second is None else min(self._worst_second, worst)
            )
            self._second, self._in_second = second, 0

    def percentiles(self, name: str) -> Percentiles:
        """Durations of a stage, of `TICK` or of `LATENESS` since the start.

        Refused ticks count as far as they came: they are often the slow ones.
        """
        return Percentiles.of_histogram(self._histograms[name])

    def summary(self) -> list[tuple[str, Percentiles]]:
        """The whole tick, then each stage that was reached."""
        rows = [(name, self.percentiles(name)) for name in (TICK, *self.stages)]
        return [(name, found) for name, found in rows if found.count]

    @property
    def misses(self) -> int:
        """See `Misses`."""
        return self._misses.total

    @property
    def rate(self) -> Rate:
        """Ticks per second now, on average and in the worst whole second."""
        average = self._average_hz()
        now = average if self._last_second is None else float(self._last_second)
        return Rate(now, average, now if self._worst_second is None else float(self._worst_second))

    def _average_hz(self) -> float:
        span_ns = self._deadline_ns - self._first_deadline_ns
        return (self._whole - 1) * _SECOND_NS / span_ns if span_ns > 0 and self._whole > 1 else 0.0

    def stage_durations_ns(self) -> NDArray[np.int64]:
        """Durations (N, S) of the ticks still in the ring, oldest first; a new array.

        0 for a stage that a refused tick did not reach.
        """
        kept = min(self.ticks, len(self.stamps))
        stamps = self.stamps[np.arange(self.ticks - kept, self.ticks) % len(self.stamps)]
        return np.where(stamps[:, 1:] > 0, np.diff(stamps, axis=1), 0)

    def tick_durations_ns(self) -> NDArray[np.int64]:
        """Durations (N,) of whole ticks, as `stage_durations_ns` gives them."""
        durations_ns: NDArray[np.int64] = self.stage_durations_ns().sum(axis=1)
        return durations_ns
