"""Events of a training, read back by TensorBoard's own reader."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gatort.policies import training_events
from gatort.policies.training_events import TrainingEvents


def read(folder: Path, tag: str) -> list[tuple[int, float]]:
    reader = EventAccumulator(str(folder)).Reload()
    return [(each.step, each.value) for each in reader.Scalars(tag)]


def test_figures_come_back_with_their_step_and_value(tmp_path: Path) -> None:
    folder = tmp_path / "events"
    events = TrainingEvents(folder)
    assert not folder.exists()
    events.add(3, 3, loss=0.5, tokens_per_s=2000.0)
    events.add(4, 4, loss=0.25)
    events.close()
    assert read(folder, "loss") == [(3, 0.5), (4, 0.25)]
    assert read(folder, "tokens_per_s") == [(3, 2000.0)]


def test_a_step_that_no_checkpoint_holds_is_not_written(tmp_path: Path) -> None:
    events = TrainingEvents(tmp_path)
    for step in range(1, 9):
        events.add(step, saved_step=step // 3 * 3, loss=1.0)
    events.close()
    assert [step for step, _ in read(tmp_path, "loss")] == [1, 2, 3, 4, 5, 6]


def test_a_checkpoint_at_the_end_writes_the_rest(tmp_path: Path) -> None:
    events = TrainingEvents(tmp_path)
    events.add(1, saved_step=0, loss=1.0)
    events.flush(saved_step=1)
    events.close()
    assert read(tmp_path, "loss") == [(1, 1.0)]


def test_without_tensorboard_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_events, "installed_version", lambda _: None)
    events = TrainingEvents(tmp_path / "events")
    events.add(1, 1, loss=1.0)
    events.close()
    assert list(tmp_path.iterdir()) == []
