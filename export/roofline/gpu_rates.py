"""Speed of a GPU at copying memory and multiplying float16 matrices, through PyTorch."""

from __future__ import annotations

from typing import Any

import torch

from .rates import Device, fastest_s
from .work import Rates

SIDE = 8192
"""Side of the square matrices that are multiplied."""
COPIED_BYTES = 1 << 30
"""Size of the array that is copied."""


def measure_gpu() -> Device:
    """Measure copy bandwidth and float16 products of the first CUDA device."""
    source = torch.ones(COPIED_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copy_s = fastest_s(lambda: _finish(target.copy_(source)))

    matrix = torch.randn(SIDE, SIDE, dtype=torch.float16, device="cuda")
    product = torch.empty_like(matrix)
    product_s = fastest_s(lambda: _finish(torch.mm(matrix, matrix, out=product)))

    properties = torch.cuda.get_device_properties(0)
    return Device(
        name=properties.name,
        rates=Rates(read_bytes_s=2 * COPIED_BYTES / copy_s, flop_s=2 * SIDE**3 / product_s),
        one_thread_read_bytes_s=None,
        cache_bytes=properties.L2_cache_size,
        how=f"copying {COPIED_BYTES / 1e9:.1f} GB, float16 products of {SIDE}×{SIDE}",
    )


def _finish(_: Any) -> None:
    torch.cuda.synchronize()
