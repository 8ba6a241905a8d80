"""Real-time scheduling of the loop's thread: priority, locked memory, cores of its own.

By default the loop's thread gets a low SCHED_FIFO priority, where the system grants it and keeps a
share for others. All threads of the process get a better nice value. The loop runs on without a
request that the system refuses; a refused wish of the user is reported. Enter the context after
every engine is built: threads made inside inherit the affinity. Measured under load at 20 Hz: the
loop wakes 0.14 ms late at p99 with SCHED_FIFO and locked memory, 3.4 ms without. Spinning inference
threads under SCHED_FIFO met 50 ms holes, hence only the loop's thread gets it.
"""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, NonNegativeInt

from .spec import Strict

LOOP_PRIORITY: Final = 10
"""Default SCHED_FIFO priority of a control loop: above ordinary work, below the kernel's threads
and everything that an administrator made real-time."""
ARM_PRIORITY: Final = 20
"""Default SCHED_FIFO priority of an arm's inner loop, which must not wait for a control loop."""
NICE: Final = -10
"""Nice value of the process's threads; the kernel gives them nine times the share of others."""
_THREADS: Final = Path("/proc/self/task")
_RT_RUNTIME: Final = Path("/proc/sys/kernel/sched_rt_runtime_us")
_MCL_CURRENT_AND_FUTURE = 1 | 2  # sys/mman.h on Linux
_LIMITS_FILE = "/etc/security/limits.conf"


class RealtimeConfig(Strict):
    """Scheduling of the loop's thread."""

    fifo_priority: Annotated[int, Field(ge=0, le=99)] | None = None
    """SCHED_FIFO priority of the loop's thread, 1 to 99, or 0 for the ordinary scheduler. Default:
    10 where that is granted and safe, and a better nice value."""
    lock_memory: bool = False
    """Keep every page of the process in memory (mlockall)."""
    cpus: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] | None = None
    """Cores that the loop's thread may run on. Default: all."""


@dataclass(slots=True)
class Scheduling:
    """Scheduling that the calling thread got."""

    name: str = "ordinary scheduling"
    """Scheduling in a few words, for displays and reports."""
    refused: list[str] = field(default_factory=list)
    """One sentence per refused wish of the user, with the setting that would grant it."""


@contextmanager
def apply(config: RealtimeConfig, default_priority: int = LOOP_PRIORITY) -> Iterator[Scheduling]:
    """Run the calling thread as configured, with garbage collection frozen and off.

    Everything is put back at the end.

    Args:
        config: wishes of the user.
        default_priority: SCHED_FIFO priority where the user has no wish.

    Yields:
        The scheduling that was granted.
    """
    with ExitStack() as undo:
        _stop_collecting(undo)
        yield undo.enter_context(schedule(config, default_priority))


@contextmanager
def schedule(config: RealtimeConfig, default_priority: int = LOOP_PRIORITY) -> Iterator[Scheduling]:
    """Run the calling thread as `apply` does, but leave garbage collection alone."""
    found = Scheduling()
    with ExitStack() as undo:
        if config.cpus is not None:
            _pin(config.cpus, undo, found.refused)
        if config.lock_memory:
            _lock_memory(undo, found.refused)
        if config.fifo_priority != 0:
            _prefer(config.fifo_priority, default_priority, undo, found)
        yield found


def fifo_is_safe() -> bool:
    """Check if a thread that never sleeps would leave something of this machine to others."""
    if len(os.sched_getaffinity(0)) < 2:
        return False
    try:
        return int(_RT_RUNTIME.read_bytes()) > 0
    except (OSError, ValueError):
        return False


def _prefer(wish: int | None, default: int, undo: ExitStack, found: Scheduling) -> None:
    """Ask for SCHED_FIFO and for a better nice value, and note the granted ones."""
    granted = []
    if wish is not None and _schedule_fifo(wish, undo, found.refused):
        granted.append(f"SCHED_FIFO {wish}")
    elif wish is None and fifo_is_safe() and _schedule_fifo(default, undo, []):
        granted.append(f"SCHED_FIFO {default}")
    if _improve_nice(undo):
        granted.append(f"nice {NICE}")
    if granted:
        found.name = ", ".join(granted)


def _stop_collecting(undo: ExitStack) -> None:
    if gc.isenabled():
        undo.callback(gc.enable)
    undo.callback(gc.unfreeze)
    gc.collect()
    gc.freeze()
    gc.disable()


def _pin(cpus: tuple[int, ...], undo: ExitStack, refused: list[str]) -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        refused.append(
            f"CPU affinity {', '.join(map(str, cpus))} was refused ({error.strerror}); "
            f"this thread may use {', '.join(map(str, sorted(before)))}"
        )
    else:
        undo.callback(os.sched_setaffinity, 0, before)


def _lock_memory(undo: ExitStack, refused: list[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT_AND_FUTURE) == 0:
        undo.callback(libc.munlockall)
        return
    reason = os.strerror(ctypes.get_errno())
    refused.append(
        f"locking memory was refused ({reason}); raise the memlock limit in {_LIMITS_FILE}"
    )


def _schedule_fifo(priority: int, undo: ExitStack, refused: list[str]) -> bool:
    policy = os.sched_getscheduler(0)
    parameters = os.sched_getparam(0)
    try:
        # Without the flag, processes started from here would run at this priority too.
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except OSError as error:
        refused.append(
            f"SCHED_FIFO {priority} was refused ({error.strerror}); "
            f"raise the rtprio limit in {_LIMITS_FILE}"
        )
        return False
    # The flag stays: clearing it needs a privilege that setting it does not (sched(7)).
    undo.callback(os.sched_setscheduler, 0, policy | os.SCHED_RESET_ON_FORK, parameters)
    return True


def _improve_nice(undo: ExitStack) -> bool:
    """Give every thread of this process, the engine's too, a better nice value if granted.

    A thread that holds Python's lock must not wait behind others' work either.
    """
    for thread in (int(folder.name) for folder in _THREADS.iterdir()):
        with suppress(ProcessLookupError):  # It has ended.
            before = os.getpriority(os.PRIO_PROCESS, thread)
            if before <= NICE:
                continue
            try:
                os.setpriority(os.PRIO_PROCESS, thread, NICE)
            except PermissionError:
                return False
            undo.callback(_restore_nice, thread, before)
    return True


def _restore_nice(thread: int, nice: int) -> None:
    with suppress(ProcessLookupError):
        os.setpriority(os.PRIO_PROCESS, thread, nice)
