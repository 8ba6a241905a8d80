"""`gatort trials --sweep`: success against delay, jitter, loss or reordering, as a table, JSON and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import ValidationError
from rich.table import Table

from gatort.runtime.errors import (
    ConfigError,
    MissingDependency,
)
from gatort.runtime.remote.link import LinkConditions

from .options import describe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Axis = Literal["delay", "jitter", "loss", "reorder"]

FIELDS: Final[dict[Axis, str]] = {
    "delay": "delay_ms",
    "jitter": "jitter_ms",
    "loss": "loss",
    "reorder": "reorder",
}
UNITS: Final[dict[Axis, str]] = {
    "delay": "ms one way",
    "jitter": "ms one way",
    "loss": "of 1",
    "reorder": "of 1",
}
VALUES: Final[dict[Axis, tuple[float, ...]]] = {
    "delay": (0, 2.5, 5, 7.5, 10, 12, 13, 15),
    "jitter": (0, 5, 10, 15, 20, 30, 40),
    "loss": (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3),
    "reorder": (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3),
}
"""What a sweep goes through unless told otherwise. With a delay of D one way a command reaches the robot 2·D after its
observation was read there, and has to be there within the action delay: of 25 ms, 12 ms one way are the last whole."""
COUNTS: Final = {"refused": "refused", "lost": "lost", "late": "dropped"}
WIDTH_IN, HEIGHT_IN, DPI = 7.0, 4.2, 120


def along(link: LinkConditions, axis: Axis, values: Sequence[float] | None) -> list[LinkConditions]:
    """The link's conditions at each value of a sweep.

    Raises:
        ConfigError: a value that no link has, or one that is given beside the sweep as well.
    """
    field = FIELDS[axis]
    if field in link.model_fields_set:
        raise ConfigError(
            f"--sweep {axis} sets --{field.replace('_', '-')} itself: give one of the two"
        )
    try:
        return [
            LinkConditions(**{**link.model_dump(), field: value})
            for value in values or VALUES[axis]
        ]
    except ValidationError as error:
        raise ConfigError(describe(error, "--values", LinkConditions)) from error


def described(axis: Axis, link: LinkConditions) -> str:
    """One value of a sweep in words."""
    return f"{axis} {getattr(link, FIELDS[axis]):g} {UNITS[axis]}"


@dataclass(frozen=True, slots=True)
class Sweep:
    """What trials under several link conditions gave."""

    name: str
    """The policy's."""
    axis: Axis
    links: Sequence[LinkConditions]
    results: Sequence[dict[str, Any]]
    """One report of trials for each."""

    @property
    def values(self) -> list[float]:
        """Of the axis."""
        return [getattr(link, FIELDS[self.axis]) for link in self.links]

    @property
    def missing(self) -> list[float]:
        """Share of ticks whose action never reached the actuators, at each value: refused, lost or late."""
        # Where no trial got as far as a first tick, nothing reached them either.
        return [
            (each["refused"] + each["lost"] + each["dropped"]) / each["ticks"]
            if each["ticks"]
            else 1.0
            for each in self.results
        ]

    def table(self) -> Table:
        """One row for each value."""
        table = Table(
            title=f"{self.name}, {self.results[0]['episodes']} trials each in lockstep",
            title_justify="left",
        )
        for column in (
            f"{self.axis}, {UNITS[self.axis]}",
            "success",
            "95 % Wilson",
            *COUNTS,
            "missing",
        ):
            table.add_column(column, justify="right", no_wrap=True)
        for value, each, missing in zip(self.values, self.results, self.missing, strict=True):
            low, high = each["wilson_95"]
            success, interval = (
                f"{each['successes']} of {each['episodes']}",
                f"{low:.0%} to {high:.0%}",
            )
            counts = (str(each[count]) for count in COUNTS.values())
            table.add_row(f"{value:g}", success, interval, *counts, f"{missing:.1%}")
        return table

    def record(self) -> dict[str, Any]:
        """The JSON form."""
        points = [
            {FIELDS[self.axis]: value, **each, "missing": missing}
            for value, each, missing in zip(self.values, self.results, self.missing, strict=True)
        ]
        fixed = self.links[0].model_dump(exclude={FIELDS[self.axis]})
        return {"sweep": self.axis, "link": fixed, "points": points}

    def draw(self, path: Path) -> None:
        """Success with its interval and the share of unsent actions against the axis, as a PNG.

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
        self._draw_rates(figure.subplots())
        figure.savefig(path, dpi=DPI, format="png")

    def _draw_rates(self, axes: Axes) -> None:
        rates = [each["success_rate"] for each in self.results]
        low, high = zip(*(each["wilson_95"] for each in self.results), strict=True)
        # The interval ends at a rate of 0 or 1 itself, within rounding.
        below = [max(0.0, rate - end) for rate, end in zip(rates, low, strict=True)]
        above = [max(0.0, end - rate) for rate, end in zip(rates, high, strict=True)]
        axes.errorbar(
            self.values, rates, (below, above), marker="o", capsize=3, label="success, 95 % Wilson"
        )
        axes.plot(
            self.values,
            self.missing,
            marker="s",
            color="crimson",
            linestyle="--",
            label="actions missing",
        )
        axes.set(ylim=(-0.03, 1.03), xlabel=f"{self.axis}, {UNITS[self.axis]}", ylabel="share")
        axes.set_title(f"{self.name}, {self.results[0]['episodes']} trials each", fontsize=10)
        axes.legend(fontsize=8)
