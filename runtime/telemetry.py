"""Durations of the ticks: a stamp per stage in a preallocated array, histograms filled in the
slack.

During a tick only `mark` runs: one clock reading and one integer stored. `record` moves a finished
tick into the histograms after its command went out. A loop's report comes from the histograms,
which hold every tick since the start. The stamps of the newest ticks are kept for pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .clock import Clock, MonotonicClock
from .decoding import Decision
from .durations import Histogram, Percentiles
from .pacer import Wake
from .spec import PolicySpec
from .usage import NO_USE, Usage, UsageMeter

TICK = "tick"
LATENESS = "lateness"
_SECOND_NS = 1_000_000_000


def stage_names(spec: PolicySpec, stepwise: bool = True) -> tuple[str, ...]:
    """Return the names of a tick's stages.

    They are observe, tokenize, prefill, decode_1 … decode_{A−1}, detokenize, guard, command. An
    engine that is not stepwise runs prefill and decodes as one stage, `passes`. A policy with
    images begins with the stage `see`. Its pictures are taken, tokenized and prefilled there, if
    the robot can take them before the joints.
    """
    decodes = (f"decode_{index}" for index in range(1, spec.action_tokens))
    passes = ("prefill", *decodes) if stepwise else ("passes",)
    look = ("see",) if spec.image_tokens else ()
    return (*look, "observe", "tokenize", *passes, "detokenize", "guard", "command")


@dataclass(frozen=True, slots=True)
class Rate:
    """Whole ticks per second, by their deadlines."""

    now_hz: float
    """Rate over the last whole second."""
    average_hz: float
    worst_second_hz: float


@dataclass(frozen=True, slots=True)
class Passes:
    """Forward passes over action tokens, a tick at a time, and the guesses that they began with."""

    actuators: tuple[str, ...]
    """Name of the actuator of each of the A action tokens."""
    ticks: NDArray[np.int64]
    """(A + 1,) number of ticks that took 0, 1, … A passes."""
    right: NDArray[np.int64]
    """(A − 1,) number of ticks in which the guess of an action token was right.

    The last token is never guessed. A greedy tick does not use the guess."""

    @property
    def mean(self) -> float:
        """Mean number of passes; 0 without any tick."""
        return float(self.ticks @ np.arange(len(self.ticks))) / max(1, int(self.ticks.sum()))

    @property
    def saved(self) -> bool:
        """True if a tick took fewer passes than it has action tokens, as no greedy one does."""
        return bool(self.ticks[: len(self.actuators)].any())

    def quantile(self, share: float) -> int:
        """Return the smallest number of passes that suffices for a share of the ticks."""
        return int(np.searchsorted(self.ticks.cumsum(), share * self.ticks.sum()))

    @property
    def most(self) -> int:
        """Largest number of passes."""
        return self.quantile(1.0)

    @property
    def right_shares(self) -> dict[str, float]:
        """Share of the ticks in which the guess was right, for each actuator but the last."""
        shares = self.right / max(1, int(self.ticks.sum()))
        return dict(zip(self.actuators, shares.tolist(), strict=False))


class Misses:
    """Count of ticks over the budget, and of skipped deadlines that no such tick explains.

    A tick that is too long is one miss, not two.
    """

    def __init__(self, budget_ns: int) -> None:
        """Count from zero; a tick longer than `budget_ns` is a miss."""
        self.total = 0
        self._budget_ns = budget_ns
        self._over = False

    def woke(self, skipped: int) -> int:
        """Record a wake-up that skipped `skipped` deadlines. Return the new misses."""
        explained = 1 if self._over else 0
        misses = max(0, skipped - explained)
        self.total += misses
        return misses

    def ended(self, took_ns: int) -> int:
        """Record the end of a tick, whole or refused. Return the new misses, 0 or 1."""
        self._over = took_ns > self._budget_ns
        misses = 1 if self._over else 0
        self.total += misses
        return misses


class Telemetry:
    """Stamps and histograms of one loop's ticks, in memory of a fixed size."""

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
            spec: specification that gives the stages and the period.
            capacity: number of ticks whose stamps are kept; the oldest are overwritten.
            clock: clock that times the stages. Default: the machine's, also for a loop on a virtual
                clock.
            budget_ns: longest duration of a tick that is no miss. Default: one period.
            stepwise: see `stage_names`.
        """
        self.stages = stage_names(spec, stepwise)
        self.budget_ns = spec.period_ns if budget_ns is None else budget_ns
        # Written once here: no page of it must be touched for the first time inside the loop.
        self.stamps = np.full(
            (capacity, len(self.stages) + 1), 0, np.int64
        )  # (ticks, stages + 1) ns
        """Ring of stamps: column 0 is the tick's begin, column i + 1 the end of stage i, 0 if it
        never ended."""
        self.ticks = 0
        """Number of ticks begun, refused ones included."""
        self.refused = 0
        """Number of ticks that sent no command."""
        names = tuple(actuator.name for actuator in spec.actuators)
        ticks, right = np.zeros(len(names) + 1, np.int64), np.zeros(len(names) - 1, np.int64)
        self.passes = Passes(names, ticks, right)
        """Passes of all ticks that came to a decision."""
        self.usage = NO_USE
        """Use of the machine by the newest finished tick."""
        self.slack = NO_USE
        """Use of the machine by the loop's thread between the newest tick and the one before."""
        self._meter = UsageMeter()
        self._use_at_begin = NO_USE
        self._use_at_end: Usage | None = None
        self._clock = clock or MonotonicClock()
        self._histograms = {name: Histogram() for name in (*self.stages, TICK, LATENESS)}
        self._row, self._column = self.stamps[0], 0
        self._misses = Misses(self.budget_ns)
        self._first_deadline_ns = self._deadline_ns = 0
        self._second = self._in_second = self._whole = 0
        self._last_second: int | None = None
        self._worst_second: int | None = None

    def begin(self, wake: Wake) -> None:
        """Open a tick's row."""
        self._use_at_begin = self._meter.read()
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

    def decided(self, decision: Decision) -> None:
        """Count the passes of a decision. Call it in the slack."""
        self.passes.ticks[decision.passes] += 1
        self.passes.right[:] += decision.guess_right

    def record(self) -> None:
        """Move the finished tick into the histograms, as far as it came. Call it in the slack."""
        self._count_use()
        row = self._row[: self._column + 1].tolist()
        for name, start_ns, end_ns in zip(self.stages, row, row[1:], strict=False):
            self._histograms[name].add(end_ns - start_ns)
        self._histograms[TICK].add(row[-1] - row[0])
        if self._column < len(self.stages):
            self.refused += 1
        else:
            self._whole += 1
            self._in_second += 1
        self._misses.ended(row[-1] - row[0])

    def _count_use(self) -> None:
        now = self._meter.read()
        begin = self._use_at_begin
        self.slack = NO_USE if self._use_at_end is None else begin.since(self._use_at_end)
        self.usage = now.since(begin)
        self._use_at_end = now

    def _count_wake(self, wake: Wake) -> None:
        self._misses.woke(wake.skipped)
        self._histograms[LATENESS].add(max(0, wake.lateness_ns))
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
        """Summarise the durations of a stage, of `TICK` or of `LATENESS` since the start.

        Refused ticks count as far as they came: they are often the slow ones.
        """
        return self._histograms[name].percentiles()

    def summary(self) -> list[tuple[str, Percentiles]]:
        """Summarise the whole tick, then each stage that was reached."""
        rows = [(name, self.percentiles(name)) for name in (TICK, *self.stages)]
        return [(name, found) for name, found in rows if found.count]

    @property
    def misses(self) -> int:
        """Number of misses, see `Misses`."""
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
        """Return the durations (N, S) of the ticks still in the ring, oldest first; a new array.

        A stage that a refused tick did not reach has 0.
        """
        kept = min(self.ticks, len(self.stamps))
        stamps = self.stamps[np.arange(self.ticks - kept, self.ticks) % len(self.stamps)]
        return np.where(stamps[:, 1:] > 0, np.diff(stamps, axis=1), 0)

    def tick_durations_ns(self) -> NDArray[np.int64]:
        """Return the durations (N,) of whole ticks, see `stage_durations_ns`."""
        durations_ns: NDArray[np.int64] = self.stage_durations_ns().sum(axis=1)
        return durations_ns
