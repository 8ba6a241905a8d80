"""Joint positions of a simulated robot during a run, for a film after it and a window beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gatort.sim.film import film
from gatort.sim.robot import StackingRobot
from gatort.sim.viewer import Viewer


class FilmTrack:
    """Positions after each tick, in memory that is fixed from the start."""

    def __init__(self, robot: StackingRobot, ticks: int) -> None:
        """Allocate.

        Args:
            robot: simulated robot to watch.
            ticks: number of ticks to keep; later ones are shown in the window but not kept.
        """
        self._robot = robot
        self._kept = np.zeros((ticks, len(robot.positions)))  # (ticks, Q)
        self._count = 0
        self._viewer: Viewer | None = None

    @property
    def positions(self) -> NDArray[np.float64]:
        """Positions (N, Q) after each kept tick."""
        return self._kept[: self._count]

    def keep(self) -> None:
        """Keep the present positions and offer them to the window; never waits."""
        positions = self._robot.positions
        if self._count < len(self._kept):
            self._kept[self._count] = positions
            self._count += 1
        if self._viewer is not None:
            self._viewer.offer(positions)

    @contextmanager
    def window(self) -> Iterator[None]:
        """Show the positions in a window until the end of the context."""
        with Viewer(self._robot.layout) as self._viewer:
            yield
        self._viewer = None

    def draw(self, path: Path, hz: int) -> None:
        """Draw the kept positions into a film at `hz` frames a second."""
        film(path, self._robot.layout, self.positions, hz)
