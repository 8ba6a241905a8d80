"""MuJoCo's window on a run. A thread keeps it up to date, and the loop never waits for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from threading import Event
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.errors import ConfigError
from gatort.runtime.onlooker import Onlooker

from .insets import placed
from .simulators.simulator import Scene
from .tasks.task import Layout

if TYPE_CHECKING:
    import mujoco

SMALLEST_WINDOW_PX = 100
"""Height of a window below which it shows no camera pictures."""
OPEN_S = 10.0
"""Longest wait for the window to open."""


def require_screen() -> None:
    """Check that there is a screen to open a window on.

    Raises:
        ConfigError: there is no screen.
    """
    if not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY"):
        raise ConfigError(
            "--viewer needs a screen, and DISPLAY is not set; --video FILE films the run instead"
        )


class Viewer(Onlooker):
    """Shows the newest positions that it was offered, in a copy of the scene."""

    def __init__(self, scene: Scene, layout: Layout) -> None:
        import mujoco

        from .simulators.mujoco import load_model, positions_of

        super().__init__("viewer")
        self._model = load_model(scene, layout.cubes)
        self._pictures: Sequence[NDArray[np.uint8]] = ()
        self._newest: NDArray[np.float64] = positions_of(mujoco.MjData(self._model))
        self._opened = Event()

    def offer(
        self, positions: NDArray[np.float64], pictures: Sequence[NDArray[np.uint8]] = ()
    ) -> None:
        """Hand over the newest state. Never waits.

        Args:
            positions: a row of `Simulator.positions`, which is copied.
            pictures: pictures (height, width, 3) that the policy got, which nobody may change.
        """
        self._newest = positions.copy()
        self._pictures = pictures
        self._offered.set()

    def _show(self) -> None:
        import mujoco
        import mujoco.viewer

        from .simulators.mujoco import show_positions

        data = mujoco.MjData(self._model)
        with mujoco.viewer.launch_passive(
            self._model, data, show_left_ui=False, show_right_ui=False
        ) as window:
            window.sync()
            self._opened.set()
            for _ in self._offers():
                if not window.is_running():
                    return
                show_positions(self._model, data, self._newest)
                _show_pictures(window, self._pictures)
                window.sync()

    def __enter__(self) -> Self:
        super().__enter__()
        # Opening a window holds the interpreter for 0.3 s, and no tick may wait for that.
        self._opened.wait(OPEN_S)
        return self


def _show_pictures(window: mujoco.viewer.Handle, pictures: Sequence[NDArray[np.uint8]]) -> None:
    """Lay the pictures over the lower left corner of the window."""
    import mujoco

    # A window that is not drawn yet, or no longer, has no height.
    height_px = window.viewport.height if window.viewport is not None else 0
    if not pictures or height_px < SMALLEST_WINDOW_PX:
        return
    window.set_images(
        [
            (mujoco.MjrRect(left, bottom, inset.shape[1], inset.shape[0]), inset)
            for left, bottom, inset in placed(pictures, height_px)
        ]
    )
