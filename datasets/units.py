"""Units that a mapping may state, and their factors to SI."""

from __future__ import annotations

import math
from typing import Final

from gatort.runtime.errors import ConfigError

_DEGREE: Final = math.pi / 180
FACTORS: Final = {
    ("deg", "rad"): _DEGREE,
    ("deg/s", "rad/s"): _DEGREE,
    ("turn", "rad"): 2 * math.pi,
    ("rpm", "rad/s"): 2 * math.pi / 60,
    ("mm", "m"): 1e-3,
    ("cm", "m"): 1e-2,
    ("mm/s", "m/s"): 1e-3,
    ("cm/s", "m/s"): 1e-2,
    ("mN·m", "N·m"): 1e-3,
    ("N·cm", "N·m"): 1e-2,
    ("%", "1"): 1e-2,
}
"""Number of a key's units in one unit of a data set, by (unit of the data set, unit of the key)."""
WORDS: Final = {
    "deg": "degrees",
    "deg/s": "degrees per second",
    "mm": "millimetres",
    "cm": "centimetres",
}
"""Units that read better as a word."""


def factor_to(unit: str, found: str, key: str) -> float:
    """Return the number of units of a key in one unit of a data set.

    Args:
        unit: unit of the key.
        found: unit that the mapping states for the data set.
        key: name of the key.

    Raises:
        ConfigError: there is no such conversion.
    """
    if found == unit:
        return 1.0
    if (found, unit) not in FACTORS:
        valid = ", ".join([unit, *others(unit)])
        raise ConfigError(f"{key}: unit: expected one of {valid}, found {found!r}")
    return FACTORS[found, unit]


def others(unit: str) -> list[str]:
    """Return the other units that a key's values may have in a data set."""
    return [found for found, wanted in FACTORS if wanted == unit]


def worded(unit: str) -> str:
    """Return a unit for a sentence."""
    return WORDS.get(unit, unit)
