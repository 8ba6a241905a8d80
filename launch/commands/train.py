"""`gatort train`: clone the expert, then learn from the policy's own rollouts (DAgger).

`torchrun -m gatort train …` shares a batch out over processes or GPUs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from shlex import quote
from typing import Annotated

from cyclopts import Parameter

from gatort.export.bundle_writer import write_bundle
from gatort.launch.options import config_text, resolve
from gatort.launch.outputs import require_own_folder
from gatort.launch.progress import policy_source, show_collect
from gatort.launch.refusals import refuse_fields
from gatort.launch.report import progress_bar, screen
from gatort.launch.train_options import TrainOptions
from gatort.policies.dagger import Course, CourseWatch, RollOut, WriteBundle
from gatort.policies.loading import quickest_cpu_engine
from gatort.policies.model import Gato
from gatort.policies.presets import preset as preset_named
from gatort.policies.train import CHECKPOINT, Trainer
from gatort.policies.training_events import EVENTS, TrainingEvents
from gatort.policies.weights import read_model
from gatort.runtime.bundle import MANIFEST_FILE, TrainingRecord, sha256_of
from gatort.runtime.bundle import load_manifest as load_bundle_manifest
from gatort.runtime.demonstrations import DemonstrationManifest, load_manifest, origin_of
from gatort.runtime.errors import ConfigError
from gatort.runtime.exit_status import ExitStatus
from gatort.runtime.outputs import one_writer, removed_if_empty
from gatort.runtime.packages import require_torch
from gatort.runtime.spec import PolicySpec
from gatort.runtime.wording import counted
from gatort.sim.collect import Collection, require_training_seeds
from gatort.sim.randomisation import Randomisation
from gatort.sim.tasks import task_named
from gatort.sim.view_randomisation import TRAINING_VIEW

FIRST_ROUND_SEED = 1_500_000
"""First layout seed of the policy's own rollouts, past the seeds of the demonstrations."""
OF_ROUNDS = ("round_episodes", "first_share", "randomise", "randomise_view", "workers")
"""Options of the rounds alone."""
OF_PICTURES = ("shift_px", "colour_gain", "randomise_view")
"""Options of policies with cameras alone."""
ROUND_SEEDS = 10_000
"""Seeds from one round's first layout to the next round's."""


def train(
    demos: list[Path],
    *,
    out: Path,
    options: Annotated[TrainOptions | None, Parameter(name="*")] = None,
    profile: Path | None = None,
    print_config: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Train a policy on demonstrations and on its own rollouts, and write it as a bundle.

    The same command continues from the last checkpoint.

    Parameters
    ----------
    demos
        Folders of demonstrations.
    out
        Folder for the checkpoint, the rounds and the bundle.
    profile
        Launch profile: a TOML file, or the name of a shipped one. A flag overrides the file.
    print_config
        Print the effective configuration as a launch profile, and end.
    """
    typed = options
    options = resolve(TrainOptions, options, profile)
    if not options.rounds:
        refuse_fields("with --rounds 0", typed, *OF_ROUNDS)
    if print_config:
        print(config_text(options), end="")
        return ExitStatus.DONE
    require_torch("training")  # The exporter would miss its packages only after the first fit.

    if not demos:
        raise ConfigError(
            "expected at least one folder of demonstrations, found none; "
            "make one with `gatort demos`"
        )
    for index in range(options.rounds):
        require_training_seeds(_round_seeds(index, options))
    manifests = [load_manifest(folder) for folder in demos]
    spec = manifests[0].spec
    if not spec.image_tokens:
        refuse_fields("on demonstrations without pictures", typed, *OF_PICTURES)
    task = _task_of(manifests, options)

    start = _read_start(options.start, spec)
    dims = start.dims if start else preset_named(options.preset)
    bodies = _bodies(task, options)
    require_own_folder("--out", out, CHECKPOINT)
    with removed_if_empty(out):
        out.mkdir(parents=True, exist_ok=True)
        # The first of several processes writes.
        alone = nullcontext() if os.environ.get("RANK", "0") != "0" else one_writer(out)
        with alone:
            origin = _origin(demos, options.start)
            trainer = Trainer(spec, dims, options, out, start, bodies, origin)
            _run(trainer, task, demos, options, out)
    return ExitStatus.DONE


def _run(
    trainer: Trainer, task: str | None, demos: Sequence[Path], options: TrainOptions, out: Path
) -> None:
    """Train, and say how it goes on afterwards."""
    events = TrainingEvents(out / EVENTS)
    course = Course(
        trainer=trainer,
        config=options,
        directory=out,
        roll_out=_roll_out(task, trainer.spec, options),
        write_bundle=_write_bundle(options.preset, task),
        start=load_bundle_manifest(options.start).training if options.start else None,
        watch=_Screen(events),
    )
    if trainer.step > options.steps:
        raise ConfigError(
            f"--steps {options.steps}: expected at least {trainer.step}, the steps of "
            f"{out / CHECKPOINT}; give more, or another --out"
        )
    if course.finished:
        screen().print(
            f"nothing to do: {course.bundle} has learned all {counted(options.steps, 'step')}; "
            "give more --steps to go on, or another --out for other settings",
            soft_wrap=True,
        )
        return
    try:
        course.run(demos)
    except KeyboardInterrupt:
        screen(stderr=True).print(_stopped(trainer, out), soft_wrap=True)
        raise
    finally:
        events.close()
    if trainer.rank == 0:
        screen().print(
            f"bundle: {course.bundle}; try it: gatort trials --bundle {quote(str(course.bundle))}",
            soft_wrap=True,
        )


def _stopped(trainer: Trainer, out: Path) -> str:
    """Return the sentence on a training that Ctrl-C stopped."""
    if not trainer.saved_step:
        return "stopped before the first step; give the command again"
    return (
        f"stopped at step {trainer.saved_step}, kept in {out / CHECKPOINT}; the same command goes "
        "on from there"
    )


def _origin(demos: Sequence[Path], start: Path | None) -> list[str]:
    """Return a line for each folder of demonstrations, and one for the weights at the start."""
    lines = [origin_of(folder) for folder in demos]
    if start is not None:
        lines.append(f"the start bundle, SHA-256 {sha256_of(start / MANIFEST_FILE)[:12]}")
    return lines


def _task_of(manifests: list[DemonstrationManifest], options: TrainOptions) -> str | None:
    """Return the task of the demonstrations.

    Raises:
        ConfigError: they name several tasks, or no task although there are rounds to drive.
    """
    tasks = {manifest.task for manifest in manifests if manifest.task is not None}
    if options.task is not None and tasks - {options.task}:
        raise ConfigError(
            f"--task {options.task}: the demonstrations are of {', '.join(sorted(tasks))}; "
            "leave it out"
        )
    tasks |= {options.task} if options.task is not None else set()
    if len(tasks) > 1:
        raise ConfigError(f"expected demonstrations of one task, found {', '.join(sorted(tasks))}")
    if not tasks and options.rounds:
        raise ConfigError(
            "the demonstrations name no task for the rollouts: give one with --task, or --rounds 0"
        )
    return next(iter(tasks), None)


def _bodies(task: str | None, options: TrainOptions) -> int:
    """Return the number of bodies whose places the second loss reads.

    Raises:
        ConfigError: there is no task whose bodies could be read.
    """
    if not options.locate:
        return 0
    if task is None:
        raise ConfigError("--locate needs the bodies of a task: name it with --task")
    scene = task_named(task).scene
    return len(scene.cubes) + len(scene.targets)


def _read_start(bundle: Path | None, spec: PolicySpec) -> Gato | None:
    """Read the model to start from.

    Raises:
        BundleError: the bundle is incomplete or changed.
        ConfigError: the bundle's specification is not that of the demonstrations.
    """
    if bundle is None:
        return None
    model = read_model(bundle)
    if model.spec != spec:
        raise ConfigError(
            f"--start {bundle}: its specification differs from that of the demonstrations"
        )
    return model


def _round_seeds(index: int, options: TrainOptions) -> range:
    first = FIRST_ROUND_SEED + index * ROUND_SEEDS
    return range(first, first + options.round_episodes)


def _roll_out(task: str | None, spec: PolicySpec, options: TrainOptions) -> RollOut:
    def roll_out(index: int, bundle: Path, directory: Path) -> DemonstrationManifest:
        collection = Collection(
            task=task or "",  # There are no rounds without a task.
            spec=spec,
            directory=directory,
            first_seed=_round_seeds(index, options)[0],
            episodes=options.round_episodes,
            policy=policy_source(bundle, quickest_cpu_engine()),
            randomisation=Randomisation() if options.randomise else None,
            view_randomisation=TRAINING_VIEW if options.randomise_view else None,
        )
        return show_collect(collection, options.workers)

    return roll_out


def _write_bundle(name: str, task: str | None) -> WriteBundle:
    def write(directory: Path, model: Gato, training: TrainingRecord) -> None:
        write_bundle(directory, name, model, training, task=task)

    return write


class _Screen(CourseWatch):
    """Shows a course on standard error, and writes its figures as events."""

    def __init__(self, events: TrainingEvents) -> None:
        self._events = events

    @contextmanager
    def fitting(self, course: Course) -> Iterator[Callable[[float], None]]:
        trainer = course.trainer
        with progress_bar("steps") as bars:
            bar = bars.add_task("", total=course.config.steps, completed=trainer.step)

            def show(loss: float) -> None:
                text = f"loss {loss:.3f}, {trainer.tokens_per_s:,.0f} tokens/s{_rollouts(course)}"
                bars.update(bar, completed=trainer.step, description=text)
                figures = {"loss": loss, "tokens_per_s": trainer.tokens_per_s}
                self._events.add(trainer.step, trainer.saved_step, **figures)

            try:
                yield show
            finally:
                self._events.flush(trainer.saved_step)

    def fitted(self, course: Course, validation_loss: float) -> None:
        step = course.trainer.step
        screen(stderr=True).print(
            f"step {step}: validation loss {validation_loss:.3f}{_rollouts(course)}"
        )
        self._events.add(step, course.trainer.saved_step, validation_loss=validation_loss)

    def rolled_out(self, course: Course, index: int, rollouts: DemonstrationManifest) -> None:
        screen(stderr=True).print(
            f"round {index}: {rollouts.successes} of "
            f"{counted(rollouts.episodes, 'rollout')} succeeded"
        )
        share = rollouts.successes / rollouts.episodes
        step = course.config.steps_until(index)
        self._events.add(step, course.trainer.saved_step, rollout_success=share)


def _rollouts(course: Course) -> str:
    rollouts = course.rollouts
    return f", rollouts {rollouts.successes / rollouts.episodes:.0%}" if rollouts else ""
