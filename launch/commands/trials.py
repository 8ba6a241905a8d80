"""`gatort trials`: seeded trials in lockstep, and the success rate that they give.

Finished trials are appended to a file beside the report and are not run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from pydantic import Field, NonNegativeFloat, PositiveInt, ValidationError

from gatort.launch.options import refuse_unused_by_engine, resolve
from gatort.launch.outputs import RUNS, is_stream, make_runs, require_writable, spared
from gatort.launch.progress import TrialsInterrupted, show_trials
from gatort.launch.refusals import findings, refuse_fields
from gatort.launch.report import screen, write_json
from gatort.launch.sharing import sharing
from gatort.launch.sweep_picture import sweep_picture
from gatort.launch.trial_report import sweep_record, sweep_table, trial_record, trial_table
from gatort.policies.loading import BundleLoader, PolicyOptions, precision_of
from gatort.runtime.bundle import (
    MANIFEST_FILE,
    Manifest,
    SuccessRecord,
    record_success,
    sha256_of,
    verify,
)
from gatort.runtime.engines.onnx import Threads
from gatort.runtime.errors import ConfigError
from gatort.runtime.exit_status import ExitStatus
from gatort.runtime.machine import this_machine
from gatort.runtime.outputs import require_folder
from gatort.runtime.remote.link import LinkConditions
from gatort.runtime.spec import Seed
from gatort.runtime.wording import counted
from gatort.sim.make import SimulatorName
from gatort.sim.portable import ClusterAddress, Workers
from gatort.sim.robot import CAMERA
from gatort.sim.tasks import task_of
from gatort.sim.tasks.seeds import TRIAL_SEEDS
from gatort.sim.trials.journal import Journal
from gatort.sim.trials.runner import TrialSetup, require_unseen
from gatort.sim.trials.statistics import TrialSummary, summarise
from gatort.sim.trials.sweep import FIELDS, Axis, Sweep, conditions_along, named
from gatort.sim.view_randomisation import NOMINAL_VIEW, ViewRandomisation

EPISODES = 200
SWEEP_EPISODES = 20
"""Trials at each value of a sweep: enough to see where a task fails, not to compare policies."""
DEFAULT_PLOT = RUNS / "sweep.png"


class TrialOptions(PolicyOptions):
    """A policy in many trials at once, which already share the cores."""

    robot: SimulatorName = "mujoco"
    """Simulator of the arm."""
    threads: Threads = 1
    """CPU threads of one pass."""
    task: str | None = None
    """Task of the simulated arm, for a bundle that names none."""
    link: Annotated[LinkConditions, Parameter(name="*")] = LinkConditions()
    """Conditions of the link between policy and robot."""
    randomise_view: bool = False
    """Vary colours, lights, cameras and lenses from trial to trial, over the ranges in
    sim/view_randomisation.py. The seed of a trial gives its look."""
    freeze_camera: str | None = None
    """Camera whose picture stays frozen from --freeze-from-s on, such as front or wrist."""
    freeze_from_s: NonNegativeFloat = 3.0
    """Time from the start of a trial at which --freeze-camera takes effect."""

    @property
    def view(self) -> ViewRandomisation | None:
        """Variation of the pictures, or `None` for the nominal look."""
        if not self.randomise_view and self.freeze_camera is None:
            return None
        ranges = ViewRandomisation() if self.randomise_view else NOMINAL_VIEW
        frozen = {"frozen_camera": self.freeze_camera, "frozen_from_s": self.freeze_from_s}
        return ranges.model_copy(update=frozen)


def trials(
    *,
    options: Annotated[TrialOptions | None, Parameter(name="*")] = None,
    episodes: Annotated[int, Field(ge=1, le=len(TRIAL_SEEDS))] | None = None,
    seed: Seed = 5000,
    workers: PositiveInt | None = None,
    cluster: ClusterAddress | None = None,
    sweep: Axis | None = None,
    values: tuple[float, ...] | None = None,
    plot: Path | None = None,
    json: Path | None = None,
    min_success: Annotated[float | None, Field(ge=0, le=1)] = None,
    record: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Try a policy on seeded layouts in lockstep and report its success rate.

    The rate comes with a 95 % Wilson interval. With --json, finished trials are kept in a file
    beside the report, and the same command continues after an interruption.

    With --sweep, the trials run under one condition of the link after another. A sweep shows at
    which latency the task fails, before an arm is powered. The policy's computing time counts as
    zero. To allow for C ms of computing on a link of D ms one way, try a link of D + C/2 ms.

    Parameters
    ----------
    episodes
        Number of trials. Default: 200, or 20 at each value of a sweep.
    seed
        Layout seed of the first trial; the others follow one by one. Seeds that the policy has
        learned from are refused.
    workers
        Number of processes that share the trials. Default: one per core, or one for an engine
        on a GPU.
    cluster
        Address of a Ray cluster whose machines share the trials instead, such as
        ray://10.0.0.1:10001.
    sweep
        Condition to vary: delay and jitter in ms one way, loss and reorder as probabilities.
    values
        Values of the sweep. Default: a range that suits the condition.
    plot
        Picture of a sweep (.png, .svg or .pdf). Default: runs/sweep.png.
    json
        JSON file for the result.
    min_success
        Share of the trials that must succeed, from 0 to 1, at each value of a sweep. Exit status 1
        when fewer do.
    record
        Change the bundle: write the measured success rate into its manifest. A rate of more trials
        is never replaced.
    """
    typed = options
    options = resolve(TrialOptions, options, None)
    refuse_unused_by_engine(typed, options.engine)
    if plot is None and sweep is not None:
        make_runs()
    require_writable(plot=plot or (DEFAULT_PLOT if sweep else None), json=json)
    manifest = verify(options.bundle)
    if record:
        remedy = "copy the bundle to a folder that you can write, and name it with --bundle"
        require_folder(options.bundle, remedy)
    _require_sensible(options, manifest, sweep, values, plot, record)
    episodes = episodes or (SWEEP_EPISODES if sweep else EPISODES)
    if record:
        _require_larger(episodes, manifest)
    seeds = range(seed, seed + episodes)
    require_unseen(seeds, manifest)
    share = sharing(workers, cluster, [options.engine])
    series = _Series(options, manifest, seeds, share, json)

    if sweep:
        found = series.sweep(sweep, values)
        _report_sweep(found, plot or DEFAULT_PLOT, json, series)
        return _judge(found.results, min_success)
    try:
        summary = series.run(options.link, "trials")
    except TrialsInterrupted as interrupt:
        if interrupt.finished:
            screen(json).print(trial_table(manifest.name, summarise(interrupt.finished)))
        raise
    screen(json).print(trial_table(manifest.name, summary))
    conditions = {
        "link": options.link.model_dump(),
        "view": options.view.model_dump() if options.view is not None else None,
    }
    content = {**trial_record(summary), **conditions, **series.origin()}
    write_json(json, "trials", content, series.journals)
    if record:
        record_success(options.bundle, _success(seed, summary))
    return _judge([summary], min_success)


def _judge(results: Sequence[TrialSummary], min_success: float | None) -> ExitStatus:
    """Return the exit status, and print the verdict on a success rate that is too low."""
    lowest = min(each.success_rate for each in results)
    if min_success is None or lowest >= min_success:
        return ExitStatus.DONE
    screen(stderr=True).print(f"success of {lowest:.1%}, less than --min-success {min_success:.1%}")
    return ExitStatus.NEGATIVE


def _require_sensible(
    options: TrialOptions,
    manifest: Manifest,
    sweep: Axis | None,
    values: Sequence[float] | None,
    plot: Path | None,
    record: bool,
) -> None:
    link = options.link
    if sweep is None and link.perfect:
        refuse_fields("on a link without delay, jitter, loss or reorder", link, "link_seed")
    if values is not None and sweep is None:
        raise ConfigError("--values belong to a sweep: add --sweep delay, jitter, loss or reorder")
    if sweep is not None and FIELDS[sweep] in link.model_fields_set:
        flag = FIELDS[sweep].replace("_", "-")
        raise ConfigError(f"--sweep {sweep} sets --{flag} itself: give one of the two")
    if plot is not None and sweep is None:
        raise ConfigError("--plot draws a sweep: add --sweep delay, jitter, loss or reorder")
    if record and (sweep or not link.perfect or options.view is not None):
        raise ConfigError(
            "--record writes the success rate of the policy itself: leave out the conditions of "
            "link and view"
        )
    _require_camera(options, manifest)
    task_of(manifest, options.task)


def _require_larger(episodes: int, manifest: Manifest) -> None:
    """Check that a recorded success rate is replaced by one of as many trials or more."""
    known = manifest.success
    if known is not None and episodes < known.trials:
        raise ConfigError(
            "--record: the bundle holds the success rate of "
            f"{counted(known.trials, 'trial')}, more than {episodes}: "
            f"run --episodes {known.trials} or more, or leave out --record"
        )


def _require_camera(options: TrialOptions, manifest: Manifest) -> None:
    """Check that the policy has cameras if pictures are to vary, and the one that freezes."""
    if options.freeze_camera is None and "freeze_from_s" in options.model_fields_set:
        raise ConfigError("--freeze-from-s: expected --freeze-camera with it, found none")
    if options.view is None:
        return
    cameras = [
        key.name.removeprefix(CAMERA)
        for key in manifest.spec.observations
        if key.encoding == "image"
    ]
    if not cameras:
        raise ConfigError(
            f"--randomise-view and --freeze-camera vary pictures, and {manifest.name!r} reads "
            "none; give --bundle policies/stack_camera"
        )
    if options.freeze_camera not in (None, *cameras):
        raise ConfigError(
            f"--freeze-camera: expected one of {', '.join(cameras)}, "
            f"found {options.freeze_camera!r}"
        )


@dataclass(frozen=True, slots=True)
class _Series:
    """One policy's trials on the same seeds, under one link or several."""

    options: TrialOptions
    manifest: Manifest
    seeds: range
    workers: Workers
    report: Path | None
    journals: list[Journal] = field(default_factory=list)
    """Files that keep the finished trials."""

    def run(self, link: LinkConditions, noun: str) -> TrialSummary:
        """Run the trials under one link, or continue where they stopped."""
        options = self.options.model_copy(update={"link": link})
        journal = None
        if self.report is not None and not is_stream(self.report):
            journal = Journal(self.report, self.manifest, options)
            self.journals.append(journal)
        setup = TrialSetup(
            load_policy=BundleLoader(options=options, manifest_sha256=self._manifest_sha256),
            simulator=options.robot,
            task=options.task,
            link=link,
            view=options.view,
        )
        return summarise(show_trials(setup, self.seeds, self.workers, journal, noun))

    def sweep(self, axis: Axis, values: Sequence[float] | None) -> Sweep:
        """Run the trials at each value of an axis."""
        try:
            links = conditions_along(self.options.link, axis, values)
        except ValidationError as error:
            raise ConfigError(f"--values: {findings(error)}") from error

        results: list[TrialSummary] = []
        try:
            for index, link in enumerate(links, 1):
                place = f"value {index} of {len(links)}"
                results.append(self.run(link, f"trials at {named(axis, link)}, {place}:"))
        except TrialsInterrupted as interrupt:
            if interrupt.finished:
                results.append(summarise(interrupt.finished))
            if results:
                done = Sweep(self.manifest.name, axis, links[: len(results)], results)
                screen(self.report).print(sweep_table(done))
            raise
        return Sweep(self.manifest.name, axis, links, results)

    @property
    def _manifest_sha256(self) -> str:
        return sha256_of(self.options.bundle / MANIFEST_FILE)

    def origin(self) -> dict[str, Any]:
        """Return the report's origin: bundle, options and machine."""
        return {
            "bundle": self.manifest.name,
            "bundle_sha256": self._manifest_sha256,
            "robot": self.options.robot,
            "engine": self.options.engine,
            "precision": precision_of(self.options, self.manifest.precision),
            "seed": self.seeds[0],
            "workers": self.workers if isinstance(self.workers, int) else None,
            "cluster": self.workers if isinstance(self.workers, str) else None,
            "machine": asdict(this_machine()),
        }


def _report_sweep(sweep: Sweep, plot: Path, json: Path | None, series: _Series) -> None:
    screen(json).print(sweep_table(sweep))
    write_json(json, "sweep", {**sweep_record(sweep), **series.origin()}, series.journals)
    with spared("picture"):
        sweep_picture(plot, sweep)
        screen(json).print(f"picture: {plot}")


def _success(first_seed: int, summary: TrialSummary) -> SuccessRecord:
    return SuccessRecord(
        trials=summary.episodes,
        first_seed=first_seed,
        successes=summary.successes,
        rate=summary.success_rate,
        wilson_95=summary.wilson_95,
    )
