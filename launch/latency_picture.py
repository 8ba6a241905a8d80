"""Latency of a run as a PNG: the spread of the ticks, and the stages of a typical, slow and slowest
tick.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gatort.runtime.durations import rank

from .outputs import save_figure

QUANTILES = {"p50": 0.5, "p99": 0.99, "max": 1.0}
LIMIT_STYLES = ("--", ":")
"""Line styles of the budget and of the action's deadline."""
WIDTH_IN = 11.0
HEIGHT_IN = 3.6
DPI = 120


def latency_picture(
    path: Path,
    title: str,
    stages: Sequence[str],
    durations_ns: NDArray[np.int64],
    limits_ms: Mapping[str, float],
) -> None:
    """Draw the durations (N, S) of N ≥ 1 ticks and S stages beside named limits."""
    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
    spread, spent = figure.subplots(1, 2, width_ratios=(2, 3))
    durations_ms = durations_ns * 1e-6
    _draw_spread(spread, np.sort(durations_ms.sum(axis=1)), limits_ms)
    _draw_spent(spent, stages, durations_ms, limits_ms)
    figure.suptitle(title, fontsize=9, wrap=True)
    save_figure(path, figure, DPI)


def slow_ticks(durations_ns: NDArray[np.int64]) -> list[int]:
    """Return the row of the tick at each of QUANTILES, by the rule of every report.

    Args:
        durations_ns: durations (N, S) of N ≥ 1 ticks and S stages.
    """
    order = durations_ns.sum(axis=1).argsort(kind="stable")
    return [int(order[rank(each, len(order)) - 1]) for each in QUANTILES.values()]


def stage_colours(stages: Sequence[str]) -> dict[str, Any]:
    """Return a colour for each kind of stage; all decodes share one."""
    kinds = dict.fromkeys(stage.partition("_")[0] for stage in stages)
    return {kind: colormaps["tab10"](index) for index, kind in enumerate(kinds)}


def _draw_spread(
    axes: Axes, ticks_ms: NDArray[np.floating], limits_ms: Mapping[str, float]
) -> None:
    """Draw the percentile curve of sorted ticks (N,); its axis (one tick in ten, in a hundred…)
    shows the tail.
    """
    # One tick in `exceeded_by` is at least this slow.
    exceeded_by = len(ticks_ms) / np.arange(len(ticks_ms), 0, -1)  # (N,)
    axes.step(exceeded_by, ticks_ms, where="post")
    for (name, limit_ms), style in zip(limits_ms.items(), LIMIT_STYLES, strict=True):
        axes.axhline(limit_ms, color="crimson", linestyle=style, label=f"{name} {limit_ms:g} ms")
    axes.set(xscale="log", ylim=(0, None), xlabel="one tick in …", ylabel="ms, or slower")
    axes.legend(loc="best", fontsize=8)


def _draw_spent(
    axes: Axes,
    stages: Sequence[str],
    durations_ms: NDArray[np.floating],
    limits_ms: Mapping[str, float],
) -> None:
    """Draw a bar each for the ticks at p50, p99 and the maximum; a bar's parts are the stages of
    that tick.
    """
    rows = durations_ms[slow_ticks(np.rint(durations_ms * 1e6).astype(np.int64))]  # (3, S)
    names = [f"{name}: {row.sum():.1f} ms" for name, row in zip(QUANTILES, rows, strict=True)]
    colours = stage_colours(stages)
    named: set[str] = set()
    left = np.zeros(len(rows))
    for index, stage in enumerate(stages):
        kind = stage.partition("_")[0]
        axes.barh(
            names,
            rows[:, index],
            left=left,
            color=colours[kind],
            edgecolor="white",
            linewidth=0.4,
            label=None if kind in named else kind,
            height=0.6,
        )
        named.add(kind)
        left += rows[:, index]

    for limit_ms, style in zip(limits_ms.values(), LIMIT_STYLES, strict=True):
        axes.axvline(limit_ms, color="crimson", linestyle=style)
    axes.invert_yaxis()
    axes.set(xlim=(0, None), xlabel="ms of one tick")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7)
