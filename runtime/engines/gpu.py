"""GPUs that engines are built for: `GpuTarget` is the choice, `gpu_key` its name in the cache."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from gatort.runtime.errors import ConfigError

from .cuda import cuda_runtime, no_gpu
from .tensorrt import Builder

GpuTarget = Literal["rtx3090", "this-gpu"]
RTX_3090_SM = "sm86"


@dataclass(frozen=True, slots=True)
class Gpu:
    """First GPU of this machine in CUDA's order."""

    name: str
    """Name of the card."""
    sm: str
    """Compute capability, for example sm86 for 8.6."""


def gpu_key(target: GpuTarget, builder: Builder) -> str:
    """Return the name of the GPUs that an engine runs on.

    tensorrt-rtx builds for a compute capability, tensorrt tunes for one model of card.

    Raises:
        ConfigError: the builder cannot build for that target.
        DeviceError: the target is this GPU, and the machine has no GPU or no driver.
        MissingDependency: the target is this GPU, and cuda-python is not installed.
    """
    if target == "this-gpu":
        gpu = present_gpu()
        return gpu.sm if builder == "tensorrt-rtx" else re.sub(r"[^a-z0-9]+", "-", gpu.name.lower())
    if builder == "tensorrt":
        raise ConfigError(
            f"--target {target}: tensorrt builds only for the GPU of the machine that it runs on; "
            "take --target this-gpu"
        )
    return RTX_3090_SM


def present_gpu() -> Gpu:
    """Ask CUDA for this machine's GPU, without starting the driver.

    Raises:
        DeviceError: the machine has no GPU or no driver.
        MissingDependency: cuda-python is not installed.
    """
    runtime = cuda_runtime()
    code, found = runtime.cudaGetDeviceProperties(0)
    if code != runtime.cudaError_t.cudaSuccess:
        raise no_gpu(code.name)
    return Gpu(found.name.decode().rstrip("\0"), f"sm{found.major}{found.minor}")
