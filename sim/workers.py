"""Work on seeds, shared by several processes that end with the process that started them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, TypeVar

from gatort.runtime.errors import ConfigError

Result = TypeVar("Result")
SeedWork = Callable[[int], Result]
"""Work on one seed."""

_prepare: Callable[[], SeedWork[Any]]
"""Makes the work of this worker process, once."""


def spread(
    prepare: Callable[[], SeedWork[Result]], seeds: Sequence[int], workers: int
) -> Iterator[Result]:
    """Work on every seed and yield results as they finish, in any order.

    Args:
        prepare: makes the work, once in each process. It must be picklable: a module's class or
            function, or a `functools.partial` of one.
        seeds: seeds to work on.
        workers: largest number of processes. One worker is the calling process.
    """
    if not seeds:
        return
    workers = min(workers, len(seeds))
    if workers == 1:
        yield from map(prepare(), seeds)
        return

    try:
        pool = ProcessPoolExecutor(workers, get_context("spawn"), _start, (prepare,))
    except OSError as error:
        raise ConfigError(
            f"{workers} workers share locks in /dev/shm, which must be there and writable "
            f"({error}); mount it, or go without with --workers 1"
        ) from error
    try:
        for future in as_completed([pool.submit(_run, seed) for seed in seeds]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _start(prepare: Callable[[], SeedWork[Any]]) -> None:
    """Set a worker up. Its first seed makes the work, so that errors reach the caller."""
    global _prepare  # noqa: PLW0603 -- a pool's initializer can hand on values in no other way
    _prepare = cache(prepare)

    # Ctrl-C is for the parent; a worker finishes the seed that it is working on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _run(seed: int) -> Any:
    return _prepare()(seed)


def _end_with_parent() -> None:
    """End this process when the parent has ended, even if the parent was killed."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
