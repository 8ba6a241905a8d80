"""A bundle that is whole and small: `tiny` with random weights, exported once a session."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gatort.runtime.bundle import ONNX_FILE, WEIGHTS_FILE, Manifest, TrainingRecord, sha256_of, write_manifest
from gatort.runtime.spec import FIRST_CONTINUOUS_ID, PolicySpec
from gatort.sim.task import STACK_SPEC


def write_random_bundle(directory: Path, spec: PolicySpec) -> Path:
    import torch
    from safetensors.torch import save_file

    from gatort.export.to_onnx import export_onnx
    from gatort.policies.model import Gato
    from gatort.policies.presets import preset

    dims = preset("tiny").model_copy(update={"first_token_id": FIRST_CONTINUOUS_ID})
    torch.manual_seed(0)
    model = Gato(spec, dims)
    directory.mkdir()
    export_onnx(model, directory / ONNX_FILE)
    save_file(model.state_dict(), directory / WEIGHTS_FILE)
    training = TrainingRecord(
        recipe="random weights",
        demonstrations="none",
        training_seeds=((1_000_000, 1_000_099),),
        validation_seeds=((900_000, 900_019),),
        parameters=sum(each.numel() for each in model.parameters()),
        steps=0,
    )
    files = {name: sha256_of(directory / name) for name in (ONNX_FILE, WEIGHTS_FILE)}
    write_manifest(directory, Manifest(name="random", spec=spec, model=dims, files=files, training=training))
    return directory


@pytest.fixture(scope="session")
def pristine_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_bundle(tmp_path_factory.mktemp("bundle") / "random", STACK_SPEC)


@pytest.fixture
def bundle(pristine_bundle: Path, tmp_path: Path) -> Path:
    """A copy of its own, so that a test may damage it."""
    return shutil.copytree(pristine_bundle, tmp_path / "random")
