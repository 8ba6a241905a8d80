"""Success against one condition of the link: delay, jitter, loss or reordering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from gatort.runtime.remote.link import LinkConditions

from .statistics import TrialSummary

Axis = Literal["delay", "jitter", "loss", "reorder"]
"""Condition that a sweep varies."""

FIELDS: Final[dict[Axis, str]] = {
    "delay": "delay_ms",
    "jitter": "jitter_ms",
    "loss": "loss",
    "reorder": "reorder",
}
"""Field of `LinkConditions` that each axis sets."""
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
"""Default values of each axis.

With a delay of D one way, a command reaches the robot 2·D after the robot read its observation. It
must arrive within the action delay. With an action delay of 25 ms, 12 ms is the last whole delay
that works.
"""


def conditions_along(
    link: LinkConditions, axis: Axis, values: Sequence[float] | None
) -> list[LinkConditions]:
    """Return the link's conditions at each value of an axis.

    Args:
        link: conditions that stay as they are.
        axis: condition that varies.
        values: values of the axis, or `None` for its default values.

    Raises:
        ValidationError: a value is impossible for a link.
    """
    field = FIELDS[axis]
    return [
        LinkConditions(**{**link.model_dump(), field: value}) for value in values or VALUES[axis]
    ]


def named(axis: Axis, link: LinkConditions) -> str:
    """Return one value of an axis in words, such as "a delay of 5 ms one way"."""
    unit = "" if axis in ("loss", "reorder") else f" {UNITS[axis]}"
    noun = "probability of reordering" if axis == "reorder" else axis
    return f"a {noun} of {getattr(link, FIELDS[axis]):g}{unit}"


@dataclass(frozen=True, slots=True)
class Sweep:
    """Results of trials under several conditions of the link."""

    name: str
    """Name of the policy."""
    axis: Axis
    """Condition that varies."""
    links: Sequence[LinkConditions]
    """Conditions of the link, one per value of the axis."""
    results: Sequence[TrialSummary]
    """Figures of the trials, one per value of the axis."""

    @property
    def values(self) -> list[float]:
        """Values of the axis."""
        return [getattr(link, FIELDS[self.axis]) for link in self.links]

    @property
    def episodes(self) -> int:
        """Number of trials at each value."""
        return self.results[0].episodes
