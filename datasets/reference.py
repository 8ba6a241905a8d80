"""Keys that fit demonstrations of the same specification better swapped, or in BGR."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Final

import numpy as np

from .evidence import Evidence, KeyValues
from .fitting import Fit
from .ranges import orders
from .units import others

LARGER: Final = 20.0
"""Ratio of the sizes of values from which they are in another unit."""
LEAST_EPISODES: Final = 5
"""Episodes of both from which the means of numbers say something about their order."""
CLEARER: Final = 3.0
"""Number of times that values must fit the reference better in another way."""


def check_reference(evidence: Evidence, reference: Evidence) -> Iterator[str]:
    """Yield a sentence for keys that fit the reference better swapped, or in BGR."""
    fits = [fit for fit in evidence.fitting.keys if not fit.source.trust]
    for fit in fits:
        if fit.name in evidence.colours and fit.name in reference.colours:
            yield from _colour_order(evidence, reference, fit)
    for one, two in combinations(fits, 2):
        if one.shape == two.shape and one.dtype == two.dtype:
            yield from _swapped(evidence, reference, one, two)
    action = evidence.fitting.action
    for fit in fits if action.source.trust else (*fits, action):
        if fit.name in evidence.rows and fit.name in reference.rows:
            yield from _size(evidence, reference, fit)
            yield from _order(evidence, reference, fit)


def _rows(evidence: Evidence, name: str) -> KeyValues | None:
    found = evidence.colours.get(name) or evidence.rows.get(name)
    return np.concatenate(found) if found else None


def _are_enough(evidence: Evidence, reference: Evidence) -> bool:
    return min(evidence.episodes, reference.episodes) >= LEAST_EPISODES


def _distance(found: KeyValues, expected: KeyValues) -> float:
    """Return the mean distance of two sets of rows, in standard deviations of the expected one."""
    spread = expected.std(axis=0) + 0.02 * np.abs(expected).max() + 1e-9
    return float(np.mean(np.abs(found.mean(axis=0) - expected.mean(axis=0)) / spread))


def _warmth(evidence: Evidence, name: str) -> KeyValues:
    """Return red minus blue in each cell of a camera's pictures (16,), on average."""
    cells = np.concatenate(evidence.colours[name]).mean(axis=0).reshape(-1, 3)
    warmth: KeyValues = cells[:, 0] - cells[:, 2]
    return warmth


def _colour_order(evidence: Evidence, reference: Evidence, fit: Fit) -> Iterator[str]:
    found, expected = (_warmth(each, fit.name) for each in (evidence, reference))
    as_is, turned = np.linalg.norm(found - expected), np.linalg.norm(found + expected)
    if as_is > CLEARER * turned:
        wanted = "rgb" if fit.source.colour == "bgr" else "bgr"
        yield (
            f"{fit.name}: expected red, green and blue as in the demonstrations of `like`, found "
            f'colours that fit in the reverse order; state colour = "{wanted}" in [{fit.table}]'
        )


def _swapped(evidence: Evidence, reference: Evidence, one: Fit, two: Fit) -> Iterator[str]:
    found = [_rows(evidence, fit.name) for fit in (one, two)]
    expected = [_rows(reference, fit.name) for fit in (one, two)]
    is_row = one.columns is not None
    if any(rows is None for rows in (*found, *expected)) or (
        is_row and not _are_enough(evidence, reference)
    ):
        return
    first, second = (rows for rows in found if rows is not None)
    own_first, own_second = (rows for rows in expected if rows is not None)
    as_is = _distance(first, own_first) + _distance(second, own_second)
    swapped = _distance(first, own_second) + _distance(second, own_first)
    if as_is > CLEARER * swapped:
        yield (
            f"{one.name}: expected values like those of the demonstrations of `like`, found some "
            f"that fit {two.name}, and the reverse, as if the two were swapped; swap the features "
            f"of [{one.table}] and [{two.table}]"
        )


def _size(evidence: Evidence, reference: Evidence, fit: Fit) -> Iterator[str]:
    """Yield a sentence for values that are far larger or smaller than the reference's."""
    found, expected = (np.abs(each.all(fit.name)).mean(axis=0) for each in (evidence, reference))
    known = (found > 0) & (expected > 0)
    if not known.any() or not _are_enough(evidence, reference):
        return
    ratio = float(np.median(found[known] / expected[known]))
    if 1 / LARGER < ratio < LARGER:
        return
    unit = fit.units[0]
    yield (
        f"{fit.name}: expected {unit} of the size of the demonstrations of `like`, found values "
        f"{ratio:.3g} times as large; state unit ({', '.join(others(unit)) or unit}) or scale in "
        f"[{fit.table}], or trust = true"
    )


def _order(evidence: Evidence, reference: Evidence, fit: Fit) -> Iterator[str]:
    """Yield a sentence for values that fit the reference in another order."""
    if fit.columns is None or not _are_enough(evidence, reference):
        return
    found, expected = evidence.all(fit.name), reference.all(fit.name)
    for order in orders(found.shape[1]):
        moved = [index for index, other in enumerate(order) if index != other]
        as_is = [_distance(found[:, [i]], expected[:, [i]]) for i in moved]
        turned = [_distance(found[:, [order[i]]], expected[:, [i]]) for i in moved]
        if all(own > max(1.0, CLEARER * other) for own, other in zip(as_is, turned, strict=True)):
            columns = [fit.columns[index] for index in order]
            yield (
                f"{fit.name}: expected values like those of the demonstrations of `like`, found "
                f"some that fit in another order; state columns = {columns} in [{fit.table}] if "
                "that is the order"
            )
            return
