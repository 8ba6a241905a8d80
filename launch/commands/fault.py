"""`gatort fault` and `gatort faults`: inject faults and time the reaction.

Each fault happens to real components: an arm in a process of its own, a controller in this process
or another, real signals and files. Every inner step of the arm is traced, and the trace
gives the times.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

from cyclopts import Parameter

from gatort.faults.arm_process import RunningArm
from gatort.faults.bench import Bench
from gatort.faults.fault_report import FaultReport
from gatort.faults.franka.bench import FrankaBench
from gatort.faults.franka.rows import FRANKA_ROWS
from gatort.faults.franka.simulator import DEFAULT_PYTHON, require_python
from gatort.faults.injecting import Chosen, FaultBench, choose, choose_rows, inject
from gatort.faults.rows import ROWS
from gatort.launch.fault_tables import catalogue, print_report
from gatort.launch.outputs import require_writable
from gatort.launch.refusals import refuse_ignored
from gatort.launch.report import progress_bar, screen, write_json
from gatort.runtime.errors import ConfigError, MissingDependency
from gatort.runtime.exit_status import ExitStatus
from gatort.runtime.remote.keys import ControllerKeys
from gatort.runtime.spec import Seed
from gatort.sim.make import simulator_installed


def fault(
    component: str | None = None,
    type_: Annotated[str | None, Parameter(name="type")] = None,
    /,
    *,
    robot: str | None = None,
    keys: Path | None = None,
    force: Annotated[bool, Parameter(negative="")] = False,
    seed: Seed = 0,
) -> int:
    """Inject one fault into a simulated arm and its controller, and time the reaction.

    Without arguments it lists all faults. Exit status 0: the reaction was right and in time.
    Exit status 1: it was not. Exit status 3: inconclusive, because this machine pauses computing
    processes for long enough to explain the late reaction.

    Parameters
    ----------
    component
        Component that fails.
    type_
        Type of its failure.
    robot
        Address of a running arm, instead of one that is started for the fault. Only faults of a
        controller can be injected there.
    keys
        Directory with controller.key and robot.pub, for an arm that requires keys.
    force
        Inject the fault into a real arm: it will move.
    seed
        Seed of the instant at which the fault happens.
    """
    _require_simulator()
    if robot is None and (keys is not None or force):
        flag = "--force" if keys is None else "--keys"
        raise ConfigError(f"{flag}: expected --robot with it, found none")
    if component is None:
        refuse_ignored("without a fault", robot=robot, seed=seed or None)
        screen().print(catalogue(ROWS))
        return ExitStatus.DONE

    row, chosen = choose(ROWS, component, type_)
    if robot is not None and not chosen.anywhere:
        raise ConfigError(
            f"{component} {type_} needs processes of this command's own: leave out --robot"
        )
    with TemporaryDirectory() as folder:
        running = None
        if robot is not None:
            known = ControllerKeys.load(keys) if keys is not None else None
            running = RunningArm(robot, known, Path(folder), force=force)
        return _print(_inject(((row, (chosen,)),), seed, partial(Bench, running)))


def faults(
    *,
    robot: Literal["simulated", "franka"] = "simulated",
    row: tuple[int, ...] | None = None,
    seed: Seed = 0,
    json: Path | None = None,
    franka_sim: Path = DEFAULT_PYTHON,
) -> int:
    """Inject every fault that gatort must survive, and compare the reactions with their bounds.

    Each row of docs/faults.md is one expected reaction and its bounds. A witness, a process that
    computes the same small work 20 times a second, measures the machine before the first row and
    beside each of them. Exit status 0: every row held its bounds. Exit status 1: a row is broken.
    Exit status 3: no row is broken, but one is inconclusive: the machine paused a computation for
    long enough to explain a late reaction. A wrong torque, message or order of stopping breaks its
    row on any machine.

    Parameters
    ----------
    robot
        Arm of the table: simulated, or franka, whose own protocol franka-sim speaks.
    row
        Numbers of the rows to inject; all rows by default.
    seed
        Seed of the instants at which the faults happen.
    json
        File for a report of every injection.
    franka_sim
        Python of franka-sim's environment.
    """
    require_writable(json=json)
    if robot == "franka":
        require_python(franka_sim)
        chosen = choose_rows(FRANKA_ROWS, row)
        report = _inject(chosen, seed, partial(FrankaBench, franka_sim))
    else:
        if franka_sim != DEFAULT_PYTHON:
            refuse_ignored("without --robot franka", franka_sim=franka_sim)
        _require_simulator()
        report = _inject(choose_rows(ROWS, row), seed, Bench)
    write_json(json, "faults", report.record())
    return _print(report, json)


def _require_simulator() -> None:
    if not simulator_installed():
        raise MissingDependency(
            "faults are injected into a simulated arm: pip install 'gatort[sim]'"
        )


def _inject(chosen: Chosen, seed: int, make_bench: Callable[[], FaultBench]) -> FaultReport:
    """Inject faults under a progress bar."""
    total = sum(fault.times for _, faults in chosen for fault in faults)
    with progress_bar("faults") as progress:
        bar = progress.add_task("", total=total)
        return inject(
            chosen,
            seed,
            lambda name, done: progress.update(bar, description=name, completed=done),
            make_bench,
        )


def _print(report: FaultReport, json: Path | None = None) -> int:
    print_report(report, screen(json))
    return report.status
