"""`gatort train`: clone the expert, then learn from the policy's own rollouts (DAgger).

Each round drives with the policy as it is, labels every tick with what the expert would have done, and trains on all
rounds so far (Ross et al. 2011, arXiv 1011.0686). `torchrun -m gatort.launch.cli train …` shares a batch out over
processes or GPUs.
"""

from __future__ import annotations

from os import sched_getaffinity
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from pydantic import Field, NonNegativeInt, PositiveInt

from gatort.launch.collect import (
    Collection,
    collect,
)
from gatort.launch.options import resolve
from gatort.launch.report import (
    progress_bar,
    screen,
)
from gatort.policies.demos import (
    MANIFEST,
    DemonstrationManifest,
    join,
    load_episodes,
    load_manifest,
    tokenize,
)
from gatort.policies.presets import preset as preset_named
from gatort.policies.recipe import TrainConfig
from gatort.runtime.bundle import TrainingRecord
from gatort.runtime.bundle import load_manifest as load_bundle_manifest
from gatort.runtime.errors import (
    ConfigError,
    DemonstrationError,
)
from gatort.runtime.packages import require_torch
from gatort.sim.randomisation import Randomisation

from .demos import require_training_seeds

if TYPE_CHECKING:
    from gatort.policies.demos import Frames
    from gatort.policies.model import Gato
    from gatort.policies.train import Trainer
    from gatort.runtime.spec import PolicySpec

HELD_OUT = 20
"""One episode in so many of the demonstrations gives the validation loss."""
FIRST_ROUND_SEED = 1_500_000
"""Layouts of the policy's own rollouts start here, past those of the demonstrations."""


class TrainOptions(TrainConfig):
    """One training run with its rounds of DAgger."""

    preset: str = "stack"
    """Model size."""
    start: Path | None = None
    """Bundle whose weights training starts from instead of random ones, whatever the preset: fine-tuning."""
    rounds: NonNegativeInt = 3
    """Rounds of the policy's own rollouts after the first fit; 0 is plain cloning."""
    round_episodes: PositiveInt = 120
    """Rollouts in each round."""
    first_share: float = Field(default=0.5, gt=0, le=1)
    """Share of the steps that comes before the first round; the rounds share out the rest."""
    randomise: bool = False
    """Vary arm, blocks, delay and sensors from rollout to rollout, over the ranges in sim/randomisation.py."""
    workers: PositiveInt = len(sched_getaffinity(0))
    """Processes that share the rollouts."""


def train(
    demos: Annotated[list[Path], Parameter(consume_multiple=True)],
    *,
    out: Path,
    options: Annotated[TrainOptions | None, Parameter(name="*")] = None,
    profile: Path | None = None,
) -> int:
    """Train a policy on demonstrations and on its own rollouts, and write it as a bundle.

    The same command goes on from the last checkpoint.

    Parameters
    ----------
    demos
        Folders of demonstrations.
    out
        Folder for the checkpoint, the rounds and the bundle.
    profile
        TOML file with any of these options.
    """
    options = resolve(TrainOptions, options, profile)
    require_torch("training")
    from gatort.policies.train import Trainer

    manifests = [load_manifest(folder) for folder in demos]
    if not manifests:
        raise ConfigError(
            "expected at least one folder of demonstrations, found none; make one with `gatort demos`"
        )
    spec = manifests[0].spec
    start = _read_start(options.start, spec)
    trainer = Trainer(
        spec, start.dims if start else preset_named(options.preset), options, out, start
    )
    course = Course(trainer, options, out)
    course.add(demos, hold_out=True)
    for done in range(options.rounds + 1):
        course.fit(until_step=course.steps_until(done))
        if trainer.step == course.steps_until(
            done
        ):  # Not so while catching up with a run that was stopped later.
            course.write_bundle(manifests)
        if done < options.rounds:
            manifests.append(course.roll_out(done))
    return 0


def _read_start(bundle: Path | None, spec: PolicySpec) -> Gato | None:
    """The model to start from.

    Raises:
        BundleError: the bundle is incomplete or changed.
        ConfigError: it has another specification than the demonstrations.
    """
    if bundle is None:
        return None
    from gatort.policies.weights import read_model

    model = read_model(bundle)
    if model.spec != spec:
        raise ConfigError(
            f"--start {bundle}: its specification differs from that of the demonstrations"
        )
    return model


class Course:
    """A trainer and all that it has learned from so far."""

    def __init__(self, trainer: Trainer, options: TrainOptions, out: Path) -> None:
        self.trainer, self.options, self.out = trainer, options, out
        self.bundle = out / "bundle"
        self._start = load_bundle_manifest(options.start).training if options.start else None
        self._learned: list[Frames] = []
        self._held_out: Frames | None = None
        self._successes = ""

    def add(self, folders: list[Path], hold_out: bool = False) -> None:
        """Learn from these folders too."""
        spec = self.trainer.spec
        episodes = [episode for folder in folders for episode in load_episodes(folder, spec)]
        if hold_out:
            if len(episodes) < 2:
                raise DemonstrationError(
                    "expected 2 episodes or more, one of them to validate on, found 1"
                )
            self._held_out = tokenize(episodes[::HELD_OUT], spec)
            episodes = [episode for index, episode in enumerate(episodes) if index % HELD_OUT]
        self._learned.append(tokenize(episodes, spec))

    def steps_until(self, done: int) -> int:
        """Step count at which the fit that follows `done` rounds ends."""
        first = round(self.options.steps * self.options.first_share)
        if done == self.options.rounds:
            return self.options.steps
        return first + (self.options.steps - first) * done // self.options.rounds

    def fit(self, until_step: int) -> None:
        """Train on everything added so far, with a progress bar."""
        trainer = self.trainer
        with progress_bar("steps", shown=trainer.rank == 0) as progress:
            bar = progress.add_task("", total=self.options.steps, completed=trainer.step)

            def show(loss: float) -> None:
                text = f"loss {loss:.3f}, {trainer.tokens_per_s:,.0f} tokens/s{self._successes}"
                progress.update(bar, completed=trainer.step, description=text)

            trainer.fit(join(self._learned), until_step, show)
        if trainer.rank == 0 and self._held_out is not None:
            held_out = trainer.validation_loss(self._held_out)
            screen(stderr=True).print(
                f"step {trainer.step}: validation loss {held_out:.3f}{self._successes}"
            )

    def roll_out(self, index: int) -> DemonstrationManifest:
        """Drive with the policy as it is on fresh layouts; what the expert would have done is learned from."""
        folder = self.out / f"round{index}"
        first = FIRST_ROUND_SEED + index * 10_000
        require_training_seeds(range(first, first + self.options.round_episodes))
        if self.trainer.rank == 0 and not (folder / MANIFEST).exists():
            collect(
                Collection(
                    spec=self.trainer.spec,
                    directory=folder,
                    first_seed=first,
                    episodes=self.options.round_episodes,
                    bundle=self.bundle,
                    randomisation=Randomisation() if self.options.randomise else None,
                ),
                self.options.workers,
            )
        self.trainer.wait_for_all()
        manifest = load_manifest(folder)
        self._successes = f", rollouts {manifest.successes / manifest.episodes:.0%}"
        if self.trainer.rank == 0:
            screen(stderr=True).print(
                f"round {index}: {manifest.successes} of {manifest.episodes} rollouts succeeded"
            )
        self.add([folder])
        return manifest

    def _seeds(self, manifests: list[DemonstrationManifest]) -> tuple[tuple[int, int], ...]:
        start = self._start.training_seeds if self._start else ()
        return tuple(sorted({*start, *((m.first_seed, m.last_seed) for m in manifests)}))

    def _recipe(self) -> str:
        rounds, before = len(self._learned) - 1, self._start
        start = f"{before.recipe} ({before.steps} steps); then " if before else ""
        return (
            f"{start}behavioural cloning and {rounds} round{'s' * (rounds != 1)} of DAgger on the policy's own "
            f"rollouts; labels spread over {self.options.label_std_bins} bins, action tokens hidden in "
            f"{self.options.forget_actions:.0%} of the frames"
            + "; rollouts in randomised physics" * self.options.randomise
            + "; weights on the int4 grid" * self.options.int4_grid
        )

    def write_bundle(self, manifests: list[DemonstrationManifest]) -> None:
        """Export the policy as it is, unless that has been done and perhaps tried since."""
        from gatort.export.bundle_writer import write_bundle

        trainer = self.trainer
        written = load_bundle_manifest(self.bundle).training.steps if self.bundle.exists() else None
        if trainer.rank == 0 and written != trainer.step:
            write_bundle(
                self.bundle,
                name=self.options.preset,
                model=trainer.policy(),
                training=TrainingRecord(
                    recipe=self._recipe(),
                    demonstrations=f"{sum(m.episodes for m in manifests)} episodes of "
                    f"{sum(m.ticks for m in manifests)} ticks, each labelled by the scripted expert",
                    training_seeds=self._seeds(manifests),
                    validation_seeds=self._start.validation_seeds if self._start else (),
                    parameters=trainer.model.parameters_total,
                    steps=trainer.step,
                ),
            )
        trainer.wait_for_all()
