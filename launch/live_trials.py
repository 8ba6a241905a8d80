"""A study's trials on a robot at an address: a person lays out, consents and labels.

The person sees a trial's code and never its variant. A simulated robot labels its trials itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from gatort.policies.loading import PolicyOptions
from gatort.runtime.bundle import verify
from gatort.runtime.clock import MonotonicClock
from gatort.runtime.errors import ConfigError, ObservationError, RobotError
from gatort.runtime.live_run import LiveRun
from gatort.runtime.loop import TickRecord
from gatort.runtime.remote.client import remote_of
from gatort.sim.tasks import task_of
from gatort.sim.tasks.task import Task
from gatort.sim.trials.smoothness import Motion
from gatort.studies.design import Design
from gatort.studies.findings import find
from gatort.studies.record import Locked, StudyRecord, TrialOutcome
from gatort.studies.schedule import Slot

from .consent import agrees, require_consent, show_checklist
from .driving import live_run, policy_and_robot
from .options import RunOptions
from .recorded_run import run_recorded

SUCCESS: Final = "s"
VOID: Final = "v"
LEFT: Final = "nobody gave the label before the program ended"
"""Reason for which a trial is void that ran and has no label."""


def run_live(
    record: StudyRecord,
    locked: Locked,
    slots: Sequence[Slot],
    options: RunOptions,
    console: Console,
) -> None:
    """Run trials one after another until a person ends it, and record each.

    Args:
        record: record of the study.
        locked: the study. Bundles that changed since are refused.
        slots: trials on robots at addresses, in their order.
        options: keys, cameras, sensor and scheduling of the cell.
        console: terminal of the person.

    Raises:
        ConfigError: the person ends it, or the robot's layouts cannot be repeated.
    """
    for place, slot in enumerate(slots, 1):
        if find(record).finished:
            return
        variant = locked.design.variants[slot.variant]
        manifest = verify(variant.bundle, locked.bundles[slot.variant])
        task = task_of(manifest, locked.design.task)
        console.rule(f"trial {slot.code}, {place} of {len(slots)} that are due")
        console.print(_layout_table(task, slot.seed))
        if not agrees("Is everything laid out so?"):
            raise ConfigError(
                f"stopped before trial {slot.code}: answer y to run it; the same command continues"
            )
        driven = _options(options, locked.design, slot, task)
        outcome, void = _run(record, locked, slot, task, driven, console)
        record.add(slot, outcome, void)


def _options(cell: RunOptions, design: Design, slot: Slot, task: Task) -> RunOptions:
    """Return the options of a trial: the cell's, but policy and run as the study has them."""
    return cell.model_copy(
        update={
            **PolicyOptions().model_dump(),
            **design.variants[slot.variant].model_dump(exclude_unset=True),
            "robot": slot.robot,
            "seed": slot.seed,
            "seconds": design.seconds or task.seconds,
            "task": None,
            "takeover": None,  # A person's ticks would tell nothing of the policy.
            "demo": None,
            "prompt": None,
            "until": "success",
        }
    )


def _run(
    record: StudyRecord,
    locked: Locked,
    slot: Slot,
    task: Task,
    options: RunOptions,
    console: Console,
) -> tuple[TrialOutcome | None, str | None]:
    """Run one trial. Return its figures, or the reason for which it is void."""
    clock = MonotonicClock()
    with policy_and_robot(options, clock, announced=False) as (policy, robot):
        remote = remote_of(robot)
        simulated = remote is not None and remote.simulated
        if simulated and locked.design.analysis.test != "barnard":
            raise ConfigError(
                f"{slot.robot}: expected an arm whose layouts a person repeats, found a simulated "
                "one with layouts of its own; name mujoco or pybullet in `robots`, or choose the "
                "test barnard"
            )
        live = live_run(policy, robot, clock, options)
        file = _recording(record, slot)
        show_checklist(console, live, file, blind=True)
        if remote is not None:
            require_consent(remote, is_given=False)
        motion = Motion(robot.interface)
        dropped_before = remote.dropped if remote is not None else 0

        def look(tick: TickRecord) -> None:
            motion.add(tick.observation)

        try:
            run_recorded(live, options, file, console, None, on_tick=look, title=slot.code)
        except (ObservationError, RobotError) as error:
            return None, f"the robot did not begin: {error}"
        succeeded = live.robot.succeeded
        if not simulated:
            label, void = _labelled(record, task, slot, reported=succeeded)
            if void is not None:
                return None, void
            succeeded, reached = label == SUCCESS, _reached(task, label)
        else:
            reached = {}
        dropped = remote.dropped - dropped_before if remote is not None else 0
        return _outcome(live, motion, reached, dropped, succeeded=succeeded), None


def _recording(record: StudyRecord, slot: Slot) -> Path:
    """Return an unused path for the recording of a trial, in a folder beside the study's file."""
    folder = record.path.with_suffix("").with_suffix("")
    folder.mkdir(exist_ok=True)
    attempts = (folder / f"{slot.code}-{attempt}.mcap" for attempt in count(1))
    return next(file for file in attempts if not file.exists())


def _layout_table(task: Task, seed: int) -> Table:
    layout = task.layout(seed)
    table = Table(title=f"layout {seed}, from the arm's base", title_justify="left")
    for column in ("block", "ahead", "to the left", "turned", "edge"):
        table.add_column(column, justify="left" if column == "block" else "right")
    for cube in layout.cubes:
        x_m, y_m, _ = cube.position
        table.add_row(
            cube.name,
            f"{1e3 * x_m:.0f} mm",
            f"{1e3 * y_m:.0f} mm",
            f"{math.degrees(cube.yaw_rad) % 90:.0f}°",
            f"{1e3 * cube.edge_m:.0f} mm",
        )
    return table


def _labelled(
    record: StudyRecord, task: Task, slot: Slot, *, reported: bool
) -> tuple[str, str | None]:
    """Return the label of a trial, and the reason for which it is void or `None`.

    A person who leaves instead makes the trial void: they have seen it, and a failure must not be
    tried again without a trace.
    """
    try:
        label = _ask(task, slot, reported=reported)
        return label, _reason(slot) if label == VOID else None
    except (KeyboardInterrupt, ConfigError):
        record.add(slot, None, LEFT)
        raise


def _ask(task: Task, slot: Slot, *, reported: bool) -> str:
    """Ask for the label of a trial until it is one."""
    stages = ", ".join(f"{number} {stage}" for number, stage in enumerate(task.stages, 1))
    said = " (the robot's operator reported a success)" if reported else ""
    question = (
        f"Result of {slot.code}{said}: {SUCCESS} success, {VOID} void, or the last stage that it "
        f"came to: 0 none{', ' if stages else ''}{stages}: "
    )
    valid = {SUCCESS, VOID, *map(str, range(len(task.stages) + 1))}
    while True:
        label = _answer(question, slot).lower()
        if label in valid:
            return label


def _answer(question: str, slot: Slot) -> str:
    try:
        return input(question).strip()
    except EOFError as error:
        raise ConfigError(
            f"{slot.code}: expected the label of the trial, found the end of the input; the trial "
            "is void, and the same command runs it again"
        ) from error


def _reason(slot: Slot) -> str:
    reason = ""
    while not reason:
        reason = _answer("Why is it void? ", slot)
    return reason[:500]


def _reached(task: Task, label: str) -> dict[str, float | None]:
    count = len(task.stages) if label == SUCCESS else int(label)
    return dict.fromkeys(task.stages[:count])


def _outcome(
    live: LiveRun,
    motion: Motion,
    reached: dict[str, float | None],
    dropped: int,
    *,
    succeeded: bool,
) -> TrialOutcome:
    return TrialOutcome(
        succeeded=succeeded,
        reached_s=reached,
        seconds=live.seconds,
        ticks=live.telemetry.ticks,
        sparc=motion.sparc,
        refused=sum(live.refusals.values()),
        misses=live.telemetry.misses,
        dropped=dropped,
        lost=0,
        stop=live.ending,
    )
