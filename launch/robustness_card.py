"""The robustness card of a policy: curves of success as a picture, a table and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from gatort.runtime.packages import require_packages
from gatort.runtime.wording import counted
from gatort.sim.trials.robustness import Curve

from .drawing import announced
from .outputs import save_figure
from .trial_report import trial_record

COLUMNS = 4
PANEL_IN = (2.7, 2.3)
DPI = 110


def card_table(name: str, curves: Sequence[Curve]) -> Table:
    """Return the success rates of every curve, one row each."""
    episodes = curves[0].results[0].episodes
    table = Table(title=f"{name}, {counted(episodes, 'trial')} at each value", title_justify="left")
    table.add_column("property")
    table.add_column("success at each value")
    for curve in curves:
        pairs = zip(curve.property.values, curve.results, strict=True)
        cells = [f"{value:g}: {summary.success_rate:.0%}" for value, summary in pairs]
        table.add_row(f"{curve.property.name}, {curve.property.unit}", "   ".join(cells))
    return table


def card_record(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """Return the JSON form of the curves."""
    return [
        {
            "property": curve.property.name,
            "unit": curve.property.unit,
            "points": [
                {"value": value, **trial_record(summary)}
                for value, summary in zip(curve.property.values, curve.results, strict=True)
            ],
        }
        for curve in curves
    ]


@announced
def draw_card(path: Path, name: str, curves: Sequence[Curve]) -> None:
    """Draw every curve with its 95 % Wilson interval into a PNG.

    Raises:
        MissingDependency: matplotlib is absent.
    """
    require_packages("the card's picture", "trials", "matplotlib")
    # Nothing but the picture needs matplotlib, which takes half a second to import.
    from matplotlib.figure import Figure

    rows = -(-len(curves) // COLUMNS)
    size = (PANEL_IN[0] * COLUMNS, PANEL_IN[1] * rows + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, COLUMNS, squeeze=False, sharey=True).ravel()
    for panel, curve in zip(panels, curves, strict=False):
        _draw_curve(panel, curve)
    for unused in panels[len(curves) :]:
        unused.set_axis_off()

    episodes = curves[0].results[0].episodes
    counts = f"{counted(episodes, 'trial')} at each value"
    figure.suptitle(f"{name}: success, {counts}, 95 % Wilson", fontsize=10)
    save_figure(path, figure, DPI)


def _draw_curve(panel: Any, curve: Curve) -> None:
    values = curve.property.values
    low, high = zip(*(summary.wilson_95 for summary in curve.results), strict=True)
    panel.fill_between(values, low, high, alpha=0.2)
    panel.plot(values, [summary.success_rate for summary in curve.results], "o-")
    panel.set(ylim=(-0.03, 1.03), xlabel=f"{curve.property.name}, {curve.property.unit}")
    panel.grid(alpha=0.3)
