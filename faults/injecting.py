"""Injects the chosen faults in turn, with a computing witness before and beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from subprocess import SubprocessError
from typing import Protocol

from gatort.runtime.clock import MonotonicClock
from gatort.runtime.errors import ConfigError, GatortError
from gatort.runtime.witness import PERIOD_NS, WitnessReport
from gatort.runtime.witness_process import WitnessProcess

from .drive import BenchFailedError, EndedEarlyError
from .fault_report import FaultReport
from .judging import InjectionResult
from .row_result import RowResult
from .rows import Fault, Row

ALONE_NS = 5_000_000_000
"""Time for which the machine is measured before the first row."""

Chosen = tuple[tuple[Row, tuple[Fault, ...]], ...]
"""Rows, each with those of its faults to inject."""

InjectionWatch = Callable[[str, int], None]
"""Callback before each injection: the injection's name, and the number of finished ones."""


def choose(rows: Iterable[Row], component: str, kind: str | None) -> tuple[Row, Fault]:
    """Return the fault with a component's and a type's name.

    Raises:
        ConfigError: there is no such fault; names the valid choices.
    """
    named = {(each.component, each.type): (row, each) for row in rows for each in row.faults}
    if (component, kind) in named:
        return named[component, kind or ""]
    kinds = [each for name, each in named if name == component]
    if not kinds:
        components = ", ".join(sorted({name for name, _ in named}))
        raise ConfigError(f"no component {component!r}: expected one of {components}")
    if kind is None:
        raise ConfigError(f"fault {component}: expected a type, one of {', '.join(kinds)}")
    raise ConfigError(f"{component} has no fault {kind!r}: expected one of {', '.join(kinds)}")


def choose_rows(rows: Iterable[Row], numbers: tuple[int, ...] | None) -> Chosen:
    """Return whole rows by their numbers, all of them without any.

    Raises:
        ConfigError: there is no such row.
    """
    known = {row.number: row for row in rows}
    if unknown := sorted(set(numbers or ()) - set(known)):
        raise ConfigError(f"--row {unknown[0]}: expected 1 to {len(known)}")
    return tuple((row, row.faults) for row in known.values() if row.number in (numbers or known))


class FaultBench(AbstractContextManager["FaultBench"], Protocol):
    """A bench, whose processes end with its `with` block."""

    not_granted: list[str]
    """Requests for scheduling that the operating system refused."""


def inject(
    chosen: Chosen, seed: int, watch: InjectionWatch, make_bench: Callable[[], FaultBench]
) -> FaultReport:
    """Inject faults, each as often as its row says, and judge them.

    Args:
        chosen: rows, each with those of its faults to inject.
        seed: draws the instants; each injection of a fault adds one.
        watch: called before each injection and at the end.
        make_bench: makes the bench of the rows. It starts no process yet.
    """
    clock = MonotonicClock()
    results = []
    done = 0
    # The witness starts first: later this process has a real-time priority.
    with WitnessProcess() as witness, make_bench() as bench:
        watch("measuring the machine", 0)
        alone = _observe(witness, clock)
        for row, faults in chosen:
            injections = []
            began_ns = clock.now_ns()
            for fault in faults:
                for time in range(fault.times):
                    watch(f"{row.number}: {fault.name}", done)
                    injections.append((fault, _once(bench, fault, seed + time)))
                    done += 1
            beside = witness.between(began_ns, clock.now_ns())
            results.append(RowResult(row, tuple(injections), _longer_pause(alone, beside)))
        not_granted = tuple(bench.not_granted)
    watch("", done)
    return FaultReport(tuple(results), alone, not_granted)


def _observe(witness: WitnessProcess, clock: MonotonicClock) -> WitnessReport:
    """Let the witness compute alone for a while, and once at least."""
    began_ns = clock.now_ns()
    clock.sleep_until_ns(began_ns + ALONE_NS)
    while (report := witness.between(began_ns, clock.now_ns())) is None:
        clock.sleep_until_ns(clock.now_ns() + PERIOD_NS)
    return report


def _longer_pause(alone: WitnessReport, beside: WitnessReport | None) -> WitnessReport:
    if beside is None or alone.pause_ms > beside.pause_ms:
        return alone
    return beside


def _once(bench: FaultBench, fault: Fault, seed: int) -> InjectionResult:
    try:
        return fault.inject(bench, seed)
    except BenchFailedError as error:
        return InjectionResult(unmeasured=str(error))
    except EndedEarlyError as error:
        return InjectionResult(late=str(error))
    except (GatortError, OSError, LookupError, ValueError, SubprocessError) as error:
        return InjectionResult(wrong=f"not run: {error}")
