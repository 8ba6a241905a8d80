"""Number of layouts that a study needs, and the difference that it finds with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from .sequential import boundary

MOST_PAIRS: Final = 2000
"""Most layouts of a study."""
STEPS: Final = 30
"""Halvings of a difference."""
NUISANCE: Final = 101
"""Number of common success rates that Barnard's test tries."""
TestName = Literal["mcnemar", "sequential", "barnard"]


@dataclass(frozen=True, slots=True)
class Expectation:
    """Success rates of a reference and of another variant, under which a plan is judged."""

    reference: float
    other: float

    @property
    def discordant(self) -> float:
        """Probability that only one of the two succeeds on a layout.

        The plan takes the two outcomes on a layout as independent. Layouts that are hard for both
        make it smaller, and the study surer than planned.
        """
        return self.reference * (1 - self.other) + self.other * (1 - self.reference)

    @property
    def right(self) -> float:
        """Share of those layouts on which the better one succeeds."""
        better, worse = max(self.reference, self.other), min(self.reference, self.other)
        return better * (1 - worse) / self.discordant if self.discordant else 0.5


def power(test: TestName, expected: Expectation, significance: float, pairs: int) -> float:
    """Return the probability that a study finds the difference, in its right direction.

    Args:
        test: test of the study.
        expected: true success rates.
        significance: accepted probability of a false answer of this one comparison.
        pairs: number of layouts, at least 1.
    """
    from scipy.stats import binom

    if test == "barnard":
        rejected = _barnard_region(pairs, significance)
        better = max(expected.reference, expected.other)
        worse = min(expected.reference, expected.other)
        counts = np.arange(pairs + 1)
        chance = np.outer(binom.pmf(counts, pairs, better), binom.pmf(counts, pairs, worse))
        return float(chance[np.tril(rejected)].sum())
    discordant = binom.pmf(np.arange(pairs + 1), pairs, expected.discordant)
    if test == "mcnemar":
        found = _mcnemar_powers(expected.right, significance, pairs)
    else:
        found = _sequential_powers(expected.right, significance, pairs)
    return float(discordant @ found)


def pairs_needed(
    test: TestName, expected: Expectation, significance: float, wanted: float
) -> int | None:
    """Return the fewest layouts with a power of at least `wanted`; `None` if even MOST_PAIRS have
    less.
    """
    if power(test, expected, significance, MOST_PAIRS) < wanted:
        return None
    low, high = 0, MOST_PAIRS
    while high - low > 1:
        middle = (low + high) // 2
        if power(test, expected, significance, middle) < wanted:
            low = middle
        else:
            high = middle
    return high


def detectable_rates(
    test: TestName, reference: float, significance: float, pairs: int, wanted: float
) -> tuple[float | None, float | None]:
    """Return the success rates nearest the reference's that a study tells from it.

    Args:
        test: test of the study.
        reference: success rate of the reference.
        significance: accepted probability of a false answer of this one comparison.
        pairs: number of layouts, at least 1.
        wanted: probability with which the study finds the difference.

    Returns:
        The highest rate below the reference's and the lowest above; `None` if even 0 or 1 is not
        found so surely.
    """
    lower, higher = (
        _detectable(
            lambda rate: power(test, Expectation(reference, rate), significance, pairs),
            reference,
            end,
            wanted,
        )
        for end in (0.0, 1.0)
    )
    return lower, higher


def _detectable(
    surely: Callable[[float], float], reference: float, end: float, wanted: float
) -> float | None:
    """Return the rate nearest the reference's, towards an end, with the wanted power."""
    if reference == end or surely(end) < wanted:
        return None
    near, far = reference, end
    for _ in range(STEPS):
        middle = (near + far) / 2
        if surely(middle) < wanted:
            near = middle
        else:
            far = middle
    return far


def detectable_sentence(
    test: TestName, reference: float, significance: float, pairs: int, wanted: float
) -> str:
    """Return the success rates that a study tells from the reference's, in words."""
    lower, higher = detectable_rates(test, reference, significance, pairs, wanted)
    ends = [f"{lower:.1%} or less"] if lower is not None else []
    ends += [f"{higher:.1%} or more"] if higher is not None else []
    return f"success of {', or of '.join(ends)}" if ends else "no other success rate"


@cache
def _mcnemar_powers(right: float, significance: float, most: int) -> NDArray[np.float64]:
    """Return the power (most + 1,) by the number of discordant layouts."""
    from scipy.stats import binom

    bets = np.arange(most + 1)
    # Most losses at which the two-sided test still rejects: -1 where it never does.
    losses = binom.ppf(significance / 2, bets, 0.5)
    losses = np.where(binom.cdf(losses, bets, 0.5) <= significance / 2, losses, losses - 1)
    found: NDArray[np.float64] = binom.cdf(losses, bets, 1 - right)
    return found


@cache
def _sequential_powers(right: float, significance: float, most: int) -> NDArray[np.float64]:
    """Return the probability (most + 1,) of a right answer by the number of discordant layouts."""
    needed = boundary(significance, most)
    chance = np.zeros(most + 2)  # Chance of each number of wins while undecided.
    chance[0] = 1.0
    found = np.zeros(most + 1)
    for bets in range(1, most + 1):
        chance[1:] = right * chance[:-1] + (1 - right) * chance[1:]
        chance[0] *= 1 - right
        wins = needed[bets]
        found[bets] = found[bets - 1] + chance[wins:].sum()
        chance[wins:] = 0.0
        chance[: max(0, bets - wins + 1)] = 0.0
    return found


@cache
def _barnard_region(count: int, significance: float) -> NDArray[np.bool_]:
    """Return where Barnard's test rejects, by the successes of two groups of `count` trials each.

    The largest probability over every common success rate counts (Barnard 1947, Biometrika
    34:123). The statistic is the difference over its pooled deviation.
    """
    from scipy.stats import binom

    ones = np.arange(count + 1)
    both = ones[:, None] + ones
    spread = both * (2 * count - both)
    score = np.abs(ones[:, None] - ones) / np.sqrt(np.where(spread > 0, spread, np.inf))
    levels, place = np.unique(-score.ravel().round(12), return_inverse=True)
    largest = np.zeros(len(levels))
    for rate in np.linspace(0, 1, NUISANCE):
        chance = binom.pmf(ones, count, rate)
        level = np.bincount(place, np.outer(chance, chance).ravel(), len(levels))
        largest = np.maximum(largest, np.cumsum(level))
    region: NDArray[np.bool_] = (largest <= significance)[place].reshape(score.shape)
    return region
