"""The engine that runs a bundle's PyTorch model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from gatort.runtime.bundle import Manifest
from gatort.runtime.engines.engine import Decoding
from gatort.runtime.engines.torch import TorchEngine
from gatort.runtime.errors import EngineError
from gatort.runtime.spec import Precision

from .weights import read_model


def load_torch_engine(
    directory: Path,
    manifest: Manifest,
    device: Literal["cpu", "cuda"],
    precision: Precision,
    threads: int,
    decoding: Decoding = "greedy",
) -> TorchEngine:
    """Read a bundle's model and run it with PyTorch.

    Args:
        directory: the bundle.
        manifest: the bundle's manifest.
        device: where the model lies.
        precision: fp32, or fp16 on a GPU.
        threads: CPU threads of one pass, for the whole process.
        decoding: way to a tick's tokens.

    Raises:
        EngineError: PyTorch finds no CUDA device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise EngineError(
            "--engine torch-cuda: expected a CUDA device, PyTorch found none; "
            "--engine torch runs on the CPU"
        )
    torch.set_num_threads(threads)

    model = read_model(directory)
    if device == "cuda":
        model = model.to(device, torch.float16 if precision == "fp16" else torch.float32)
    return TorchEngine(model, manifest.spec, manifest.model, decoding)
