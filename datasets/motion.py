"""Speeds that are not those of their positions, and stamps of another rate.

Letters: N ticks of all episodes, S values of a key.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from .evidence import Evidence, KeyValues
from .fitting import Fit
from .ranges import element
from .units import FACTORS, others, worded

ALIKE: Final = 0.9
"""Correlation from which a speed is that of a position."""
UNLIKE: Final = 0.5
"""Correlation below which it is not."""
RATIO: Final = 1.25
"""Largest ratio between a speed and the change of its position."""
STAMP_TOLERANCE: Final = 0.1
"""Relative difference of the median time between stamps from the period."""
LEAST_CHANGES: Final = 10
"""Changes from which a correlation says something."""


def check_motion(evidence: Evidence) -> Iterator[str]:
    """Yield a sentence for each speed that is not that of its position, and each fast change."""
    numbers = [
        fit for fit in evidence.fitting.keys if fit.name in evidence.rows and not fit.source.trust
    ]
    for place in numbers:
        for speed in numbers:
            if _is_speed_of(place, speed):
                yield from _motion(evidence, place, speed)
    yield from _fastest(evidence)


def _is_speed_of(place: Fit, speed: Fit) -> bool:
    expected = tuple(f"{unit}/s" for unit in place.units)
    return place.shape == speed.shape and speed.units == expected


def _correlations(left: KeyValues, right: KeyValues) -> KeyValues:
    """Return the correlation of each column of one array with each of the other (S, S)."""

    def normed(values: KeyValues) -> KeyValues:
        centred = values - values.mean(axis=0)
        length: KeyValues = np.sqrt((centred**2).sum(axis=0))
        scaled: KeyValues = centred / np.where(length > 1e-9, length, np.inf)
        return scaled

    found: KeyValues = normed(left).T @ normed(right)
    return found


def _motion(evidence: Evidence, place: Fit, speed: Fit) -> Iterator[str]:
    """Yield a sentence where a speed is not that of its place: order, swap, unit or rate."""
    change = evidence.changes(place.name)
    if len(change) < LEAST_CHANGES:
        return
    rate = evidence.middles(speed.name)
    correlations = _correlations(change, rate)
    own = np.diagonal(correlations)
    back = np.diagonal(_correlations(evidence.changes(speed.name), evidence.middles(place.name)))
    if np.median(own) < UNLIKE and np.median(back) > ALIKE:
        yield (
            f"{place.name}: expected the values whose change is {speed.name}, found the reverse, "
            f"as if the two were swapped; swap the features of [{place.table}] and [{speed.table}]"
        )
        return
    best = correlations.argmax(axis=1)
    astray = [
        index
        for index, other in enumerate(best)
        if own[index] < UNLIKE and correlations[index, other] > ALIKE
    ]
    if astray:
        first = astray[0]
        yield (
            f"{speed.name}: expected the order of {place.name}, found that value {best[first]} is "
            f"the speed of value {first} of {place.name}; state columns in [{place.table}] or "
            f"[{speed.table}]"
        )
        return
    sure = own > ALIKE
    if not sure.any():
        return
    ratios = (change * rate).sum(axis=0)[sure] / (rate**2).sum(axis=0)[sure]
    yield from _ratio(evidence, place, speed, float(np.median(ratios)))


def _ratio(evidence: Evidence, place: Fit, speed: Fit, ratio: float) -> Iterator[str]:
    """Yield a sentence where positions change `ratio` times as fast as the speed says."""
    if 1 / RATIO <= ratio <= RATIO:
        return
    for other in others(speed.units[0]):
        if 1 / RATIO <= ratio / FACTORS[other, speed.units[0]] <= RATIO:
            yield (
                f"{speed.name}: expected {speed.units[0]}, found {1 / ratio:.3g} times the change "
                f'of {place.name}, as if in {worded(other)}; state unit = "{other}" in '
                f"[{speed.table}]"
            )
            return
    hz = evidence.fitting.spec.control_hz
    yield (
        f"{place.name}: expected changes at {hz} Hz that {speed.name} agrees with, found "
        f"{ratio:.3g} times as much, as if the ticks were about {hz / ratio:.0f} a second or one "
        f"of the two had another unit; mend fps or take_every, or state unit in [{place.table}] "
        f"or [{speed.table}]"
    )


def _fastest(evidence: Evidence) -> Iterator[str]:
    """Yield a sentence for each key that changes faster than its specification says."""
    for key, fit in zip(evidence.fitting.spec.observations, evidence.fitting.keys, strict=True):
        if not key.fastest_per_s or fit.source.trust or fit.name not in evidence.rows:
            continue
        changes = np.abs(evidence.changes(fit.name))
        if not len(changes):
            continue
        common = np.quantile(changes, 0.99, axis=0) / np.array(key.fastest_per_s)
        if common.max() > 1.5:
            worst = int(common.argmax())
            found = common[worst] * key.fastest_per_s[worst]
            yield (
                f"{key.name}: expected changes up to {key.fastest_per_s[worst]:g} {key.unit} a "
                f"second{element(fit, worst)}, found {found:.3g} in one tick of a hundred; check "
                f"unit, fps and take_every, or state trust = true in [{fit.table}]"
            )


def check_stamps(evidence: Evidence) -> Iterator[str]:
    """Yield a sentence where the stamps have another rate than the policy."""
    gaps = [np.diff(stamps) for stamps in evidence.stamps_ns if len(stamps) > 1]
    if not gaps:
        return
    period_ms = evidence.fitting.spec.period_ns * 1e-6
    found_ms = float(np.median(np.concatenate(gaps))) * 1e-6
    if abs(found_ms / period_ms - 1) > STAMP_TOLERANCE:
        yield (
            f"stamp_ns: expected {period_ms:g} ms from one tick to the next, found {found_ms:.4g} "
            "ms in the middle; mend fps or take_every, or record at the policy's rate"
        )
