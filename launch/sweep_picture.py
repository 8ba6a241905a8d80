"""A sweep as a PNG: success and missing actions against one condition of the link."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gatort.runtime.errors import MissingDependency
from gatort.runtime.wording import counted
from gatort.sim.trials.sweep import UNITS, Sweep

from .outputs import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_IN = 7.0
HEIGHT_IN = 4.2
DPI = 120


def sweep_picture(path: Path, sweep: Sweep) -> None:
    """Draw the success rate with its interval, and the share of missing actions.

    Raises:
        MissingDependency: matplotlib is absent.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency(
            "pictures of a sweep need matplotlib: pip install 'gatort[trials]'"
        ) from error

    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
    axes = figure.subplots()
    _draw_success(axes, sweep)
    missing = [summary.missing for summary in sweep.results]
    axes.plot(sweep.values, missing, "s--", color="crimson", label="actions missing")

    axes.set(ylim=(-0.03, 1.03), xlabel=f"{sweep.axis}, {UNITS[sweep.axis]}", ylabel="share")
    axes.set_title(f"{sweep.name}, {counted(sweep.episodes, 'trial')} each", fontsize=10)
    axes.legend(fontsize=8)
    save_figure(path, figure, DPI)


def _draw_success(axes: Axes, sweep: Sweep) -> None:
    rates = [summary.success_rate for summary in sweep.results]
    # At a rate of 0 or 1 the interval ends there, within rounding.
    below = [max(0.0, summary.success_rate - summary.wilson_95[0]) for summary in sweep.results]
    above = [max(0.0, summary.wilson_95[1] - summary.success_rate) for summary in sweep.results]
    label = "success, 95 % Wilson"
    axes.errorbar(sweep.values, rates, (below, above), marker="o", capsize=3, label=label)
