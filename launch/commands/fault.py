"""`gatort fault` and `gatort faults`: inject what can go wrong, and time what is done about it.

Each fault happens to real components: an arm in a process of its own, a controller in this process or another, real
signals, sockets and files. Every inner step of the arm is traced, and the times are read off the trace.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from subprocess import SubprocessError
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from pydantic import NonNegativeInt
from rich.table import Table

from gatort.launch.report import (
    alarming,
    progress_bar,
    require_writable,
    screen,
    write_json,
)
from gatort.runtime.errors import (
    ConfigError,
    GatortError,
    MissingDependency,
)
from gatort.runtime.machine import (
    STOLEN_S,
    stolen_s,
    this_machine,
)
from gatort.runtime.remote.keys import ControllerKeys
from gatort.sim.make import simulator_installed

if TYPE_CHECKING:
    from gatort.launch.faults.bench import (
        Bench,
        Outcome,
        RunningArm,
    )
    from gatort.launch.faults.rows import (
        Fault,
        Row,
    )


MOST_TIMES = 5
"""How often an injection is made at most, see `_undisturbed`."""
PAGE_COLUMNS = 160
"""Of a file or a pipe, which has no width of its own."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a row's injections came to."""

    row: Row
    outcomes: tuple[tuple[Fault, Outcome], ...]
    made_again: int = 0
    """Injections beyond these that broke a bound while the machine's host took its cores."""

    @property
    def detections_ms(self) -> list[float]:
        """Of each injection that has one."""
        return [each.detected_ms for _, each in self.outcomes if each.detected_ms is not None]

    @property
    def safes_ms(self) -> list[float]:
        """Of each injection that has to end in the safe command."""
        return [each.safe_ms for _, each in self.outcomes if each.safe_ms is not None]

    @property
    def broken(self) -> list[str]:
        """Sentences on what was not as it must be; none when the row holds."""
        row = self.row
        sentences = [
            f"{fault.component} {fault.type}: {each.wrong}"
            for fault, each in self.outcomes
            if each.wrong
        ]
        for what, times, bound in (
            (row.measured, self.detections_ms, row.detection_ms),
            ("safe torque", self.safes_ms, row.safe_ms),
        ):
            if bound is not None and times and max(times) > bound:
                sentences.append(f"{what}: {max(times):.1f} ms, more than {bound:g}")
        return list(dict.fromkeys(sentences))

    def record(self) -> dict[str, Any]:
        """The JSON form."""
        injections = [
            {"component": fault.component, "type": fault.type, **asdict(each)}
            for fault, each in self.outcomes
        ]
        bound = {"detection_ms": self.row.detection_ms, "safe_ms": self.row.safe_ms}
        return {
            "row": self.row.number,
            "expected": self.row.expected,
            "measured": self.row.measured,
            "bound": bound,
            "detection_ms": _p50_max(self.detections_ms),
            "safe_ms": _p50_max(self.safes_ms),
            "broken": self.broken,
            "made_again": self.made_again,
            "injections": injections,
        }


def fault(
    component: str | None = None,
    type_: str | None = None,
    /,
    *,
    robot: str | None = None,
    keys: Path | None = None,
    force: Annotated[bool, Parameter(negative="")] = False,
    seed: NonNegativeInt = 0,
) -> int:
    """Inject one fault into a simulated arm and its controller, and say what was done about it.

    Without arguments it lists what there is. Exit status 1 when a bound is broken.

    Parameters
    ----------
    component
        What fails.
    type_
        How.
    robot
        The address of an arm that is running, instead of one that is started for it; for faults of a controller.
    keys
        Directory with controller.key and robot.pub, for an arm that asks for keys.
    force
        Inject it into an arm that is real: it will move.
    seed
        Draws when.
    """
    if robot is None and (keys is not None or force):
        raise ConfigError(
            f"{'--force' if keys is None else '--keys'}: expected --robot with it, found none"
        )
    rows = _rows()
    if component is None:
        screen().print(_catalogue(rows))
        return 0
    row, chosen = _choose(rows, component, type_)
    if robot is not None and not chosen.anywhere:
        raise ConfigError(
            f"{component} {type_} is no fault of a controller alone: leave out --robot"
        )
    with TemporaryDirectory() as folder:
        running = _running(robot, keys, Path(folder), force) if robot is not None else None
        return _report(_inject([(row, (chosen,))], seed, running), None)


def _running(endpoint: str, keys: Path | None, folder: Path, force: bool) -> RunningArm:
    from gatort.launch.faults.bench import RunningArm

    return RunningArm(
        endpoint, ControllerKeys.load(keys) if keys is not None else None, folder, force=force
    )


def faults(
    *,
    row: Annotated[tuple[int, ...] | None, Parameter(consume_multiple=1)] = None,
    seed: NonNegativeInt = 0,
    json: Path | None = None,
) -> int:
    """Inject every fault that gatort must survive and compare what was done, and how soon, with the bounds.

    Exit status 1 when a bound is broken.

    Parameters
    ----------
    row
        Only these rows.
    seed
        Draws when each fault happens.
    json
        Write every injection to this file as well.
    """
    require_writable(json)
    rows = _rows()
    numbers = row or tuple(each.number for each in rows)
    if unknown := sorted(set(numbers) - {each.number for each in rows}):
        raise ConfigError(f"--row {unknown[0]}: expected 1 to {len(rows)}")
    return _report(
        _inject([(each, each.faults) for each in rows if each.number in numbers], seed), json
    )


def _rows() -> tuple[Row, ...]:
    if not simulator_installed():
        raise MissingDependency(
            "faults are injected into a simulated arm: pip install 'gatort[sim]'"
        )
    from gatort.launch.faults.rows import ROWS

    return ROWS


def _choose(rows: Iterable[Row], component: str, kind: str | None) -> tuple[Row, Fault]:
    there = {(each.component, each.type): (row, each) for row in rows for each in row.faults}
    if (component, kind) in there:
        return there[component, kind or ""]
    kinds = [each for name, each in there if name == component]
    if not kinds:
        raise ConfigError(
            f"no component {component!r}: expected one of {', '.join(sorted({c for c, _ in there}))}"
        )
    if kind is None:
        raise ConfigError(f"fault {component}: expected a type, one of {', '.join(kinds)}")
    raise ConfigError(f"{component} has no fault {kind!r}: expected one of {', '.join(kinds)}")


def _catalogue(rows: Iterable[Row]) -> Table:
    table = Table("row", "component", "type", "expected", "with --robot")
    for row in rows:
        for each in row.faults:
            table.add_row(
                str(row.number),
                each.component,
                each.type,
                row.expected,
                "yes" if each.anywhere else "",
            )
    return table


def _inject(
    chosen: list[tuple[Row, tuple[Fault, ...]]], seed: int, running: RunningArm | None = None
) -> list[Finding]:
    from gatort.launch.faults.bench import Bench

    findings = []
    with Bench(running) as bench, progress_bar("faults") as progress:
        bar = progress.add_task(
            "", total=sum(each.times for _, faults in chosen for each in faults)
        )
        for row, kinds in chosen:
            outcomes, made_again = [], 0
            for each in kinds:
                progress.update(bar, description=f"{row.number}: {each.component} {each.type}")
                for time in range(each.times):
                    outcome, times = _undisturbed(bench, row, each, seed + time)
                    outcomes.append((each, outcome))
                    made_again += times - 1
                    progress.advance(bar)
            findings.append(Finding(row, tuple(outcomes), made_again))
    return findings


def _undisturbed(bench: Bench, row: Row, fault: Fault, seed: int) -> tuple[Outcome, int]:
    """An injection, and how often it was made.

    It is made again when it broke a bound while the host of this machine took its cores: that tells nothing of gatort.
    """
    times, disturbed = 0, True
    while disturbed and times < MOST_TIMES:
        times += 1
        before_s = stolen_s()
        outcome = _once(bench, fault, seed)
        disturbed = stolen_s() - before_s >= STOLEN_S and bool(
            Finding(row, ((fault, outcome),)).broken
        )
    return outcome, times


def _once(bench: Bench, fault: Fault, seed: int) -> Outcome:
    from gatort.launch.faults.bench import Outcome

    try:
        return fault.inject(bench, seed)
    except (GatortError, OSError, LookupError, ValueError, SubprocessError) as error:
        return Outcome(wrong=f"not run: {error}")


def _report(findings: list[Finding], json: Path | None) -> int:
    held, console = sum(not finding.broken for finding in findings), screen()
    if not console.is_terminal:
        console.width = max(console.width, PAGE_COLUMNS)
    console.print(_table(findings))
    for finding in findings:
        for sentence in finding.broken:
            console.print(f"row {finding.row.number}: {sentence}")
    if made_again := sum(finding.made_again for finding in findings):
        console.print(
            f"made again, because the machine's host took its cores (steal): {made_again}"
        )
    console.print(f"{held} of {len(findings)} inside their bounds")
    rows = [finding.record() for finding in findings]
    write_json(json, {"held": held, "rows": rows, "machine": asdict(this_machine())})
    return 0 if held == len(findings) else 1


def _table(findings: list[Finding]) -> Table:
    table = Table(title="p50 / max of the injections", title_justify="left")
    table.add_column("#", justify="right")
    for column in ("component", "type", "expected"):
        table.add_column(column)
    for column in ("detection, ms", "safe torque, ms", "bound, ms"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    for finding in findings:
        row, kinds = finding.row, dict.fromkeys(fault for fault, _ in finding.outcomes)
        components = ", ".join(dict.fromkeys(each.component for each in kinds))
        types = ", ".join(dict.fromkeys(each.type for each in kinds))
        bounds = " / ".join(
            f"{bound:g}" for bound in (row.detection_ms, row.safe_ms) if bound is not None
        )
        verdict = alarming("broken" if finding.broken else "held", bool(finding.broken))
        expected = (
            row.expected if row.measured == "detection" else f"{row.expected} ({row.measured})"
        )
        times = (_cell(finding.detections_ms), _cell(finding.safes_ms))
        table.add_row(str(row.number), components, types, expected, *times, bounds or "–", verdict)
    return table


def _p50_max(times_ms: list[float]) -> dict[str, float] | None:
    return {"p50": median(times_ms), "max": max(times_ms)} if times_ms else None


def _cell(times_ms: list[float]) -> str:
    return f"{median(times_ms):.1f} / {max(times_ms):.1f}" if times_ms else "–"
