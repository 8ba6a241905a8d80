"""A test and an interval that hold however often somebody looks, and whenever the study stops.

The test bets on the layouts on which only one variant succeeded. If both were equally good, no way
of betting would make a gambler rich: the wealth exceeds 1/α with a probability of at most α (Ville
1939). The interval holds every difference against which a gambler has not become rich.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

PRIOR: Final = 0.5
"""Both parameters of the beta distribution over which the bets are mixed: Jeffreys's prior."""
GRID: Final = 2001
"""Number of differences between −1 and 1 that an interval tries."""
BOLDEST: Final = 0.75
"""Largest share of the wealth that could be lost by one bet of an interval."""


def log_wealth(wins: NDArray[np.int64], bets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the logarithm of the wealth after some wins among all bets.

    The bets are a mixture over the probability of a win (Robbins 1970, Ann. Math. Stat. 41:1397).
    """
    from scipy.special import betaln

    mixed: NDArray[np.float64] = betaln(wins + PRIOR, bets - wins + PRIOR) - betaln(PRIOR, PRIOR)
    return np.asarray(mixed + bets * np.log(2))


def sequential_p(differences: Sequence[int]) -> float:
    """Return a p value of "equally good" that holds at any time.

    Args:
        differences: outcome of each layout in the order of the trials: 1 if only the variant
            succeeded, −1 if only the reference did, 0 if both did the same.
    """
    return float(sequential_path(differences).min(initial=1.0))


def sequential_path(differences: Sequence[int]) -> NDArray[np.float64]:
    """Return the p value (N,) after each layout: see `sequential_p`."""
    path: NDArray[np.float64] = np.exp(-np.maximum.accumulate(_wealth(differences)))
    return path


def sequential_gain(differences: Sequence[int]) -> int:
    """Return by how many layouts the variant led when the evidence was largest.

    The evidence against "equally good" stays, and so must its direction.
    """
    if not len(differences):
        return 0
    strongest = int(_wealth(differences).argmax())
    return sum(differences[: strongest + 1])


def _wealth(differences: Sequence[int]) -> NDArray[np.float64]:
    """Return the logarithm of the wealth (N,) after each layout, at least that before the first."""
    outcomes = np.array(differences, np.int64)
    wealth = log_wealth(np.cumsum(outcomes > 0), np.cumsum(outcomes != 0))
    return np.maximum(wealth, 0.0)


@cache
def boundary(significance: float, most: int) -> NDArray[np.int64]:
    """Return the fewest wins (most + 1,) at which the test rejects, by the number of bets.

    A value above the number of bets stands for "not yet".
    """
    needed = np.arange(1, most + 2)
    for bets in range(1, most + 1):
        wins = np.arange((bets + 1) // 2, bets + 1)
        rich = np.flatnonzero(log_wealth(wins, np.array(bets)) >= -np.log(significance))
        if len(rich):
            needed[bets] = wins[rich[0]]
    return needed


def sequential_interval(differences: Sequence[int], significance: float) -> tuple[float, float]:
    """Return an interval of the difference in success that holds at any time.

    After Waudby-Smith and Ramdas 2024 (J. R. Stat. Soc. B 86:1), section 4: two gamblers bet on
    each side of every difference, as boldly as the spread of the outcomes so far allows.

    Args:
        differences: see `sequential_p`.
        significance: largest probability that the true difference is ever outside.
    """
    outcomes = (np.array(differences, float) + 1) / 2  # in [0, 1]
    count = np.arange(1, len(outcomes) + 1)
    # Spread and mean before each outcome, from one imagined outcome in the middle.
    mean = (0.5 + np.cumsum(outcomes)) / (count + 1)
    spread = (0.25 + np.cumsum((outcomes - mean) ** 2)) / (count + 1)
    before = np.concatenate(([0.25], spread[:-1]))
    bold = np.sqrt(2 * np.log(2 / significance) / (before * count * np.log(count + 1)))

    tried = np.linspace(0, 1, GRID)
    up = np.zeros(GRID)
    down = np.zeros(GRID)
    most = np.zeros(GRID)
    for outcome, stake in zip(outcomes, bold, strict=True):
        gain = outcome - tried
        with np.errstate(divide="ignore"):
            up += np.log1p(np.minimum(stake, BOLDEST / tried) * gain)
            down += np.log1p(-np.minimum(stake, BOLDEST / (1 - tried)) * gain)
        most = np.maximum(most, np.maximum(up, down))
    kept = tried[most < np.log(2 / significance)]
    if not len(kept):  # Every difference was ruled out, which has that small probability.
        kept = tried[[np.argmin(most)]]
    return 2 * float(kept[0]) - 1, 2 * float(kept[-1]) - 1
