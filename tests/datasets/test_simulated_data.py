"""Demonstrations of the simulator pass every check: none of them sees a mistake where none is."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatort.datasets.conversion import to_demonstrations, to_lerobot
from gatort.datasets.lerobot_layout import OWN, STATE, feature_of, is_fraction
from gatort.datasets.mapping import Mapping
from gatort.sim.collect import Collection, collect
from gatort.sim.tasks import task_named
from gatort.sim.tasks.seeds import TRAINING_SEEDS


@pytest.mark.slow
@pytest.mark.parametrize("task", ["stacking", "reach"])
def test_the_expert_makes_no_mistake_that_the_checks_know(task: str, tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    spec = task_named(task).interface
    first = TRAINING_SEEDS.start
    for name, seed in (("demos", first), ("others", first + 10)):
        collect(
            Collection(
                task=task,
                spec=spec,
                directory=tmp_path / name,
                first_seed=seed,
                episodes=3,
                noise_nm=(0.0, 4.0),
            ),
            workers=1,
        )
    to_lerobot([tmp_path / "others"], tmp_path / "lerobot")
    (tmp_path / "lerobot" / OWN).unlink()

    keys, at = {}, 0
    for key in spec.observations:
        assert is_fraction(key)
        keys[key.name] = {"from": STATE, "columns": tuple(range(at, at + key.size))}
        at += key.size
        assert feature_of(key) == STATE
    mapping = Mapping.model_validate(
        {"like": tmp_path / "demos", "keys": keys, "action": {"from": "action"}}
    )
    converted = to_demonstrations(tmp_path / "lerobot", tmp_path / "back", mapping)
    assert converted.episodes == 3
