"""Values outside their range: other units, another order, swapped keys, normalised values.

Letters: N ticks of all episodes, S values of a key.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.spec import OTHER_UNIT_RANGES

from .evidence import Evidence, KeyValues
from .fitting import Fit, Fitting
from .units import FACTORS, others, worded

_ACTIONS: Final = ("action", "expert_action")
NEAR: Final = 0.1
"""A value this many widths outside its range still counts as inside: sensors have noise."""
MOST_OUTSIDE: Final = 0.25
"""Share of values that may lie farther outside: a disturbed arm leaves the range of its task."""
STILL: Final = 0.05
"""Values that span less than this share of their range say nothing about their unit."""
PLAUSIBLE: Final = 0.2
"""Values that would stay below this share of the largest one in another unit are not in it."""


def check_ranges(evidence: Evidence) -> Iterator[str]:
    """Yield a sentence for each key, and for the action, whose values do not fit its range."""
    for low, high, fit in _ranged(evidence.fitting):
        trusted_action = fit.source.trust and fit.name in _ACTIONS
        if fit.name in evidence.rows and not trusted_action:
            yield from _range(evidence, fit, low, high)


def _ranged(fitting: Fitting) -> Iterator[tuple[KeyValues, KeyValues, Fit]]:
    """Yield the range of each value of the keys that have one, and of the action."""
    for key, fit in zip(fitting.spec.observations, fitting.keys, strict=True):
        if key.low:
            yield np.array(key.low), np.array(key.high), fit
    actuators = fitting.spec.actuators
    low = np.array([actuator.low for actuator in actuators])
    high = np.array([actuator.high for actuator in actuators])
    for fit in fitting.actions:
        yield low, high, fit


def _fits(
    values: KeyValues, low: KeyValues, high: KeyValues, most_outside: float = MOST_OUTSIDE
) -> NDArray[np.bool_]:
    """Return for each column of values (N, S) whether it fits its range (S,)."""
    width = high - low
    far = (values < low - OTHER_UNIT_RANGES * width) | (values > high + OTHER_UNIT_RANGES * width)
    near = (values < low - NEAR * width) | (values > high + NEAR * width)
    fits: NDArray[np.bool_] = ~far.any(axis=0) & (near.mean(axis=0) <= most_outside)
    return fits


def _range(evidence: Evidence, fit: Fit, low: KeyValues, high: KeyValues) -> Iterator[str]:
    values = evidence.all(fit.name)
    # Training refuses a key that far outside, trusted or not.
    most = 1.0 if fit.source.trust else MOST_OUTSIDE
    fits = _fits(values, low, high, most)
    if fits.all():
        if not fit.source.trust:
            yield from _converted_twice(fit, values, low, high)
            yield from _normalised(fit, values, low, high)
        return

    worst = int(np.flatnonzero(~fits)[0])
    unit = fit.units[worst]
    found = (
        f"{fit.name}: expected {unit} within {low[worst]:g} to {high[worst]:g}"
        f"{element(fit, worst)}, found {values[:, worst].min():.4g} to {values[:, worst].max():.4g}"
    )
    if fit.source.trust:
        yield f"{found}; training refuses values that far outside, trusted or not"
        return
    if (stated := _unit_that_fits(fit, values, low, high, unit)) is not None:
        yield f"{found}, {stated}"
        return
    if (swapped := _swapped_range(evidence, fit, low, high)) is not None:
        yield f"{found}; {swapped}"
        return
    if (order := _order_that_fits(values, low, high)) is not None and fit.columns is not None:
        columns = [fit.columns[index] for index in order]
        yield (
            f"{found}, as if in another order; state columns = {columns} in [{fit.table}] if that "
            "is the order"
        )
        return
    yield (
        f"{found}; state its unit, scale or columns in [{fit.table}], or trust = true to take the "
        "values as they are"
    )


def _unit_that_fits(
    fit: Fit, values: KeyValues, low: KeyValues, high: KeyValues, unit: str
) -> str | None:
    """Return a clause on another unit of the values that have `unit` here, in which all fit."""
    mine = np.array([each == unit for each in fit.units])
    for other in others(unit):
        converted = np.where(mine, values * FACTORS[other, unit], values)
        reach = np.abs(converted).max(axis=0) / np.maximum(np.abs(low), np.abs(high))
        if reach[mine].max() > PLAUSIBLE and _fits(converted, low, high).all():
            each = [other if own else kept for own, kept in zip(mine, fit.units, strict=True)]
            stated = json.dumps(other if mine.all() else each, ensure_ascii=False)
            return f"as if in {worded(other)}; state unit = {stated} in [{fit.table}]"
    return None


def element(fit: Fit, index: int) -> str:
    """Return the clause on one of several values; empty for a key of one value."""
    return f" in value {index}" if len(fit.units) > 1 else ""


def _converted_twice(fit: Fit, values: KeyValues, low: KeyValues, high: KeyValues) -> Iterator[str]:
    """Yield a sentence on a conversion of values that had the wanted unit before it."""
    if fit.source.unit is None or np.all(fit.factors == 1.0):
        return
    raw = (values - fit.offsets) / fit.factors
    spans = np.ptp(values, axis=0) / (high - low)
    raw_spans = np.ptp(raw, axis=0) / (high - low)
    if spans.max() < STILL and raw_spans.max() > STILL and _fits(raw, low, high).all():
        yield (
            f"{fit.name}: expected {fit.source.unit} as the mapping says, found values that span "
            f"{raw_spans.max():.0%} of the range in {fit.units[0]} already; leave unit out of "
            f"[{fit.table}], or state trust = true"
        )


def _normalised(fit: Fit, values: KeyValues, low: KeyValues, high: KeyValues) -> Iterator[str]:
    """Yield a sentence on values between −1 and 1 that stand for a much larger range."""
    if np.any(fit.factors != 1.0):
        return
    reach = np.abs(values).max(axis=0)
    wide = np.maximum(-low, high) > 3.0
    if wide.any() and np.all(reach[wide] <= 1.0) and np.any(np.abs(values[:, wide]) == 1.0):
        worst = int(np.flatnonzero(wide)[0])
        yield (
            f"{fit.name}: expected {fit.units[worst]} within {low[worst]:g} to {high[worst]:g}"
            f"{element(fit, worst)}, found values cut off at −1 and 1, as if normalised; state "
            f"scale and offset in [{fit.table}], or trust = true"
        )


def _swapped_range(evidence: Evidence, fit: Fit, low: KeyValues, high: KeyValues) -> str | None:
    """Return a clause on another key whose values fit here, while these fit there."""
    here = evidence.all(fit.name)
    for other_low, other_high, other in _ranged(evidence.fitting):
        same = other.shape == fit.shape and other.name != fit.name and other.units != fit.units
        if not same or other.name not in evidence.rows:
            continue
        there = evidence.all(other.name)
        if _fits(there, low, high).all() and _fits(here, other_low, other_high).all():
            return (
                f"they fit {other.name}, whose own values fit {fit.name}, as if the two were "
                f"swapped; swap the features of [{fit.table}] and [{other.table}]"
            )
    return None


def orders(count: int) -> Iterator[list[int]]:
    """Yield the orders that are mistaken for one another: reversed, or two values exchanged."""
    if count > 1:
        yield list(range(count))[::-1]
    for first, second in combinations(range(count), 2):
        order = list(range(count))
        order[first], order[second] = second, first
        yield order


def _order_that_fits(values: KeyValues, low: KeyValues, high: KeyValues) -> list[int] | None:
    """Return an order of the columns in which all fit."""
    return next(
        (each for each in orders(len(low)) if _fits(values[:, each], low, high).all()), None
    )
