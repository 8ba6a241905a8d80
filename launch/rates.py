"""How fast this machine reads memory and multiplies matrices, measured in the run that is judged by it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gatort.runtime.clock import MonotonicClock
from gatort.runtime.packages import require_torch

from .work import Rates

REPEATS = 7
"""The fastest counts: a machine is never faster than it is, and often slower."""
BEYOND_CACHE = 4
"""An array is this many times the last-level cache, so that little of it is still there when it is read again."""
SMALLEST_BYTES, LARGEST_SHARE = 256 << 20, 0.25
CPU_SIDE, GPU_SIDE = 2048, 8192
"""Of the square matrices that are multiplied."""
GPU_BYTES = 1 << 30
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


@dataclass(frozen=True, slots=True)
class Device:
    """What a device was measured to do."""

    name: str
    rates: Rates
    """Of the whole device."""
    one_thread_read_bytes_s: float | None
    """None on a GPU."""
    cache_bytes: int
    """Its last-level cache."""
    how: str
    """What was measured."""


def measure_cpu() -> Device:
    """Read bandwidth with one thread and with all, and float32 products with all."""
    cores, cache_bytes = len(os.sched_getaffinity(0)), last_level_cache_bytes()
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    array_bytes = int(
        min(max(BEYOND_CACHE * cache_bytes, SMALLEST_BYTES), LARGEST_SHARE * memory_bytes)
    )
    array = np.ones(array_bytes // 4, np.float32)
    one, many = (_read_bytes_s(array, threads) for threads in (1, cores))
    return Device(
        name=f"CPU, {cores} cores",
        rates=Rates(read_bytes_s=max(one, many), flop_s=_sgemm_flop_s(cores)),
        one_thread_read_bytes_s=one,
        cache_bytes=cache_bytes,
        how=f"reading {array_bytes / 1e9:.1f} GB, float32 products of {CPU_SIDE}×{CPU_SIDE}",
    )


def measure_gpu() -> Device:
    """Copy bandwidth and float16 products of the first CUDA device, through PyTorch.

    Raises:
        MissingDependency: PyTorch is not installed.
    """
    require_torch("measuring a GPU")
    import torch

    source = torch.ones(GPU_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copy_s = _fastest_s(lambda: _finish(torch, target.copy_(source)))
    matrix = torch.randn(GPU_SIDE, GPU_SIDE, dtype=torch.float16, device="cuda")
    product = torch.empty_like(matrix)
    product_s = _fastest_s(lambda: _finish(torch, torch.mm(matrix, matrix, out=product)))
    properties = torch.cuda.get_device_properties(0)
    return Device(
        name=properties.name,
        rates=Rates(read_bytes_s=2 * GPU_BYTES / copy_s, flop_s=2 * GPU_SIDE**3 / product_s),
        one_thread_read_bytes_s=None,
        cache_bytes=properties.L2_cache_size,
        how=f"copying {GPU_BYTES / 1e9:.1f} GB, float16 products of {GPU_SIDE}×{GPU_SIDE}",
    )


def last_level_cache_bytes() -> int:
    """Size of the largest cache that the kernel names; 0 when it names none. A virtual machine may share it."""
    sizes = [path.read_text().strip() for path in CACHES.glob("index*/size")]
    return max((int(size.removesuffix("K")) << 10 for size in sizes), default=0)


def _finish(torch: Any, _: Any) -> None:
    torch.cuda.synchronize()


def _read_bytes_s(array: np.ndarray[Any, np.dtype[np.float32]], threads: int) -> float:
    """The best of three ways to read everything once: which is fastest differs by processor and by NumPy."""
    parts = np.array_split(array, threads)
    reads: tuple[Callable[[Any], Any], ...] = (np.max, np.sum, lambda part: np.dot(part, part))
    with ThreadPoolExecutor(threads) as pool:
        return array.nbytes / min(_fastest_s(partial(_each, pool, read, parts)) for read in reads)


def _sgemm_flop_s(threads: int) -> float:
    """float32 products, by the library's own threads or by one product in each of ours, whichever is faster."""
    matrices = [np.full((CPU_SIDE, CPU_SIDE), 0.5, np.float32) for _ in range(threads)]
    flops = 2 * CPU_SIDE**3
    with ThreadPoolExecutor(threads) as pool:
        apart_s = _fastest_s(lambda: _each(pool, lambda matrix: matrix @ matrix, matrices))
    return max(flops / _fastest_s(lambda: matrices[0] @ matrices[0]), threads * flops / apart_s)


def _each(pool: ThreadPoolExecutor, work: Callable[[Any], Any], parts: Sequence[Any]) -> None:
    """Work on every part at once; NumPy lets go of the interpreter while it computes."""
    for _ in pool.map(work, parts):
        pass


def _fastest_s(work: Callable[[], object]) -> float:
    clock, durations_ns = MonotonicClock(), []
    work()
    for _ in range(REPEATS):
        start_ns = clock.now_ns()
        work()
        durations_ns.append(clock.now_ns() - start_ns)
    return max(1, min(durations_ns)) * 1e-9
