"""A model's weights as safetensors, written and read one tensor at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import IO

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from gatort.runtime.bundle import WEIGHTS_FILE, open_checked, verify
from gatort.runtime.errors import BundleError, OutputError, TrainingError
from gatort.runtime.tensors import TensorKind, read_tensors

from .model import Gato, blank


def read_model(directory: Path) -> Gato:
    """Read the PyTorch model of a bundle, in evaluation mode.

    Tensors are read one at a time, which holds the weights in memory once.

    Raises:
        BundleError: the bundle is incomplete or changed, or its tensors do not fit its dimensions.
    """
    manifest = verify(directory)
    model = blank(manifest.spec, manifest.model)

    with open_checked(directory, manifest, WEIGHTS_FILE) as file:
        _read_weights(model, file, directory / WEIGHTS_FILE)
    return model.eval()


def write_weights(model: Gato, path: Path) -> None:
    """Write a model's weights as a safetensors file that everyone may read (mode 644).

    Raises:
        TrainingError: a weight is not finite.
        OutputError: the file cannot be written.
    """
    tensors = model.state_dict()
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise TrainingError(
                f"{path}: {name}: expected finite weights, found NaN or infinity; nothing is "
                "written: go on from an earlier checkpoint"
            )
    save_tensors(tensors, path)
    path.chmod(0o644)  # safetensors creates the file for its owner alone.


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write tensors as a safetensors file.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        save_file({name: each.contiguous() for name, each in tensors.items()}, path, metadata)
    except SafetensorError as error:
        raise OutputError(f"cannot write the weights: {error}") from error


def _read_weights(model: Gato, file: IO[bytes], path: Path) -> None:
    wanted = model.state_dict()
    expected = {name: TensorKind(tuple(tensor.shape)) for name, tensor in wanted.items()}
    with torch.no_grad():
        for name, found in read_tensors(
            file, path, expected, BundleError, framework="pt", exactly=True
        ):
            if not torch.isfinite(found).all():
                raise BundleError(f"{path}: {name}: expected finite weights, found NaN or infinity")
            wanted[name].copy_(found)
