"""Columns of a data set: its features as arrays, before a mapping makes them gatort's keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from numpy.typing import NDArray

from gatort.runtime.spec import PolicySpec, Strict

MOST_TICKS: Final = 1 << 22
"""Most ticks of a data set: 58 hours at 20 Hz."""
MOST_EPISODE_BYTES: Final = 1 << 32
"""Most memory that one episode of a data set may take."""


@dataclass(frozen=True, slots=True)
class Column:
    """One feature of a data set."""

    name: str
    """Name of the feature, such as `observation.state`."""
    shape: tuple[int, ...]
    """Shape of one tick's values; (height, width, 3) for a picture."""
    is_picture: bool
    """True for pictures of three colours in 8 bits."""
    names: tuple[str, ...] = ()
    """Name of each value, in order; empty if the data set names none."""


@dataclass(frozen=True, slots=True)
class RawEpisode:
    """K ticks of a data set, in its own units and order."""

    number: int
    """Number of the episode in the data set."""
    values: Mapping[str, NDArray[Any]]
    """(K, *shape) values of each feature that was asked for."""
    seed: int | None = None
    """Seed of the layout; `None` if unknown."""
    succeeded: bool | None = None
    """True if the task succeeded; `None` if the data set does not say."""


class OwnRecord(Strict):
    """`meta/gatort.json`: the part of demonstrations for which LeRobot has no place."""

    spec: PolicySpec
    """Keys, actuators and rates."""
    task: str | None = None
    """Name of the task in `gatort.sim.tasks`."""
    driver: str
    """Source of the actions."""


class DataSet(Protocol):
    """A data set of another program, open for reading."""

    path: Path
    """Path of the folder or file."""
    hz: float | None
    """Ticks per second; `None` if the data set does not say."""
    hz_place: str
    """Place that states the rate, for sentences."""
    columns: dict[str, Column]
    """Features by name."""
    own: OwnRecord | None
    """Description by gatort, if gatort wrote the data set."""

    def episodes(self, names: Sequence[str]) -> Iterator[RawEpisode]:
        """Yield every episode with the named features.

        Raises:
            DemonstrationError: a file is damaged, too large, or not that which it claims to be.
        """
        ...
