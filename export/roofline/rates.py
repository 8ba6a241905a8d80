"""Speed of this machine at reading memory and multiplying matrices, measured in the judged run."""

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
from gatort.runtime.grant import read_grant
from gatort.runtime.wording import counted

from .work import Rates

REPEATS = 7
"""Number of timings; the fastest counts, since disturbances only ever slow a machine down."""
BEYOND_CACHE = 4
"""Size of the array in last-level caches, so that little of it is still cached when it is read
again."""
SMALLEST_BYTES = 256 << 20
"""Least size of the array that is read."""
LARGEST_SHARE = 0.25
"""Largest share of the machine's memory that the array takes."""
SIDE = 2048
"""Side of the square matrices that are multiplied."""
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
"""Directory in which the kernel describes the caches."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device and its measured speed."""

    name: str
    """Name of the device."""
    rates: Rates
    """Rates of the whole device."""
    one_thread_read_bytes_s: float | None
    """Read bandwidth of one thread; `None` on a GPU."""
    cache_bytes: int
    """Size of the last-level cache."""
    how: str
    """Description of the measurement."""


def measure_cpu() -> Device:
    """Measure read bandwidth with one thread and with all, and float32 products with all
    threads.
    """
    cores = read_grant().processors
    cache_bytes = last_level_cache_bytes()
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    array_bytes = int(
        min(max(BEYOND_CACHE * cache_bytes, SMALLEST_BYTES), LARGEST_SHARE * memory_bytes)
    )

    array = np.ones(array_bytes // 4, np.float32)
    one = _read_bytes_s(array, 1)
    many = _read_bytes_s(array, cores)
    return Device(
        name=f"CPU, {counted(cores, 'core')}",
        rates=Rates(read_bytes_s=max(one, many), flop_s=_sgemm_flop_s(cores)),
        one_thread_read_bytes_s=one,
        cache_bytes=cache_bytes,
        how=f"reading {array_bytes / 1e9:.1f} GB, float32 products of {SIDE}×{SIDE}",
    )


def last_level_cache_bytes() -> int:
    """Return the size of the largest cache that the kernel names, 0 when it names none.

    A virtual machine may share that cache with others.
    """
    sizes = [path.read_text().strip() for path in CACHES.glob("index*/size")]
    return max((int(size.removesuffix("K")) << 10 for size in sizes), default=0)


def fastest_s(work: Callable[[], object]) -> float:
    """Return the shortest duration of REPEATS calls after one that warms up."""
    clock = MonotonicClock()
    durations_ns = []
    work()
    for _ in range(REPEATS):
        start_ns = clock.now_ns()
        work()
        durations_ns.append(clock.now_ns() - start_ns)
    return max(1, min(durations_ns)) * 1e-9


def _read_bytes_s(array: np.ndarray[Any, np.dtype[np.float32]], threads: int) -> float:
    """Return the bandwidth of the fastest of three ways to read everything once.

    Processors and versions of NumPy differ in which way is the fastest.
    """
    parts = np.array_split(array, threads)
    reads: tuple[Callable[[Any], Any], ...] = (np.max, np.sum, lambda part: np.dot(part, part))
    with ThreadPoolExecutor(threads) as pool:
        return array.nbytes / min(fastest_s(partial(_each, pool, read, parts)) for read in reads)


def _sgemm_flop_s(threads: int) -> float:
    """Return the rate of float32 products: the faster of one product and one product per thread."""
    matrices = [np.full((SIDE, SIDE), 0.5, np.float32) for _ in range(threads)]
    flops = 2 * SIDE**3
    with ThreadPoolExecutor(threads) as pool:
        apart_s = fastest_s(lambda: _each(pool, lambda matrix: matrix @ matrix, matrices))
    together_s = fastest_s(lambda: matrices[0] @ matrices[0])
    return max(flops / together_s, threads * flops / apart_s)


def _each(pool: ThreadPoolExecutor, work: Callable[[Any], Any], parts: Sequence[Any]) -> None:
    """Work on every part at once; NumPy releases the interpreter while it computes."""
    for _ in pool.map(work, parts):
        pass
