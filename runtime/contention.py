"""Competition for the processor while a loop ran: who took it, for how long, and the remedy.

The kernel's counters are read before and after (proc(5)). They count CPU time of each process, time
stolen by a hypervisor, throttling by a quota, and waits of the loop's thread. A counter that the
kernel does not give counts as zero.
"""

from __future__ import annotations

import os
import resource
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from .clock import MonotonicClock
from .grant import QUOTA_HINT, Throttling, read_grant
from .printable import printable
from .process_name import OWN

_TICKS_S: Final = os.sysconf("SC_CLK_TCK")
_NAMED: Final = 3
"""Most processes that a sentence names."""
_SHARE: Final = 0.02
"""Share of the time from which a cause is worth a clause."""
_PROC: Final = Path("/proc")
_INTERPRETER: Final = "python"
"""Beginning of the name of each Python process that does not name itself."""
_WITH_VALUE: Final = ("-W", "-X", "--check-hash-based-pycs")
"""Options of Python whose value is the next word."""


class _Process(NamedTuple):
    """One process at one instant."""

    name: str
    parent: int
    cpu_s: float


@dataclass(frozen=True, slots=True)
class ProcessorReading:
    """Counters at one instant; taken in the loop's own thread."""

    at_ns: int
    """Monotonic time of the reading."""
    busy_s: float
    """CPU time that all cores have spent computing."""
    stolen_s: float
    """Time that a hypervisor kept from this machine."""
    waited_s: float
    """Time for which this thread was ready to run and did not."""
    preempted: int
    """Number of times that this thread lost its core."""
    throttling: Throttling
    """Counters of the CPU quota."""
    processes: dict[int, _Process]
    """Every process that can be seen, by its number."""

    @classmethod
    def now(cls) -> ProcessorReading:
        """Read all counters; takes about a millisecond per hundred processes."""
        busy_s, stolen_s = _machine_times()
        return cls(
            at_ns=MonotonicClock().now_ns(),
            busy_s=busy_s,
            stolen_s=stolen_s,
            waited_s=_waited_s(),
            preempted=resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw,
            throttling=read_grant().throttling,
            processes=dict(_processes()),
        )


@dataclass(frozen=True, slots=True)
class Contention:
    """Competition for the processor between two readings."""

    seconds: float
    """Time between the readings."""
    waited_s: float
    """Time for which the loop's thread was ready to run and did not."""
    preempted: int
    """Number of times that the loop's thread lost its core."""
    others_s: float
    """CPU time of all other processes, ended ones included."""
    takers: list[tuple[str, float]]
    """Names of those processes that took most, each with its CPU time in seconds."""
    own_s: float
    """CPU time of gatort's processes that this one did not start: an arm's, for example."""
    own_takers: list[tuple[str, float]]
    """Names of those processes that took most, each with its CPU time in seconds."""
    stolen_s: float
    """Time that a hypervisor kept from this machine."""
    throttling: Throttling
    """Counters of the CPU quota."""

    @classmethod
    def between(cls, before: ProcessorReading, after: ProcessorReading) -> Contention:
        """Return the difference of two readings by the same thread."""
        ours = _family(after.processes)
        taken_s: dict[str, float] = defaultdict(float)
        own_s: dict[str, float] = defaultdict(float)
        ours_s = 0.0
        for number, process in after.processes.items():
            earlier = before.processes.get(number)
            took_s = process.cpu_s - (earlier.cpu_s if earlier else 0.0)
            if number in ours:
                ours_s += took_s
            elif took_s > 0:
                own_name = _own_name(number, after.processes)
                counted_s = taken_s if own_name is None else own_s
                counted_s[own_name or process.name] += took_s

        known_s = ours_s + sum(own_s.values())
        busy_s = after.busy_s - before.busy_s
        return cls(
            seconds=(after.at_ns - before.at_ns) * 1e-9,
            waited_s=after.waited_s - before.waited_s,
            preempted=after.preempted - before.preempted,
            others_s=max(busy_s - known_s, sum(taken_s.values()), 0.0),
            takers=_most(taken_s),
            own_s=sum(own_s.values()),
            own_takers=_most(own_s),
            stolen_s=max(0.0, after.stolen_s - before.stolen_s),
            throttling=after.throttling.since(before.throttling),
        )

    @property
    def causes(self) -> dict[str, str]:
        """Clauses on the competitors, each with its remedy; empty if there were none."""
        found = {}
        if self.throttling.throttled:
            found[f"the CPU quota stopped this process: {self.throttling}"] = QUOTA_HINT
        if self.stolen_s > _SHARE * self.seconds:
            kept = f"the hypervisor kept {self.stolen_s:.1f} s from this machine"
            found[kept] = "use a machine whose cores are its own"
        if self.others_s > _SHARE * self.seconds:
            names = _names(self.takers)
            computed = f"other processes computed for {self.others_s:.1f} s{names}"
            found[computed] = "stop those others, or move them to other cores"
        if self.own_s > _SHARE * self.seconds:
            names = _names(self.own_takers)
            computed = f"gatort's other processes computed for {self.own_s:.1f} s{names}"
            found[computed] = "let gatort's processes run, on a computer with more cores"
        return found

    def sentence(self, scheduling: str, tick_ms: float) -> str:
        """Name the causes, their durations and the remedies.

        Args:
            scheduling: scheduling that the loop's thread got.
            tick_ms: median duration of a tick.
        """
        causes = self.causes or {
            f"nothing else took the processor, and a tick takes {tick_ms:.1f} ms (p50)": (
                "a faster --engine, fewer --threads than cores, or a smaller policy"
            )
        }
        remedies = list(causes.values())
        if self.causes and "SCHED_FIFO" not in scheduling:
            remedies.append("grant SCHED_FIFO (`gatort doctor` says how)")
        return (
            f"processor: in {self.seconds:.1f} s the loop ({scheduling}) waited "
            f"{self.waited_s:.2f} s for a core and lost it {self.preempted}×; "
            f"{'; '.join(causes)}. Try: {'; '.join(remedies)}."
        )


def _most(taken_s: dict[str, float]) -> list[tuple[str, float]]:
    takers = sorted(taken_s.items(), key=lambda each: -each[1])[:_NAMED]
    return [(name, round(took_s, 2)) for name, took_s in takers]


def _names(takers: Sequence[tuple[str, float]]) -> str:
    named = [f"{name} {took_s:.1f} s" for name, took_s in takers if took_s >= 0.05]
    return f" ({', '.join(named)})" if named else ""


def _machine_times() -> tuple[float, float]:
    """Return the busy and the stolen time of all cores, in s."""
    words = _text(_PROC / "stat").partition("\n")[0].split()[1:]
    ticks = [int(word) for word in words[:8]]
    if len(ticks) < 8:
        return 0.0, 0.0
    user, nice, system, _, _, interrupts, soft_interrupts, stolen = ticks
    busy = user + nice + system + interrupts + soft_interrupts
    return busy / _TICKS_S, stolen / _TICKS_S


def _waited_s() -> float:
    words = _text(_PROC / "thread-self/schedstat").split()
    return int(words[1]) * 1e-9 if len(words) == 3 else 0.0


def _processes() -> list[tuple[int, _Process]]:
    folders = (folder for folder in _PROC.iterdir() if folder.name.isdecimal())
    found = ((int(folder.name), _process(folder)) for folder in folders)
    return [(number, process) for number, process in found if process is not None]


def _process(folder: Path) -> _Process | None:
    # The name is in brackets and may itself have brackets and blanks.
    head, _, tail = _text(folder / "stat").rpartition(")")
    words = tail.split()
    if len(words) < 13:
        return None  # It has ended.
    # A process chooses its name, which may hold a line's end too.
    name = head.partition("(")[2]
    if name.startswith(_INTERPRETER):
        name = _script(folder) or name
    name = printable(name).replace("\n", " ")
    return _Process(name, int(words[1]), (int(words[11]) + int(words[12])) / _TICKS_S)


def _script(folder: Path) -> str | None:
    """Return the script or module that a Python process runs; `None` for other code."""
    words = iter(_text(folder / "cmdline").split("\0")[1:])
    for word in words:
        if word in _WITH_VALUE:
            next(words, None)
        elif word == "-m":
            return next(words, None)
        elif word == "-c" or not word:
            return None
        elif not word.startswith("-"):
            return Path(word).name
    return None


def _family(processes: dict[int, _Process]) -> set[int]:
    """Return this process and all that it started."""
    ours = {os.getpid()}
    while more := {
        number
        for number, process in processes.items()
        if process.parent in ours and number not in ours
    }:
        ours |= more
    return ours


def _own_name(number: int, processes: dict[int, _Process]) -> str | None:
    """Return the name of gatort's process that is this one or started it; `None` without one."""
    visited = set()
    while (process := processes.get(number)) is not None and number not in visited:
        if process.name == OWN or process.name.startswith(f"{OWN}-"):
            return process.name
        visited.add(number)
        number = process.parent
    return None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
