"""Seeds shared out over processes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import TypeVar

Result = TypeVar("Result")


def spread(work: Callable[[int], Result], seeds: Iterable[int], workers: int) -> Iterator[Result]:
    """Run `work` on every seed; yields results as they finish, in whatever order.

    One worker is this process. Several are started afresh and import `work`, so it has to be a module's function or
    a `functools.partial` of one; what they keep between seeds, they keep for themselves.
    """
    if workers == 1:
        yield from map(work, seeds)
        return
    # Ctrl-C is for this process; the workers finish the seed they are on.
    pool = ProcessPoolExecutor(
        workers, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
    )
    try:
        for future in as_completed([pool.submit(work, seed) for seed in seeds]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)
