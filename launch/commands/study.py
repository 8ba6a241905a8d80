"""`gatort study`: trials as an experiment, from its plan to its answer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveInt
from rich.table import Table

from gatort.launch.live_trials import run_live
from gatort.launch.options import RunOptions, resolve
from gatort.launch.outputs import require_writable
from gatort.launch.refusals import refuse_ignored
from gatort.launch.report import progress_bar, screen, write_json
from gatort.launch.sharing import sharing
from gatort.runtime.bundle import verify
from gatort.runtime.errors import ConfigError
from gatort.runtime.exit_status import ExitStatus
from gatort.runtime.outputs import whole_file
from gatort.runtime.wording import counted
from gatort.sim.make import SIMULATORS
from gatort.sim.portable import ClusterAddress, Workers
from gatort.sim.tasks import task_of
from gatort.sim.trials.runner import require_unseen
from gatort.studies.design import Design, read_design
from gatort.studies.findings import Findings, PairedFigures, find
from gatort.studies.page import page
from gatort.studies.record import Locked, StudyRecord, changed_keys, held_record
from gatort.studies.schedule import Slot
from gatort.studies.simulated import run_simulated
from gatort.studies.stopping import Stopping

Action = Literal["plan", "lock", "run", "report", "amend"]


def study(
    action: Action,
    file: Path,
    /,
    *,
    reason: str | None = None,
    profile: Path | None = None,
    workers: PositiveInt | None = None,
    cluster: ClusterAddress | None = None,
) -> int:
    """Compare policies in a study that is planned and locked before its first trial.

    The file names the policies, the conditions and the test. `plan` says how many layouts it takes.
    `lock` settles everything in a record beside the file. `run` runs the trials that are due; the
    same command continues after an interruption. `report` writes a page (.study.html) and figures
    (.study.json). It calls a policy better only if the planned test says so. `amend` records a
    later change.

    Parameters
    ----------
    action
        One of plan, lock, run, report, amend.
    file
        File of the study (.toml).
    reason
        Reason for a change, in words; for `amend`.
    profile
        Launch profile with keys, cameras and sensor of a robot at an address; for `run`.
    workers
        Number of processes that share simulated trials. Default: one per core, or one for engines
        on a GPU.
    cluster
        Address of a Ray cluster whose machines share the simulated trials instead, such as
        ray://10.0.0.1:10001.
    """
    if action != "amend":
        refuse_ignored(f"with {action}", reason=reason)
    if action != "run":
        refuse_ignored(f"with {action}", workers=workers, cluster=cluster, profile=profile)
    if action == "amend" and not (reason or "").strip():
        raise ConfigError("amend: expected --reason with the reason for the change")
    design = read_design(file)
    if action in ("plan", "lock", "amend"):
        _require_possible(design)
    match action:
        case "plan":
            screen().print(_plan_table(design))
        case "report":
            _report(file, design, StudyRecord(file))
        case _:
            options = resolve(RunOptions, None, profile)
            engines = [each.engine for each in design.variants.values()]
            share = sharing(workers, cluster, engines)
            with held_record(file) as record:
                _change(record, action, design, reason, options, share)
    return ExitStatus.DONE


def _change(
    record: StudyRecord,
    action: Action,
    design: Design,
    reason: str | None,
    options: RunOptions,
    workers: Workers,
) -> None:
    """Lock, run or amend a study."""
    match action:
        case "lock":
            record.lock(design)
            screen().print(_plan_table(design))
            screen().print(f"locked: {record.path}, SHA-256 {record.lock_sha256}", soft_wrap=True)
        case "amend":
            entry = record.amend(design, str(reason))
            screen().print(f"amended: {', '.join(entry.changed)}", soft_wrap=True)
        case _:
            _run(record, record.require_unchanged(design), options, workers)


def _require_possible(design: Design) -> None:
    """Check that every bundle is complete, fits the task, and has not seen the layouts.

    Raises:
        BundleError, ConfigError, SpecError: it is not.
    """
    for variant in design.variants.values():
        manifest = verify(variant.bundle)
        require_unseen(design.seeds, manifest)
        task_of(manifest, design.task).interface_for(manifest.spec)


def _plan_table(design: Design) -> Table:
    analysis = design.analysis
    expected = analysis.expectation
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(overflow="fold")
    rows = [
        ("question", design.question),
        ("variants", f"{', '.join(design.variants)}; {design.reference} is the reference"),
        ("robots", ", ".join(design.robots)),
        ("conditions", ", ".join(design.conditions)),
        ("layouts", f"{design.pairs}, seeds {design.seeds[0]} to {design.seeds[-1]}"),
        ("trials", f"{design.trials}"),
    ]
    if design.others:
        rates = f"{expected.other:.0%} from {expected.reference:.0%}"
        rows += [
            ("test", f"{analysis.test}, {analysis.significance:g} accepted for a false answer"),
            ("power", f"{design.planned_power:.1%} to tell {rates}"),
            ("found", f"{design.detectable} (power {analysis.power:g})"),
        ]
    for row in rows:
        table.add_row(*row)
    return table


def _run(record: StudyRecord, locked: Locked, options: RunOptions, workers: Workers) -> None:
    due = record.due()
    if not due or find(record).finished:
        screen().print("every trial is done; `gatort study report` writes the answer")
        return
    simulated = [slot for slot in due if slot.robot in SIMULATORS]
    if simulated:
        _run_simulated(record, locked, simulated, workers)
    live = [slot for slot in due if slot.robot not in SIMULATORS]
    run_live(record, locked, live, options, screen())
    found = find(record)
    screen().print(_result_table(found))
    for sentence in _sentences(found):
        screen().print(sentence, soft_wrap=True)


def _run_simulated(
    record: StudyRecord, locked: Locked, slots: Sequence[Slot], workers: Workers
) -> None:
    """Run simulated trials under a progress bar, until a sequential test has its answer."""
    planned = locked.design.trials
    stopping = Stopping(locked.design, record.outcomes)
    trials = run_simulated(locked, slots, workers)
    try:
        with progress_bar("trials") as bars, closing(trials):
            bar = bars.add_task("", total=planned, completed=len(record.outcomes))
            for slot, outcome in trials:
                record.add(slot, outcome)
                bars.update(bar, advance=1)
                stopping.add(slot, outcome)
                if stopping.is_decided:
                    return
    except KeyboardInterrupt:
        screen(stderr=True).print(
            f"stopped with {len(record.outcomes)} of {counted(planned, 'trial')} in "
            f"{record.path}; the same command continues",
            soft_wrap=True,
        )
        raise


def _report(file: Path, design: Design, record: StudyRecord) -> None:
    if not record.is_locked:
        raise ConfigError(f"{file}: expected a locked study, found none; run `gatort study lock`")
    place, figures = (file.with_name(f"{file.stem}.study.{end}") for end in ("html", "json"))
    require_writable(json=figures)
    found = find(record)
    with whole_file(place) as partial:
        partial.write_text(page(record, found), encoding="utf-8")
    write_json(figures, "study", _figures(record, found))
    screen().print(_result_table(found))
    for sentence in _sentences(found):
        screen().print(sentence, soft_wrap=True)
    if changed := changed_keys(record.locked.design, design):
        screen().print(
            f"{file} differs from the locked study in {', '.join(changed)}; this is the report of "
            "the locked one",
            soft_wrap=True,
        )
    screen().print(f"page: {place}\nfigures: {figures}", soft_wrap=True)


def _result_table(found: Findings) -> Table:
    table = Table()
    for column in ("variant", "success", "95 % interval", "to success", "SPARC", "void"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    for each in found.variants:
        low, high = each.wilson_95 or (0.0, 1.0)
        table.add_row(
            each.name,
            f"{each.successes} of {each.trials}",
            f"{low:.1%} – {high:.1%}",
            f"{each.success_s:.1f} s" if each.success_s is not None else "–",
            f"{each.sparc:.2f}" if each.sparc is not None else "–",
            str(each.void),
        )
    return table


def _sentences(found: Findings) -> list[str]:
    return [_sentence(each, found) for each in found.comparisons]


def _sentence(each: PairedFigures, found: Findings) -> str:
    if each.verdict == "not finished":
        return (
            f"{each.variant}: not finished after {found.done} of {counted(found.planned, 'trial')}"
        )
    return (
        f"{each.variant} against {each.reference}: {each.verdict}, {each.points}, "
        f"p = {each.adjusted_p:.2g}"
    )


def _figures(record: StudyRecord, found: Findings) -> dict[str, Any]:
    """Return the JSON form of the answer."""
    return {
        "study": found.design.model_dump(mode="json"),
        "lock_sha256": record.lock_sha256,
        "bundles": record.locked.bundles,
        "amendments": [
            each.model_dump(mode="json", include={"reason", "changed", "trials"})
            for each in record.amendments
        ],
        "trials_done": found.done,
        "trials_planned": found.planned,
        "decided": found.decided,
        "variants": [
            {**asdict(each), "rate": each.rate, "wilson_95": each.wilson_95}
            for each in found.variants
        ],
        "comparisons": [
            {**asdict(each), "difference": each.difference} for each in found.comparisons
        ],
        "cells": [asdict(each) for each in found.cells],
        "agreements": [asdict(each) for each in found.agreements],
    }
