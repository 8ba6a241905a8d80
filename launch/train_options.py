"""Options of `gatort train`, free of PyTorch, so that launch profiles know their keys."""

from __future__ import annotations

from os import sched_getaffinity
from pathlib import Path

from pydantic import PositiveInt

from gatort.policies.recipe import CourseConfig


class TrainOptions(CourseConfig):
    """One training run with its rounds of DAgger."""

    preset: str = "stack"
    """Size of the model: tiny, stack, camera, gato-79m, gato-364m or gato-1.2b."""
    start: Path | None = None
    """Bundle whose weights training starts from, whatever the preset (fine-tuning). Default: random
    weights."""
    task: str | None = None
    """Task of the simulated arm, for demonstrations that name none."""
    workers: PositiveInt = len(sched_getaffinity(0))
    """Number of processes that share the rollouts."""
