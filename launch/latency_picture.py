"""The latency of a run as a PNG: how the ticks spread, and what a typical, a slow and the slowest tick spent it on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.errors import MissingDependency

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUANTILES = {"p50": 0.5, "p99": 0.99, "max": 1.0}
WIDTH_IN, HEIGHT_IN, DPI = 11.0, 3.6, 120


def latency_picture(
    path: Path, title: str, stages: Sequence[str], durations_ns: NDArray[np.int64], budget_ms: float
) -> None:
    """Draw the durations (N, S) of N ≥ 1 ticks and S stages beside the budget.

    Raises:
        MissingDependency: matplotlib is absent.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency(
            "latency pictures need matplotlib: pip install 'gatort[trials]'"
        ) from error

    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
    spread, spent = figure.subplots(1, 2, width_ratios=(2, 3))
    durations_ms = durations_ns * 1e-6
    _draw_spread(spread, np.sort(durations_ms.sum(axis=1)), budget_ms)
    _draw_spent(spent, stages, durations_ms, budget_ms)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=DPI, format="png")


def _draw_spread(axes: Axes, ticks_ms: NDArray[np.floating], budget_ms: float) -> None:
    """Percentile curve; the axis of one in ten, one in a hundred… spreads the tail out."""
    exceeded_by = len(ticks_ms) / np.arange(
        len(ticks_ms), 0, -1
    )  # (N,): one tick in so many is at least this slow
    axes.step(exceeded_by, ticks_ms, where="post")
    axes.axhline(budget_ms, color="crimson", linestyle="--", label=f"budget {budget_ms:g} ms")
    axes.set(xscale="log", ylim=(0, None), xlabel="one tick in …", ylabel="ms, or slower")
    axes.legend(loc="lower right", fontsize=8)


def _draw_spent(
    axes: Axes, stages: Sequence[str], durations_ms: NDArray[np.floating], budget_ms: float
) -> None:
    """One bar each for the ticks that stand at p50, p99 and the end: their own stages, so the parts sum to the tick."""
    from matplotlib import colormaps

    order = durations_ms.sum(axis=1).argsort()
    rows = durations_ms[
        [order[min(len(order) - 1, int(q * len(order)))] for q in QUANTILES.values()]
    ]  # (3, S)
    left = np.zeros(len(rows))
    for index, stage in enumerate(stages):
        shade = colormaps["viridis"](index / max(1, len(stages) - 1))
        axes.barh(list(QUANTILES), rows[:, index], left=left, color=shade, label=stage, height=0.6)
        left += rows[:, index]
    axes.axvline(budget_ms, color="crimson", linestyle="--")
    axes.invert_yaxis()
    axes.set(xlim=(0, None), xlabel="ms of one tick")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7)
