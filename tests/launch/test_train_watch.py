"""Events of a training: what TensorBoard's own reader finds in them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gatort.launch import train_watch
from gatort.launch.train_watch import TrainWatch, open_events


def course(steps: int) -> Any:
    """A course as far as its watch reads it: a step, and the step of its checkpoint."""
    return SimpleNamespace(
        trainer=SimpleNamespace(step=0, saved_step=0, tokens_per_s=1000.0),
        config=SimpleNamespace(steps=steps),
        rollouts=None,
    )


def test_scalars_come_back_with_step_and_value(tmp_path: Path) -> None:
    events = open_events(tmp_path / "events")
    assert events is not None
    assert not (tmp_path / "events").exists()
    events.write(3, {"loss/training": 0.5, "tokens_per_s": 2000.0})
    events.write(4, {"loss/training": 0.25})
    events.close()
    reader = EventAccumulator(str(tmp_path / "events")).Reload()
    found = [(each.step, each.value) for each in reader.Scalars("loss/training")]
    assert found == [(3, 0.5), (4, 0.25)]
    assert [each.value for each in reader.Scalars("tokens_per_s")] == [2000.0]


def test_a_step_that_no_checkpoint_holds_is_not_written(tmp_path: Path) -> None:
    watch = TrainWatch(open_events(tmp_path))
    watched = course(steps=10)
    trainer = watched.trainer
    with watch.fitting(watched) as on_step:
        for step in range(1, 8):
            trainer.step = step
            trainer.saved_step = step // 3 * 3
            on_step(1.0 / step)
    watch.close()
    reader = EventAccumulator(str(tmp_path)).Reload()
    assert [each.step for each in reader.Scalars("loss/training")] == [1, 2, 3, 4, 5, 6]


def test_without_tensorboard_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_watch, "installed_version", lambda _: None)
    events = open_events(tmp_path / "events")
    assert events is None
    watch = TrainWatch(events)
    watched = course(steps=1)
    with watch.fitting(watched) as on_step:
        watched.trainer.step = watched.trainer.saved_step = 1
        on_step(1.0)
    watch.close()
    assert list(tmp_path.iterdir()) == []
