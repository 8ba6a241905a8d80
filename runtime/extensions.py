"""Robots and tasks of other installed packages, which offer them as entry points.

A package is imported only when its robot or task is named. A name that gatort has itself cannot be
taken.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any, Literal

from .errors import ConfigError

Offer = Literal["gatort.robots", "gatort.tasks"]
"""Group of entry points."""


def offered(group: Offer) -> list[str]:
    """Return the names that installed packages offer."""
    return sorted(entry_points(group=group).names)


def load(group: Offer, name: str) -> Any:
    """Import the object that a package offers by a name.

    Raises:
        ConfigError: no package offers it, several do, or it cannot be imported.
    """
    found = list(entry_points(group=group, name=name))
    if len(found) != 1:
        packages = ", ".join(sorted(each.dist.name for each in found if each.dist)) or "none"
        raise ConfigError(f"expected one package that offers {name!r} as {group}, found {packages}")
    try:
        return found[0].load()
    except Exception as error:
        raise ConfigError(
            f"{name!r} is {found[0].value}, which cannot be imported: "
            f"{type(error).__name__}: {error}"
        ) from error
