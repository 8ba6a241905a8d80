"""Statistics of a feature as LeRobot stores them: min, max, mean, std, count, five quantiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

QUANTILES: Final = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}

Statistics = dict[str, list[Any]]
"""Values of each statistic, by its name in `meta/stats.json`."""


def of_numbers(values: NDArray[Any]) -> Statistics:
    """Return the statistics of each element of values (K, N)."""
    exact = values.astype(np.float64)
    quantiles = np.quantile(exact, list(QUANTILES.values()), axis=0)
    return {
        "min": exact.min(axis=0).tolist(),
        "max": exact.max(axis=0).tolist(),
        "mean": exact.mean(axis=0).tolist(),
        "std": exact.std(axis=0).tolist(),
        "count": [len(exact)],
        **{name: row.tolist() for name, row in zip(QUANTILES, quantiles, strict=True)},
    }


def histogram(pictures: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return how often each of 256 levels occurs in each colour (3, 256) of (K, H, W, 3)."""
    return np.stack(
        [np.bincount(pictures[..., colour].ravel(), minlength=256) for colour in range(3)]
    )


def of_pictures(levels: NDArray[np.int64], count: int) -> Statistics:
    """Return the statistics of each colour, on a scale from 0 to 1 and of shape (3, 1, 1).

    Args:
        levels: (3, 256) number of pixels of each level.
        count: number of pictures.
    """
    scale = np.arange(256) / 255.0
    share = levels / levels.sum(axis=1, keepdims=True)  # (3, 256)
    mean = share @ scale  # (3,)
    variance = share @ scale**2 - mean**2
    below = np.cumsum(share, axis=1)
    found = {
        "min": [scale[np.flatnonzero(row)[0]] for row in levels],
        "max": [scale[np.flatnonzero(row)[-1]] for row in levels],
        "mean": mean,
        "std": np.sqrt(np.maximum(variance, 0.0)),
        **{
            name: [scale[min(255, int(np.searchsorted(row, quantile)))] for row in below]
            for name, quantile in QUANTILES.items()
        },
    }
    return {name: _by_colour(values) for name, values in found.items()} | {"count": [count]}


def _by_colour(values: Sequence[float] | NDArray[np.float64]) -> list[Any]:
    return [[[float(value)]] for value in values]
