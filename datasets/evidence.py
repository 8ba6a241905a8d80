"""Values of all episodes, as far as the checks of a data set need them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.episode import Episode

from .fitting import Fitting

KeyValues = NDArray[np.float64]

COMPARED_TICKS: Final = 20_000
"""Ticks that the checks look at."""
_GRID: Final = 4
"""Rows and columns of the mean colours that stand for a picture."""
_PICTURES_APART: Final = 20
"""Ticks from one picture that is looked at to the next."""


@dataclass(slots=True)
class Evidence:
    """Values of all episodes, as far as the checks need them."""

    fitting: Fitting
    """Ways of the keys and the action."""
    rows: dict[str, list[KeyValues]] = field(default_factory=dict)
    """(K, S) values of each key of numbers and of the action, one array an episode."""
    colours: dict[str, list[KeyValues]] = field(default_factory=dict)
    """(K', 48) mean colours of each camera on a grid, of some pictures of each episode."""
    stamps_ns: list[NDArray[np.int64]] = field(default_factory=list)
    """(K,) stamps of each episode."""
    ticks: int = 0
    """Number of ticks."""
    episodes: int = 0
    """Number of episodes."""

    def take(self, episode: Episode) -> None:
        """Keep the values of an episode. Enough of them are enough."""
        self.episodes += 1
        if self.ticks > COMPARED_TICKS:
            return
        self.ticks += episode.ticks
        for fit, values in zip(self.fitting.keys, episode.observations, strict=True):
            if fit.columns is None:
                self.colours.setdefault(fit.name, []).append(
                    grid_colours(values[::_PICTURES_APART])
                )
            else:
                self.rows.setdefault(fit.name, []).append(
                    values.reshape(len(values), -1).astype(np.float64)
                )
        both = (episode.actions, episode.expert_actions)
        for fit, taken in zip(self.fitting.actions, both, strict=False):
            self.rows.setdefault(fit.name, []).append(taken.astype(np.float64))
        if len(episode.stamps_ns):
            self.stamps_ns.append(episode.stamps_ns)

    def all(self, name: str) -> KeyValues:
        """Return all values of a key (N, S)."""
        return np.concatenate(self.rows[name])

    def changes(self, name: str) -> KeyValues:
        """Return the change of each value per second (N − episodes, S), at the policy's rate."""
        hz = self.fitting.spec.control_hz
        return np.concatenate([np.diff(rows, axis=0) for rows in self.rows[name]]) * hz

    def middles(self, name: str) -> KeyValues:
        """Return the mean of each value and the next one (N − episodes, S)."""
        return np.concatenate([(rows[1:] + rows[:-1]) / 2 for rows in self.rows[name]])


def grid_colours(pictures: NDArray[Any]) -> KeyValues:
    """Return the mean colours (K, 48) of pictures (K, H, W, 3) on a grid of 4 × 4."""
    count, height, width, _ = pictures.shape
    cut = pictures[:, : height - height % _GRID, : width - width % _GRID]
    cells = cut.reshape(count, _GRID, height // _GRID, _GRID, width // _GRID, 3)
    means: KeyValues = cells.mean(axis=(2, 4)).reshape(count, -1)
    return means
