"""`gatort train`: clone the expert, then learn from the policy's own rollouts (DAgger).

`torchrun -m gatort.launch.cli train …` shares a batch out over processes or GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from pydantic import PositiveInt

from gatort.export.bundle_writer import write_bundle
from gatort.launch.options import resolve
from gatort.launch.progress import policy_source, show_collect
from gatort.launch.report import progress_bar, screen
from gatort.policies.dagger import Course, CourseWatch, RollOut, WriteBundle
from gatort.policies.loading import quickest_cpu_engine
from gatort.policies.model import Gato
from gatort.policies.presets import preset as preset_named
from gatort.policies.recipe import CourseConfig
from gatort.policies.train import Trainer
from gatort.policies.weights import read_model
from gatort.runtime.bundle import TrainingRecord
from gatort.runtime.bundle import load_manifest as load_bundle_manifest
from gatort.runtime.demonstrations import DemonstrationManifest, load_manifest
from gatort.runtime.errors import ConfigError
from gatort.runtime.grant import read_grant
from gatort.runtime.packages import require_torch
from gatort.runtime.spec import PolicySpec
from gatort.sim.collect import Collection, require_training_seeds
from gatort.sim.randomisation import Randomisation
from gatort.sim.tasks import task_named
from gatort.sim.view_randomisation import TRAINING_VIEW

FIRST_ROUND_SEED = 1_500_000
"""First layout seed of the policy's own rollouts, past the seeds of the demonstrations."""
ROUND_SEEDS = 10_000
"""Seeds from one round's first layout to the next round's."""


class TrainOptions(CourseConfig):
    """One training run with its rounds of DAgger."""

    preset: str = "stack"
    """Size of the model: tiny, stack, camera, gato-79m, gato-364m or gato-1.2b."""
    start: Path | None = None
    """Bundle whose weights training starts from, whatever the preset (fine-tuning). Default: random
    weights."""
    task: str | None = None
    """Task of the simulated arm, for demonstrations that name none."""
    workers: PositiveInt = read_grant().processors
    """Number of processes that share the rollouts."""


def train(
    demos: Annotated[list[Path], Parameter(consume_multiple=True)],
    *,
    out: Path,
    options: Annotated[TrainOptions | None, Parameter(name="*")] = None,
    profile: Path | None = None,
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
        TOML file with any of these options; a flag overrides the file.
    """
    options = resolve(TrainOptions, options, profile)
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
    task = _task_of(manifests, options)

    start = _read_start(options.start, spec)
    dims = start.dims if start else preset_named(options.preset)
    course = Course(
        trainer=Trainer(spec, dims, options, out, start, _bodies(task, options)),
        config=options,
        directory=out,
        roll_out=_roll_out(task, spec, options),
        write_bundle=_write_bundle(options.preset, task),
        start=load_bundle_manifest(options.start).training if options.start else None,
        watch=_Screen(),
    )
    course.run(demos)
    return 0


def _task_of(manifests: list[DemonstrationManifest], options: TrainOptions) -> str | None:
    """Return the task of the demonstrations.

    Raises:
        ConfigError: they name several tasks, or no task although there are rounds to drive.
    """
    tasks = {manifest.task for manifest in manifests if manifest.task is not None}
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
    """Shows a course on standard error."""

    @contextmanager
    def fitting(self, course: Course) -> Iterator[Callable[[float], None]]:
        trainer = course.trainer
        with progress_bar("steps") as bars:
            bar = bars.add_task("", total=course.config.steps, completed=trainer.step)

            def show(loss: float) -> None:
                text = f"loss {loss:.3f}, {trainer.tokens_per_s:,.0f} tokens/s{_rollouts(course)}"
                bars.update(bar, completed=trainer.step, description=text)

            yield show

    def fitted(self, course: Course, validation_loss: float) -> None:
        screen(stderr=True).print(
            f"step {course.trainer.step}: validation loss {validation_loss:.3f}{_rollouts(course)}"
        )

    def rolled_out(self, index: int, rollouts: DemonstrationManifest) -> None:
        screen(stderr=True).print(
            f"round {index}: {rollouts.successes} of {rollouts.episodes} rollouts succeeded"
        )


def _rollouts(course: Course) -> str:
    rollouts = course.rollouts
    return f", rollouts {rollouts.successes / rollouts.episodes:.0%}" if rollouts else ""
