"""`gatort robustness`: success of a policy with cameras as its pictures change."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from pydantic import Field, PositiveInt

from gatort.launch.options import refuse_unused_by_engine, resolve
from gatort.launch.outputs import RUNS, is_stream, make_runs, require_writable, spared
from gatort.launch.progress import show_trials
from gatort.launch.report import screen, write_json
from gatort.launch.robustness_card import card_record, card_table, draw_card
from gatort.policies.loading import SHIPPED_CAMERA_BUNDLE, Bundle, PolicyOptions, load_policy
from gatort.runtime.bundle import Manifest, verify
from gatort.runtime.engines.onnx import Threads
from gatort.runtime.errors import ConfigError
from gatort.runtime.exit_status import ExitStatus
from gatort.runtime.grant import read_grant
from gatort.runtime.machine import this_machine
from gatort.runtime.spec import Seed, Strict
from gatort.sim.tasks import task_of
from gatort.sim.tasks.seeds import TRIAL_SEEDS
from gatort.sim.trials.journal import Journal
from gatort.sim.trials.robustness import PROPERTIES, Curve
from gatort.sim.trials.runner import TrialSetup, require_unseen
from gatort.sim.trials.statistics import TrialSummary, summarise
from gatort.sim.view_randomisation import ViewRandomisation

DEFAULT_PLOT = RUNS / "robustness.png"


class RobustnessOptions(PolicyOptions):
    """A policy whose pictures change, in MuJoCo."""

    bundle: Bundle = SHIPPED_CAMERA_BUNDLE
    """Directory of a policy with cameras: manifest.json, model.safetensors, policy.onnx."""
    threads: Threads = 1
    """CPU threads of one pass."""
    task: str | None = None
    """Task of the simulated arm, for a bundle that names none."""


class _Point(Strict):
    """Ingredients of the file that keeps the finished trials of one point."""

    options: RobustnessOptions
    view: ViewRandomisation


def robustness(
    *,
    options: Annotated[RobustnessOptions | None, Parameter(name="*")] = None,
    episodes: Annotated[int, Field(ge=1, le=len(TRIAL_SEEDS))] = 40,
    seed: Seed = 5000,
    workers: PositiveInt | None = None,
    plot: Path = DEFAULT_PLOT,
    json: Path | None = None,
) -> int:
    """Measure a policy's success as cameras, light, lens and latency leave their nominal values.

    One property changes at a time, over the same trials. The result is a card of curves with 95 %
    Wilson intervals. With --json, finished trials are kept beside the report, and the same command
    continues after an interruption.

    Parameters
    ----------
    episodes
        Number of trials at each value.
    seed
        Layout seed of the first trial; the others follow one by one. Seeds that the policy has
        learned from are refused.
    workers
        Number of processes that share the trials. Default: one per core.
    plot
        Picture of the card (.png, .svg or .pdf).
    json
        JSON file of the card.
    """
    typed = options
    options = resolve(RobustnessOptions, options, None)
    refuse_unused_by_engine(typed, options.engine)
    if plot == DEFAULT_PLOT:
        make_runs()
    require_writable(plot=plot, json=json)
    manifest = verify(options.bundle)
    if not manifest.spec.image_tokens:
        raise ConfigError(
            f"expected a policy with cameras, found {manifest.name!r}, which reads no pictures; "
            "give --bundle policies/stack_camera"
        )
    task_of(manifest, options.task)
    seeds = range(seed, seed + episodes)
    require_unseen(seeds, manifest)

    share = workers or read_grant().processors
    journals: list[Journal] = []
    measure = partial(_measure, options, manifest, seeds, share, json, journals)
    results: dict[ViewRandomisation, TrialSummary] = {}
    for each in PROPERTIES:
        for x in each.values:
            if each.at(x) not in results:  # The nominal view is a point of every curve.
                results[each.at(x)] = measure(
                    f"trials at {each.name} {x:g} {each.unit}:", each.at(x)
                )
    curves = [Curve(each, [results[each.at(x)] for x in each.values]) for each in PROPERTIES]

    screen(json).print(card_table(manifest.name, curves))
    machine = asdict(this_machine())
    origin = {"bundle": manifest.name, "seed": seed, "machine": machine}
    write_json(json, "robustness", {"curves": card_record(curves), **origin}, journals)
    with spared("picture"):
        draw_card(plot, manifest.name, curves)
        screen(json).print(f"card: {plot}")
    return ExitStatus.DONE


def _measure(
    options: RobustnessOptions,
    manifest: Manifest,
    seeds: range,
    workers: int,
    report: Path | None,
    journals: list[Journal],
    noun: str,
    view: ViewRandomisation,
) -> TrialSummary:
    """Run the trials of one point, or continue where they stopped."""
    point = _Point(options=options, view=view)
    kept = report is not None and not is_stream(report)
    journal = Journal(report, manifest, point) if report is not None and kept else None
    journals += [journal] if journal is not None else []
    load = partial(load_policy, options)
    setup = TrialSetup(load_policy=load, task=options.task, view=view)
    return summarise(show_trials(setup, seeds, workers, journal, noun))
