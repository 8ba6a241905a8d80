"""Robots and tasks from elsewhere: entry points of installed packages, and classes named by module.

A package is imported only when its robot or task is named. A name that gatort has itself cannot be
taken.
"""

from __future__ import annotations

import sys
from importlib import import_module, invalidate_caches
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from .clock import Clock
from .errors import ConfigError, GatortError
from .robots.driver import Driver

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


def load_named(place: str) -> Any:
    """Import an object by its place, `module:Name`.

    A module that is not on Python's path is looked for in the working directory. That directory is
    then the last one on the path, so that no file there takes an installed module's name.

    Raises:
        ConfigError: the place has another form, or there is no such module or name, or the module
            cannot be imported.
    """
    module, colon, name = place.partition(":")
    parts = [*module.split("."), name]
    if not colon or not all(part.isidentifier() for part in parts):
        raise ConfigError(f"expected a class as module:Class, found {place!r}")
    here = str(Path.cwd())
    try:
        if here not in sys.path and find_spec(parts[0]) is None:
            sys.path.append(here)
            invalidate_caches()
        found = import_module(module)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and _is_part(error.name, module):
            raise ConfigError(
                f"{place}: expected a module {error.name} on Python's path or in {here}, found none"
            ) from error
        raise ConfigError(
            f"{place}: the module cannot be imported: {type(error).__name__}: {error}"
        ) from error
    try:
        return getattr(found, name)
    except AttributeError as error:
        raise ConfigError(
            f"{place}: expected a class {name} in {found.__file__}, found none"
        ) from error


def _is_part(missing: str | None, module: str) -> bool:
    """Check if a missing module is the named one or a package around it, not one that it uses."""
    return missing is not None and f"{module}.".startswith(f"{missing}.")


def make_driver(name: str, maker: Any, clock: Clock) -> Driver:
    """Make an arm from the object that an entry point or a module offers.

    Raises:
        ConfigError: it makes no driver, or fails in a way that is no error of gatort's.
    """
    if isinstance(maker, type) and not issubclass(maker, Driver):
        raise ConfigError(_no_driver(name, maker))
    try:
        driver = maker(clock) if callable(maker) else maker
    except GatortError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{name}: expected an arm from a call with the clock alone, found "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(driver, Driver):
        raise ConfigError(_no_driver(name, driver))
    return driver


def _no_driver(name: str, found: Any) -> str:
    return (
        f"{name}: expected a subclass of gatort.Driver, found {found!r}; docs/extend.md shows one"
    )
