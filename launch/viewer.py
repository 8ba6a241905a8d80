"""MuJoCo's window on a run, kept up to date by a thread that the loop never waits for."""

from __future__ import annotations

import os
from threading import Event, Thread
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.errors import ConfigError

if TYPE_CHECKING:
    from gatort.sim.task import Layout

OPEN_S, CLOSE_S = 10.0, 2.0


def require_screen() -> None:
    """Check that a window can be opened.

    Raises:
        ConfigError: there is no screen.
    """
    if not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY"):
        raise ConfigError("--viewer needs a screen, and DISPLAY is not set; --video FILE films the run instead")


class Viewer:
    """Shows the newest positions that it was offered, in a scene of its own."""

    def __init__(self, layout: Layout) -> None:
        from gatort.sim.robot_mujoco import load_model

        self._model = load_model(layout)
        self._newest: NDArray[np.float64] = self._model.qpos0.copy()  # (30,)
        self._wake, self._opened, self._closed = Event(), Event(), False
        self._thread = Thread(target=self._show, name="viewer", daemon=True)

    def offer(self, positions: NDArray[np.float64]) -> None:
        """Hand over positions (30,), which are copied; never waits."""
        self._newest = positions.copy()
        self._wake.set()

    def _show(self) -> None:
        import mujoco
        import mujoco.viewer

        data = mujoco.MjData(self._model)
        with mujoco.viewer.launch_passive(self._model, data, show_left_ui=False, show_right_ui=False) as window:
            window.sync()
            self._opened.set()
            while not self._closed and window.is_running():
                self._wake.wait()
                self._wake.clear()
                data.qpos[:] = self._newest
                mujoco.mj_forward(self._model, data)
                window.sync()

    def __enter__(self) -> Self:
        self._thread.start()
        self._opened.wait(OPEN_S)  # opening a window takes 0.3 s of the interpreter, which no tick may wait for
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        self._wake.set()
        self._thread.join(CLOSE_S)
