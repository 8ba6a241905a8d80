"""A training on the screen and, where TensorBoard is installed, in its event files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from gatort.policies.dagger import Course, CourseWatch
from gatort.runtime.demonstrations import DemonstrationManifest
from gatort.runtime.packages import installed_version
from gatort.runtime.wording import counted

from .report import progress_bar, screen

EVENTS: Final = "events"
"""Folder of the event files, in the training's own."""


class Events(Protocol):
    """Scalars over steps."""

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write scalars of one step."""

    def close(self) -> None:
        """Finish the file."""


def open_events(folder: Path) -> Events | None:
    """Return event files in a folder; `None` where TensorBoard is not installed."""
    if installed_version("tensorboard") is None:
        return None
    # A training needs no TensorBoard, which may be absent.
    from .tensorboard_events import TensorboardEvents

    return TensorboardEvents(folder)


class TrainWatch(CourseWatch):
    """Shows a course on standard error, and writes its figures as events.

    Events of a step are written once a checkpoint holds the step. A training that goes on from its
    checkpoint therefore writes no step's loss twice.
    """

    def __init__(self, events: Events | None) -> None:
        self._events = events
        self._waiting: list[tuple[int, dict[str, float]]] = []

    @contextmanager
    def fitting(self, course: Course) -> Iterator[Callable[[float], None]]:
        """See `CourseWatch.fitting`."""
        trainer = course.trainer
        with progress_bar("steps") as bars:
            bar = bars.add_task("", total=course.config.steps, completed=trainer.step)

            def show(loss: float) -> None:
                text = f"loss {loss:.3f}, {trainer.tokens_per_s:,.0f} tokens/s{_rollouts(course)}"
                bars.update(bar, completed=trainer.step, description=text)
                figures = {"loss/training": loss, "tokens_per_s": trainer.tokens_per_s}
                self._keep(trainer.step, figures, trainer.saved_step)

            try:
                yield show
            finally:
                self._flush(trainer.saved_step)

    def fitted(self, course: Course, validation_loss: float) -> None:
        """See `CourseWatch.fitted`."""
        step = course.trainer.step
        screen(stderr=True).print(
            f"step {step}: validation loss {validation_loss:.3f}{_rollouts(course)}"
        )
        self._keep(step, {"loss/validation": validation_loss}, course.trainer.saved_step)

    def rolled_out(self, course: Course, index: int, rollouts: DemonstrationManifest) -> None:
        """See `CourseWatch.rolled_out`."""
        screen(stderr=True).print(
            f"round {index}: {rollouts.successes} of "
            f"{counted(rollouts.episodes, 'rollout')} succeeded"
        )
        share = rollouts.successes / rollouts.episodes
        step = course.config.steps_until(index)
        self._keep(step, {"rollouts/success": share}, course.trainer.saved_step)

    def close(self) -> None:
        """Finish the event file."""
        if self._events is not None:
            self._events.close()

    def _keep(self, step: int, figures: dict[str, float], saved_step: int) -> None:
        if self._events is not None:
            self._waiting.append((step, figures))
            self._flush(saved_step)

    def _flush(self, saved_step: int) -> None:
        """Write the figures of all steps that a checkpoint holds."""
        if self._events is None or not self._waiting or saved_step < self._waiting[-1][0]:
            return
        for step, figures in self._waiting:
            self._events.write(step, figures)
        self._waiting.clear()


def _rollouts(course: Course) -> str:
    rollouts = course.rollouts
    return f", rollouts {rollouts.successes / rollouts.episodes:.0%}" if rollouts else ""
