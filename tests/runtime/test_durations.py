"""Percentiles by one rule, exact for arrays and to a thousandth in a histogram."""

from __future__ import annotations

import numpy as np
import pytest

from gatort.runtime.durations import Histogram, Percentiles, rank


@pytest.mark.parametrize("count", [1, 2, 99, 100, 101, 1_200])
def test_a_percentile_is_the_smallest_duration_that_this_share_does_not_exceed(count: int) -> None:
    for fraction in (0.07, 0.5, 0.99, 0.999, 1.0):
        place = rank(fraction, count)
        assert place / count >= fraction - 1e-12
        assert (place - 1) / count < fraction


@pytest.mark.parametrize("largest_ns", [1_000, 10_000_000, 59_000_000_000])
def test_a_histogram_agrees_with_the_exact_rule_to_a_thousandth(largest_ns: int) -> None:
    durations_ns = np.random.default_rng(0).integers(0, largest_ns, 2_000)
    histogram = Histogram()
    for each in durations_ns.tolist():
        histogram.add(each)
    found, exact = histogram.percentiles(), Percentiles.of_ns(durations_ns)
    assert (found.count, found.max_ms) == (exact.count, exact.max_ms)
    for name in ("p50_ms", "p99_ms", "p99_9_ms"):
        # Rounded to 0.0001 ms each.
        assert getattr(found, name) == pytest.approx(getattr(exact, name), rel=1e-3, abs=2e-4)
        assert getattr(found, name) >= getattr(exact, name) - 2e-4


def test_a_duration_beyond_the_longest_bucket_is_kept_as_the_maximum() -> None:
    histogram = Histogram()
    histogram.add(90_000_000_000)
    assert histogram.percentiles().max_ms == 90_000.0


def test_without_durations_all_figures_are_zero() -> None:
    assert Histogram().percentiles() == Percentiles.of_ns(np.empty(0, np.int64))
