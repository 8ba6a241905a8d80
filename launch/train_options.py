"""Options of `gatort train`, free of PyTorch, so that launch profiles know their keys."""

from __future__ import annotations

from pydantic import PositiveInt

from gatort.policies.loading import Bundle
from gatort.policies.recipe import CourseConfig
from gatort.runtime.grant import read_grant


class TrainOptions(CourseConfig):
    """One training run with its rounds of DAgger."""

    preset: str = "stack"
    """Size of the model: tiny, stack, camera, gato-79m, gato-364m or gato-1.2b."""
    start: Bundle | None = None
    """Bundle whose weights training starts from, or the name of a shipped one, whatever the preset
    (fine-tuning). Default: random weights."""
    task: str | None = None
    """Task of the simulated arm, for demonstrations that name none."""
    workers: PositiveInt = read_grant().processors
    """Number of processes that share the rollouts."""
