"""Robustness of a policy with cameras: success against one property of the pictures at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from gatort.sim.view_randomisation import NOMINAL_VIEW, ViewRandomisation

from .statistics import TrialSummary


@dataclass(frozen=True, slots=True)
class Property:
    """A property of the pictures that varies along a curve."""

    name: str
    """Name on the axis of a picture and in JSON."""
    unit: str
    values: tuple[float, ...]
    """Values from the nominal one on, in the unit."""
    at: Callable[[float], ViewRandomisation]
    """Function that returns the view at a value. Everything else is nominal."""


def _with(**fields: object) -> ViewRandomisation:
    return NOMINAL_VIEW.model_copy(update=fields)


PROPERTIES: Final = (
    Property(
        "camera shift",
        "cm",
        (0, 1, 2, 3, 4, 5),
        lambda x: _with(camera_shift_m=(x / 100, x / 100)),
    ),
    Property(
        "wrist camera shift",
        "mm",
        (0, 3, 6, 9, 12, 15),
        lambda x: _with(bracket_m=(x / 1000, x / 1000)),
    ),
    Property("camera angle", "°", (0, 1, 2, 3, 4.5, 6), lambda x: _with(camera_turn_deg=(x, x))),
    Property("light", "× nominal", (0.25, 0.5, 0.75, 1, 1.25, 1.5), lambda x: _with(light=(x, x))),
    Property("blur", "px", (0, 0.5, 1, 1.5, 2, 3), lambda x: _with(blur_px=(x, x))),
    Property("latency", "ms", (0, 20, 40, 60, 80, 100), lambda x: _with(latency_ms=(x, x))),
    Property(
        "block colour",
        "× training's spread",
        (0, 0.5, 1, 1.5, 2, 3),
        lambda x: _with(block_colours=x),
    ),
)
"""Curves of the card."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Results of trials along one property."""

    property: Property
    results: Sequence[TrialSummary]
    """Figures of the trials, one per value of the property."""
