"""A bundle that is whole and small: `tiny` with random weights, exported once a session."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gatort.runtime.bundle import TrainingRecord
from gatort.runtime.clock import VirtualClock
from gatort.runtime.spec import (
    CONTINUOUS_BINS,
    FIRST_CONTINUOUS_ID,
)
from gatort.sim.tasks.stacking.specifications import STACK_SPEC


def write_random_bundle(directory: Path) -> Path:
    import torch

    from gatort.export.bundle_writer import write_bundle
    from gatort.policies.model import Gato
    from gatort.policies.presets import preset

    torch.manual_seed(0)
    model = Gato(
        STACK_SPEC, preset("tiny").model_copy(update={"first_token_id": FIRST_CONTINUOUS_ID})
    )
    with torch.no_grad():
        # Only bins of small torques are ever the likeliest, so that the arm stays slower than its sensors can be.
        small = model.bins_at + CONTINUOUS_BINS // 2
        model.tokens.weight[model.bins_at : small - 8] *= 0.01
        model.tokens.weight[small + 8 : model.bins_at + CONTINUOUS_BINS] *= 0.01
    training = TrainingRecord(
        recipe="random weights",
        demonstrations="none",
        training_seeds=((1_000_000, 1_000_099),),
        validation_seeds=((900_000, 900_019),),
        parameters=model.parameters_total,
        steps=0,
    )
    write_bundle(directory, "random", model, training, task="stacking")
    return directory


class SlowClock(VirtualClock):
    """Every reading takes 30 ms, longer than the 25 ms within which an action has to come."""

    def now_ns(self) -> int:
        self.advance_ns(30_000_000)
        return super().now_ns()


@pytest.fixture
def slow_clock() -> type[VirtualClock]:
    return SlowClock


@pytest.fixture(scope="session")
def pristine_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_bundle(tmp_path_factory.mktemp("bundle") / "random")


@pytest.fixture
def bundle(pristine_bundle: Path, tmp_path: Path) -> Path:
    """A copy of its own, so that a test may damage it."""
    return shutil.copytree(pristine_bundle, tmp_path / "random")
