"""Latency of a run as a PNG: the spread of the ticks, and the stages of a typical, slow and slowest
tick.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from .outputs import save_figure

QUANTILES = {"p50": 0.5, "p99": 0.99, "max": 1.0}
WIDTH_IN = 11.0
HEIGHT_IN = 3.6
DPI = 120


def latency_picture(
    path: Path, title: str, stages: Sequence[str], durations_ns: NDArray[np.int64], budget_ms: float
) -> None:
    """Draw the durations (N, S) of N ≥ 1 ticks and S stages beside the budget."""
    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
    spread, spent = figure.subplots(1, 2, width_ratios=(2, 3))
    durations_ms = durations_ns * 1e-6
    _draw_spread(spread, np.sort(durations_ms.sum(axis=1)), budget_ms)
    _draw_spent(spent, stages, durations_ms, budget_ms)
    figure.suptitle(title, fontsize=10)
    save_figure(path, figure, DPI)


def _draw_spread(axes: Axes, ticks_ms: NDArray[np.floating], budget_ms: float) -> None:
    """Draw the percentile curve of sorted ticks (N,); its axis (one tick in ten, in a hundred…)
    shows the tail.
    """
    # One tick in `exceeded_by` is at least this slow.
    exceeded_by = len(ticks_ms) / np.arange(len(ticks_ms), 0, -1)  # (N,)
    axes.step(exceeded_by, ticks_ms, where="post")
    axes.axhline(budget_ms, color="crimson", linestyle="--", label=f"budget {budget_ms:g} ms")
    axes.set(xscale="log", ylim=(0, None), xlabel="one tick in …", ylabel="ms, or slower")
    axes.legend(loc="lower right", fontsize=8)


def _draw_spent(
    axes: Axes, stages: Sequence[str], durations_ms: NDArray[np.floating], budget_ms: float
) -> None:
    """Draw a bar each for the ticks at p50, p99 and the maximum; a bar's parts are the stages of
    that tick.
    """
    order = durations_ms.sum(axis=1).argsort()
    places = [order[min(len(order) - 1, int(q * len(order)))] for q in QUANTILES.values()]
    rows = durations_ms[places]  # (3, S)
    left = np.zeros(len(rows))
    for index, stage in enumerate(stages):
        shade = colormaps["viridis"](index / max(1, len(stages) - 1))
        axes.barh(list(QUANTILES), rows[:, index], left=left, color=shade, label=stage, height=0.6)
        left += rows[:, index]

    axes.axvline(budget_ms, color="crimson", linestyle="--")
    axes.invert_yaxis()
    axes.set(xlim=(0, None), xlabel="ms of one tick")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7)
