"""MuJoCo's window on a run, kept up to date by a thread that the loop never waits for."""

from __future__ import annotations

import os
from threading import Event
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.errors import ConfigError
from gatort.runtime.onlooker import Onlooker

if TYPE_CHECKING:
    from gatort.sim.tasks.stacking.task import Layout

OPEN_S = 10.0


def require_screen() -> None:
    """Check that a window can be opened.

    Raises:
        ConfigError: there is no screen.
    """
    if not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY"):
        raise ConfigError(
            "--viewer needs a screen, and DISPLAY is not set; --video FILE films the run instead"
        )


class Viewer(Onlooker):
    """Shows the newest positions that it was offered, in a scene of its own."""

    def __init__(self, layout: Layout) -> None:
        from gatort.sim.simulators.mujoco import load_model

        super().__init__("viewer")
        self._model = load_model(layout)
        self._newest: NDArray[np.float64] = self._model.qpos0.copy()  # (30,)
        self._opened = Event()

    def offer(self, positions: NDArray[np.float64]) -> None:
        """Hand over positions (30,), which are copied; never waits."""
        self._newest = positions.copy()
        self._offered.set()

    def _show(self) -> None:
        import mujoco
        import mujoco.viewer

        data = mujoco.MjData(self._model)
        with mujoco.viewer.launch_passive(
            self._model, data, show_left_ui=False, show_right_ui=False
        ) as window:
            window.sync()
            self._opened.set()
            for _ in self._offers():
                if not window.is_running():
                    return
                data.qpos[:] = self._newest
                mujoco.mj_forward(self._model, data)
                window.sync()

    def __enter__(self) -> Self:
        super().__enter__()
        self._opened.wait(
            OPEN_S
        )  # opening a window takes 0.3 s of the interpreter, which no tick may wait for
        return self
