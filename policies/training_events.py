"""Figures of a training over its steps, as event files where TensorBoard is installed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from gatort.runtime.packages import installed_version

if TYPE_CHECKING:
    from .tensorboard_events import TensorboardEvents

EVENTS: Final = "events"
"""Folder of the event files, in the training's own."""


class TrainingEvents:
    """Writes figures of a training once a checkpoint holds their step.

    A training that goes on from its checkpoint therefore writes no step's loss twice.
    """

    def __init__(self, folder: Path) -> None:
        """Prepare. Without TensorBoard, `add` does nothing.

        Args:
            folder: folder of the event files, made with the first of them.
        """
        self._events = _open(folder)
        self._waiting: list[tuple[int, dict[str, float]]] = []

    def add(self, step: int, saved_step: int, **figures: float) -> None:
        """Take figures of a step, when `saved_step` is that of the newest checkpoint."""
        if self._events is not None:
            self._waiting.append((step, figures))
            self.flush(saved_step)

    def flush(self, saved_step: int) -> None:
        """Write the figures of all steps, if a checkpoint holds the last of them."""
        if self._events is None or not self._waiting or saved_step < self._waiting[-1][0]:
            return
        for step, figures in self._waiting:
            self._events.write(step, figures)
        self._waiting.clear()

    def close(self) -> None:
        """Finish the file."""
        if self._events is not None:
            self._events.close()


def _open(folder: Path) -> TensorboardEvents | None:
    if installed_version("tensorboard") is None:
        return None
    # A training needs no TensorBoard, which may be absent.
    from .tensorboard_events import TensorboardEvents

    return TensorboardEvents(folder)
