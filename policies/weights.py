"""A model's weights as safetensors, written and read one tensor at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gatort.runtime.bundle import WEIGHTS_FILE, verify
from gatort.runtime.errors import BundleError, OutputError

from .model import Gato, blank


def read_model(directory: Path) -> Gato:
    """Read the PyTorch model of a bundle, in evaluation mode.

    Tensors are read one at a time, which holds the weights in memory once.

    Raises:
        BundleError: the bundle is incomplete or changed, or its tensors do not fit its dimensions.
    """
    manifest = verify(directory)
    model = blank(manifest.spec, manifest.model)

    _read_weights(model, directory / WEIGHTS_FILE)
    return model.eval()


def write_weights(model: Gato, path: Path) -> None:
    """Write a model's weights as a safetensors file that everyone may read (mode 644).

    Raises:
        OutputError: the file cannot be written.
    """
    save_tensors(model.state_dict(), path)
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


def _read_weights(model: Gato, path: Path) -> None:
    try:
        with safe_open(path, framework="pt") as stored, torch.no_grad():
            wanted: dict[str, Tensor] = model.state_dict()
            if different := wanted.keys() ^ set(stored.keys()):
                raise BundleError(
                    f"{path}: expected the tensors of the manifest's dimensions, "
                    f"found a difference in {sorted(different)}"
                )
            for name, tensor in wanted.items():
                found = stored.get_tensor(name)
                if found.shape != tensor.shape:
                    raise BundleError(
                        f"{path}: {name}: expected shape {tuple(tensor.shape)}, "
                        f"found {tuple(found.shape)}"
                    )
                tensor.copy_(found)
    except SafetensorError as error:
        raise BundleError(f"{path}: expected a safetensors file: {error}") from error
