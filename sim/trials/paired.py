"""Two series of trials on the same layouts: is the second better than the first?

A layout that both stacked, or that both failed, says nothing about the difference. So the figures
follow from the layouts on which only one of the two succeeded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import comb, sqrt

from .statistics import Z_95

HALVINGS = 60
"""Bisections of [−1, 1]: the ends of an interval are then exact to the last bit."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Outcomes of n layouts that both series tried, n ≥ 1."""

    layouts: int
    """n."""
    only_first: int
    """Number of layouts on which only the first series succeeded."""
    only_second: int
    """Number of layouts on which only the second series succeeded."""

    @property
    def difference(self) -> float:
        """Success rate of the second series less that of the first."""
        return (self.only_second - self.only_first) / self.layouts

    @property
    def p_value(self) -> float:
        """Two-sided p value of the exact test of McNemar (1947, Psychometrika 12:153).

        The probability of a difference at least as large if both were equally good.
        """
        discordant = self.only_first + self.only_second
        fewer = min(self.only_first, self.only_second)
        tail = sum(comb(discordant, count) for count in range(fewer + 1))
        return min(1.0, 2 * tail / (1 << discordant))

    @property
    def difference_95(self) -> tuple[float, float]:
        """95 % score interval of the difference (Tango 1998, Statistics in Medicine 17:891)."""
        return self._where(Z_95), self._where(-Z_95)

    def _where(self, score: float) -> float:
        """Return the difference whose score is the given one. The score falls with it."""
        return _bisect(lambda assumed: self._score(assumed) - score)

    def _score(self, assumed: float) -> float:
        """Return the score of an assumed difference Δ (Tango's equation 8)."""
        n, second, first = self.layouts, self.only_second, self.only_first
        b = (2 * n - second + first) * assumed - second - first
        c = -first * assumed * (1 - assumed)
        likeliest = (sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
        variance = n * (2 * likeliest + assumed * (1 - assumed))
        distance = second - first - n * assumed
        if variance <= 0.0:
            return 0.0 if distance == 0.0 else float("inf") * distance
        return distance / sqrt(variance)


def _bisect(falling: Callable[[float], float]) -> float:
    """Return the zero of a falling function in [−1, 1]."""
    low, high = -1.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if falling(middle) > 0.0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
