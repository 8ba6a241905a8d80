"""A sweep as a PNG: success and missing actions against one condition of the link."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gatort.runtime.packages import require_packages
from gatort.runtime.wording import counted
from gatort.sim.trials.sweep import UNITS, Sweep

from .drawing import announced
from .outputs import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_IN = 7.0
HEIGHT_IN = 4.2
DPI = 120


@announced
def sweep_picture(path: Path, sweep: Sweep) -> None:
    """Draw the success rate with its interval, and the share of missing actions.

    Raises:
        MissingDependency: matplotlib is absent.
    """
    require_packages("a sweep's picture", "trials", "matplotlib")
    # Nothing but the picture needs matplotlib, which takes half a second to import.
    from matplotlib.figure import Figure

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
