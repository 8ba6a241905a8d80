"""Two series of trials on the same layouts."""

from __future__ import annotations

import numpy as np
import pytest

from gatort.sim.trials.paired import Pairs


def test_the_figures_are_those_of_a_published_example() -> None:
    # Fagerland, Lydersen and Laake 2014, Statistics in Medicine 33:2850: 21 children before and
    # after a transplantation, one and seven discordant.
    pairs = Pairs(layouts=21, only_first=7, only_second=1)
    assert pairs.difference == pytest.approx(-0.286, abs=5e-4)
    assert pairs.difference_95 == pytest.approx((-0.517, -0.026), abs=5e-4)
    assert pairs.p_value == pytest.approx(0.0703, abs=5e-5)


@pytest.mark.parametrize("layouts", [1, 10, 200])
def test_series_that_agree_everywhere_do_not_differ(layouts: int) -> None:
    pairs = Pairs(layouts, 0, 0)
    low, high = pairs.difference_95
    assert (pairs.difference, pairs.p_value) == (0.0, 1.0)
    assert low == pytest.approx(-high)
    assert 0 < high < 1


def test_the_interval_turns_round_when_the_series_are_exchanged() -> None:
    low, high = Pairs(50, 9, 2).difference_95
    assert Pairs(50, 2, 9).difference_95 == pytest.approx((-high, -low))


@pytest.mark.parametrize(("first", "second"), [(50, 0), (0, 50), (25, 25)])
def test_the_interval_holds_the_difference_at_every_extreme(first: int, second: int) -> None:
    pairs = Pairs(50, first, second)
    low, high = pairs.difference_95
    assert -1.0 <= low <= pairs.difference <= high <= 1.0


def test_equal_series_are_called_different_in_at_most_five_of_a_hundred_studies() -> None:
    random = np.random.default_rng(0)
    studies, layouts = 2000, 60
    outcomes = random.random((studies, 2, layouts)) < 0.9
    only_first = (outcomes[:, 0] & ~outcomes[:, 1]).sum(axis=1)
    only_second = (outcomes[:, 1] & ~outcomes[:, 0]).sum(axis=1)
    pairs = [Pairs(layouts, int(a), int(b)) for a, b in zip(only_first, only_second, strict=True)]
    assert np.mean([each.p_value < 0.05 for each in pairs]) <= 0.05
    covered = [low <= 0.0 <= high for low, high in (each.difference_95 for each in pairs)]
    assert 0.93 <= np.mean(covered) <= 0.98
