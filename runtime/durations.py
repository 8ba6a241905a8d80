"""Distributions of durations: percentiles by one rule, and a histogram of fixed size.

The rule is the nearest rank: a percentile is the smallest duration that at least this share of all
durations does not exceed. Reports, tables and pictures all use `rank`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

_FRACTIONS = (0.5, 0.99, 0.999)
_LONGEST_NS = 60_000_000_000
"""Longest duration that a histogram tells from others; a longer one counts as this."""
_BITS = 11
"""Leading bits of a duration that a histogram keeps: a relative error below 1/1024."""
_HALF = 1 << (_BITS - 1)


def rank(fraction: float, count: int) -> int:
    """Return the place, from 1, of a percentile among `count` ≥ 1 sorted durations."""
    # Without the margin, 0.07 of 100 would be the eighth: 0.07 * 100 is 7.000000000000001.
    return max(1, math.ceil(fraction * count - 1e-9))


@dataclass(frozen=True, slots=True)
class Percentiles:
    """A distribution of durations; zeros for an empty one."""

    count: int
    p50_ms: float
    p99_ms: float
    p99_9_ms: float
    max_ms: float

    @classmethod
    def of_ns(cls, durations_ns: NDArray[np.int64]) -> Self:
        """Summarise durations (N,)."""
        count = len(durations_ns)
        if not count:
            return cls(0, 0.0, 0.0, 0.0, 0.0)
        ordered_ns = np.sort(durations_ns)
        at = [_ms(ordered_ns[rank(fraction, count) - 1]) for fraction in (*_FRACTIONS, 1.0)]
        return cls(count, *at)


class Histogram:
    """Counts of durations in buckets that are less than a thousandth wide; adding allocates
    nothing.
    """

    def __init__(self) -> None:
        # Written once here: no page of it must be touched for the first time inside the loop.
        self._counts = np.full(_bucket(_LONGEST_NS) + 1, 0, np.int64)
        self._longest_ns = 0

    def add(self, duration_ns: int) -> None:
        """Count a duration of 0 ns or more."""
        self._counts[_bucket(min(duration_ns, _LONGEST_NS))] += 1
        self._longest_ns = max(self._longest_ns, duration_ns)

    def percentiles(self) -> Percentiles:
        """Summarise: percentiles to a thousandth, the longest duration exactly."""
        reached = self._counts.cumsum()
        count = int(reached[-1])
        if not count:
            return Percentiles(0, 0.0, 0.0, 0.0, 0.0)
        buckets = [int(np.searchsorted(reached, rank(each, count))) for each in _FRACTIONS]
        # The end of a bucket may lie above every duration in it.
        ends_ns = [min(_end_ns(bucket), self._longest_ns) for bucket in buckets]
        return Percentiles(count, *(_ms(each) for each in (*ends_ns, self._longest_ns)))


def _bucket(duration_ns: int) -> int:
    """Return the bucket of a duration: its leading bits, after all shorter scales."""
    shift = max(0, duration_ns.bit_length() - _BITS)
    return shift * _HALF + (duration_ns >> shift)


def _end_ns(bucket: int) -> int:
    """Return the longest duration of a bucket."""
    shift = max(0, bucket // _HALF - 1)
    return ((bucket - shift * _HALF + 1) << shift) - 1


def _ms(duration_ns: int) -> float:
    return round(float(duration_ns) * 1e-6, 4)
