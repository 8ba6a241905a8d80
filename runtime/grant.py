"""The share of this computer that the kernel grants: cores, CPU quota, memory, shared memory.

A container sees every core and all memory of its machine, and gets the part that its control group
allows. Limits are read at every level of the group's path, in version 1 and 2 (cgroups(7)). The
lowest one counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Final

QUOTA_HINT: Final = "raise the quota (docker --cpus, CPUQuota=, cpu.max)"
SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108  # the system's own, by its name
_ROOT = Path("/")
_UNLIMITED_BYTES = 1 << 60
"""Memory limits from here on mean that there is none; version 1 writes the largest page count."""


@dataclass(frozen=True, slots=True)
class Throttling:
    """Counters of a CPU quota since its control group was made."""

    periods: int = 0
    """Number of periods of the quota in which the group ran."""
    throttled: int = 0
    """Number of periods in which it was stopped because the quota was used up."""
    throttled_s: float = 0.0
    """Time for which its threads were stopped, added up over cores."""

    def since(self, before: Throttling) -> Throttling:
        """Return the counts since an earlier reading."""
        return Throttling(
            self.periods - before.periods,
            self.throttled - before.throttled,
            self.throttled_s - before.throttled_s,
        )

    def __str__(self) -> str:
        """Return the counters in words."""
        # Version 1 counts the time only once a core runs again.
        lasted = f", {self.throttled_s:.1f} s in all" if self.throttled_s >= 0.05 else ""
        return f"throttled in {self.throttled} of {self.periods} periods{lasted}"


@dataclass(frozen=True, slots=True)
class Grant:
    """Share of the computer that this process may use."""

    cores: int
    """Number of cores that this process may run on, by affinity and cpuset."""
    quota_cores: float | None
    """CPU time that the quota allows in each second, in cores; `None` without a quota."""
    memory_limit_bytes: int | None
    """Largest memory of the control group; `None` without a limit."""
    throttling: Throttling
    """Counters of the lowest quota; zeros without one."""

    @property
    def processors(self) -> int:
        """Number of threads that can compute all the time: the default of workers and threads."""
        quota = self.cores if self.quota_cores is None else int(self.quota_cores)
        return max(1, min(self.cores, quota))

    @property
    def limited(self) -> bool:
        """True if the quota allows less than the cores could give."""
        return self.quota_cores is not None and self.quota_cores < self.cores


def read_grant(root: Path = _ROOT) -> Grant:
    """Read the limits of this process; whatever the system does not say counts as unlimited.

    Args:
        root: folder that holds `proc` and `sys`.
    """
    quotas = [
        (quota, folder) for folder in _levels(root, "cpu") if (quota := _quota(folder)) is not None
    ]
    quota_cores, throttling = None, Throttling()
    if quotas:
        quota_cores, folder = min(quotas)
        throttling = _throttling(folder)

    limits = [_memory_limit(folder) for folder in _levels(root, "memory")]
    return Grant(
        cores=len(os.sched_getaffinity(0)),
        quota_cores=quota_cores,
        memory_limit_bytes=min((each for each in limits if each is not None), default=None),
        throttling=throttling,
    )


def shared_memory_obstacle() -> str | None:
    """Return the reason why processes cannot share a lock here, or `None` if they can."""
    try:
        get_context("fork").Lock()  # Unlinked at once; needs no other process.
    except (OSError, ImportError) as error:
        return f"{SHARED_MEMORY} must be there and writable ({error})"
    return None


def _levels(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders that may limit a controller, from the mounted one down to this process."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        mounted = root / "sys/fs/cgroup"
        if number == "0" and not controllers:
            # Beside version 1, version 2 is mounted one level below.
            unified = mounted / "unified"
            mounted = unified if unified.is_dir() else mounted
        elif controller in controllers.split(","):
            together = mounted / controllers
            mounted = together if together.is_dir() else mounted / controller
        else:
            continue
        yield from _down(mounted, path)


def _down(mounted: Path, path: str) -> Iterator[Path]:
    yield mounted
    # A container may see its own group as the mounted one, and the path from outside.
    for name in path.split("/"):
        mounted = mounted / name
        if name not in ("", "..") and mounted.is_dir():
            yield mounted


def _quota(folder: Path) -> float | None:
    """Return the quota of a level in cores, or `None` without one."""
    words = _text(folder / "cpu.max").split()
    if not words:
        words = [_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    numbers = [int(word) for word in words if word.isdecimal()]
    # Without a quota, the first word is "max" or -1.
    return numbers[0] / numbers[1] if len(numbers) == 2 and numbers[1] else None


def _throttling(folder: Path) -> Throttling:
    found = _counters(folder / "cpu.stat")
    throttled_s = found.get("throttled_usec", 0) * 1e-6 + found.get("throttled_time", 0) * 1e-9
    return Throttling(found.get("nr_periods", 0), found.get("nr_throttled", 0), throttled_s)


def _memory_limit(folder: Path) -> int | None:
    for name in ("memory.max", "memory.limit_in_bytes"):
        word = _text(folder / name).strip()
        if word.isdecimal() and int(word) < _UNLIMITED_BYTES:
            return int(word)
    return None


def _counters(file: Path) -> dict[str, int]:
    pairs = (line.split() for line in _text(file).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
