"""Use of the machine by one thread: processor, waits, page faults, lost cores.

The CPU time is that of the thread's clock, because getrusage(2) gives it in steps of a scheduler's
tick. The counts are of getrusage. The waits are the second number of /proc/thread-self/schedstat. A
kernel without it gives 0.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from resource import RUSAGE_SELF, RUSAGE_THREAD, getrusage
from threading import get_ident
from time import thread_time_ns
from typing import Final, NamedTuple

_SCHEDSTAT: Final = "/proc/thread-self/schedstat"
_LONGEST: Final = 64
"""Longest content of that file: three numbers of at most 20 digits."""


class Usage(NamedTuple):
    """Use of the machine by a thread, since it began or over a stretch of time."""

    cpu_ns: int
    """CPU time."""
    waited_ns: int
    """Time for which the thread was ready to run and had no core."""
    page_faults: int
    """Number of pages that were touched for the first time, or read from a disk."""
    disk_faults: int
    """Number of those pages that were read from a disk."""
    preempted: int
    """Number of times that the thread lost its core to another one."""
    slept: int
    """Number of times that the thread gave its core up to wait."""
    others_preempted: int
    """Number of times that another thread of this process lost its core."""

    def since(self, before: Usage) -> Usage:
        """Return the use since an earlier reading of the same thread."""
        # The counts of two threads are read one after the other: their difference may fall by one.
        return Usage(*(max(0, now - then) for now, then in zip(self, before, strict=True)))


NO_USE: Final = Usage(0, 0, 0, 0, 0, 0, 0)


class UsageMeter:
    """Reads the counters of the calling thread."""

    def __init__(self) -> None:
        self._thread = 0
        self._file: int | None = None
        self._close: Callable[[], object] = lambda: None

    def read(self) -> Usage:
        """Return the use of the machine by the calling thread since it began."""
        found = getrusage(RUSAGE_THREAD)
        return Usage(
            cpu_ns=thread_time_ns(),
            waited_ns=self._waited_ns(),
            page_faults=found.ru_minflt + found.ru_majflt,
            disk_faults=found.ru_majflt,
            preempted=found.ru_nivcsw,
            slept=found.ru_nvcsw,
            others_preempted=getrusage(RUSAGE_SELF).ru_nivcsw - found.ru_nivcsw,
        )

    def _waited_ns(self) -> int:
        if self._thread != get_ident():
            self._open()
        if self._file is None:
            return 0
        words = os.pread(self._file, _LONGEST, 0).split()
        return int(words[1]) if len(words) == 3 else 0

    def _open(self) -> None:
        """Open the counters of the calling thread, in place of those of another one."""
        self._close()
        self._thread = get_ident()
        try:
            self._file = os.open(_SCHEDSTAT, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._file = None
            self._close = lambda: None
            return
        self._close = weakref.finalize(self, os.close, self._file)
