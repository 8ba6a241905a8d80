"""Work on seeds, shared by several processes that end with the process that started them.

Given a cluster instead of a number of processes, its machines share the work.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache
from multiprocessing import get_context
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any, Final

from gatort.runtime.compiler import abandon
from gatort.runtime.errors import WorkerError

from .portable import PortableWork, Result, SeedWork, Workers

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that are for the parent alone, although a terminal sends them to its workers too."""

_prepare: Callable[[], SeedWork[Any]]
"""Makes the work of this worker process, once."""


def share(work: PortableWork[Result], seeds: Sequence[int], workers: Workers) -> Iterator[Result]:
    """Work on every seed and yield results as they finish, in any order.

    See `spread` for processes of this machine, and `gatort.sim.cluster` for a cluster.
    """
    if isinstance(workers, int):
        return spread(work.prepare, seeds, workers)
    from .cluster import spread_on_cluster  # Ray takes a second to import, and may be absent.

    return spread_on_cluster(work, seeds, workers)


def spread(
    prepare: Callable[[], SeedWork[Result]], seeds: Sequence[int], workers: int
) -> Iterator[Result]:
    """Work on every seed and yield results as they finish, in any order.

    The workers end at once when the iterator is closed, and when this process ends.

    Args:
        prepare: makes the work, once in each process. It must be picklable: a module's class or
            function, or a `functools.partial` of one.
        seeds: seeds to work on.
        workers: largest number of processes. One worker is the calling process.

    Raises:
        WorkerError: no worker can be started, or one was killed.
    """
    if not seeds:
        return
    workers = min(workers, len(seeds))
    if workers == 1:
        yield from map(prepare(), seeds)
        return

    with _pool(prepare, workers) as pool:
        try:
            # In another thread, because Ctrl-C must not cut a worker's start in two.
            with ThreadPoolExecutor(1) as starter:
                futures = starter.submit(_submit, pool, seeds).result()
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise WorkerError(
                "a worker was killed, most likely because the memory was used up: "
                f"expected memory for {workers} workers; give --workers 1"
            ) from error


@contextmanager
def _pool(prepare: Callable[[], SeedWork[Any]], workers: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool whose workers end once this end of their pipe is closed, or lost."""
    context = get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    try:
        try:
            with _signals_blocked():  # So that the tracker of semaphores survives SIGHUP.
                pool = ProcessPoolExecutor(workers, context, _start, (prepare, theirs))
        except OSError as error:
            raise _cannot_start(error) from error
        try:
            yield pool
        finally:
            ours.close()
            pool.shutdown(cancel_futures=True)
    finally:
        ours.close()
        theirs.close()


def _submit(pool: ProcessPoolExecutor, seeds: Sequence[int]) -> list[Future[Any]]:
    """Hand the seeds to the pool, which starts its workers now."""
    try:
        with _signals_blocked():  # A worker inherits this, until it ignores the signals.
            return [pool.submit(_run, seed) for seed in seeds]
    except OSError as error:
        raise _cannot_start(error) from error


@contextmanager
def _signals_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _cannot_start(error: OSError) -> WorkerError:
    return WorkerError(
        f"cannot start workers: expected memory, processes and a writable /dev/shm for them, "
        f"found: {error.strerror}; give --workers 1"
    )


def _start(prepare: Callable[[], SeedWork[Any]], parent: Connection) -> None:
    """Set a worker up. Its first seed makes the work, so that errors reach the caller."""
    global _prepare  # noqa: PLW0603 -- a pool's initializer can hand on values in no other way
    _prepare = cache(prepare)

    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    Thread(target=_end_with, args=(parent,), daemon=True).start()


def _run(seed: int) -> Any:
    return _prepare()(seed)


def _end_with(parent: Connection) -> None:
    """End this process once the other end of a pipe is closed, even if its process was killed."""
    parent.poll(None)
    abandon()
    os._exit(1)
