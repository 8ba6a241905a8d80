"""Behavioural cloning followed by rounds of DAgger (Ross et al. 2011, arXiv 1011.0686).

Each round lets the policy drive, labels every tick with the expert's action, and trains on all
rounds so far. Every part continues after an interruption: the trainer from its checkpoint, a round
from its folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gatort.runtime.bundle import TrainingRecord
from gatort.runtime.bundle import load_manifest as load_bundle_manifest
from gatort.runtime.demonstrations import (
    MANIFEST,
    PERSON,
    DemonstrationManifest,
    load_episodes,
    load_manifest,
)
from gatort.runtime.errors import DemonstrationError
from gatort.runtime.wording import counted

from .demos import Frames, join, tokenize
from .model import Gato
from .recipe import CourseConfig
from .train import Trainer

HELD_OUT = 20
"""One demonstration in this many gives the validation loss and is not learned from."""

RollOut = Callable[[int, Path, Path], DemonstrationManifest]
"""Function of (index, bundle, directory) that makes a round's rollouts with the bundle's policy."""
WriteBundle = Callable[[Path, Gato, TrainingRecord], None]
"""Function of (directory, model, training) that writes a bundle."""


class CourseWatch:
    """Callbacks of a course. These do nothing."""

    @contextmanager
    def fitting(self, course: Course) -> Iterator[Callable[[float], None]]:  # noqa: ARG002
        """Surround one fit. The callback gets the loss of each step."""
        yield lambda _: None

    def fitted(self, course: Course, validation_loss: float) -> None:
        """Show the loss on held-out episodes at the end of a fit."""

    def rolled_out(self, course: Course, index: int, rollouts: DemonstrationManifest) -> None:
        """Show the result of a round."""


class Course:
    """A trainer and everything that it has learned from so far.

    Args:
        trainer: learns; its step count says how far the course is.
        config: rounds and steps.
        directory: folder for the rounds and the bundle.
        roll_out: makes a round's rollouts.
        write_bundle: writes the policy, which the next round then drives with.
        start: record of the policy whose weights the trainer started from, if it did.
        watch: callbacks of the first process.
    """

    def __init__(
        self,
        trainer: Trainer,
        config: CourseConfig,
        directory: Path,
        roll_out: RollOut,
        write_bundle: WriteBundle,
        start: TrainingRecord | None = None,
        watch: CourseWatch | None = None,
    ) -> None:
        self.trainer = trainer
        self.config = config
        self.directory = directory
        self.bundle = directory / "bundle"
        self.rollouts: DemonstrationManifest | None = None
        """Manifest of the last round, or `None` before the first."""
        self._roll_out = roll_out
        self._write_bundle = write_bundle
        self._start = start
        # Only the first of several processes shows anything.
        self._watch = watch if watch is not None and trainer.rank == 0 else CourseWatch()

        self._manifests: list[DemonstrationManifest] = []
        self._learned: list[Frames] = []
        self._held_out: Frames | None = None

    @property
    def finished(self) -> bool:
        """True if the bundle of the last step is written."""
        return self.trainer.step == self.config.steps == self._written_steps

    @property
    def _written_steps(self) -> int | None:
        """Steps of the bundle's policy, or `None` without a bundle."""
        return load_bundle_manifest(self.bundle).training.steps if self.bundle.exists() else None

    def run(self, demonstrations: Sequence[Path]) -> None:
        """Learn from demonstrations, then from each round, and write the bundle after each fit.

        Raises:
            DemonstrationError: a folder does not fit the specification, or holds too few episodes.
        """
        self._add_demonstrations(demonstrations)
        for done in range(self.config.rounds + 1):
            until_step = self.config.steps_until(done)
            self._fit(until_step)
            # A run that was stopped in a later round is already past this step.
            if self.trainer.step == until_step:
                self._write()
            if done < self.config.rounds:
                self._add_round(done)

    def _add_demonstrations(self, folders: Sequence[Path]) -> None:
        spec = self.trainer.spec
        episodes = [episode for folder in folders for episode in load_episodes(folder, spec)]
        if len(episodes) < 2:
            raise DemonstrationError(
                f"expected 2 episodes or more, one of them to validate on, found {len(episodes)}"
            )

        learned = [episode for index, episode in enumerate(episodes) if index % HELD_OUT]
        self._held_out = tokenize(episodes[::HELD_OUT], spec)
        self._learned.append(tokenize(learned, spec))
        self._manifests += [load_manifest(folder) for folder in folders]

    def _fit(self, until_step: int) -> None:
        with self._watch.fitting(self) as on_step:
            self.trainer.fit(join(self._learned), until_step, on_step)
        if self.trainer.rank == 0 and self._held_out is not None:
            self._watch.fitted(self, self.trainer.validation_loss(self._held_out))

    def _add_round(self, index: int) -> None:
        """Make a round's rollouts unless they exist, and learn from them too."""
        folder = self.directory / f"round{index}"
        if self.trainer.rank == 0 and not (folder / MANIFEST).exists():
            self._roll_out(index, self.bundle, folder)
        self.trainer.wait_for_all()

        self.rollouts = load_manifest(folder)
        self._manifests.append(self.rollouts)
        self._watch.rolled_out(self, index, self.rollouts)
        self._learned.append(tokenize(load_episodes(folder, self.trainer.spec), self.trainer.spec))

    def _write(self) -> None:
        """Write the bundle, unless this step's bundle exists and may have been tried already."""
        trainer = self.trainer
        if trainer.rank == 0 and self._written_steps != trainer.step:
            self._write_bundle(self.bundle, trainer.policy(), self._record())
        trainer.wait_for_all()

    def _record(self) -> TrainingRecord:
        seeds = {(each.first_seed, each.last_seed) for each in self._manifests}
        episodes = sum(each.episodes for each in self._manifests)
        ticks = sum(each.ticks for each in self._manifests)
        return TrainingRecord(
            recipe=self._recipe(),
            demonstrations=f"{counted(episodes, 'episode')} of {counted(ticks, 'tick')}, "
            f"each labelled by {self._teachers()}",
            training_seeds=tuple(
                sorted(seeds.union(self._start.training_seeds if self._start else ()))
            ),
            validation_seeds=self._start.validation_seeds if self._start else (),
            parameters=self.trainer.model.parameters_total,
            steps=self.trainer.step,
        )

    def _teachers(self) -> str:
        drivers = [each.driver for each in self._manifests]
        people = [driver for driver in drivers if driver.startswith(PERSON)]
        expert = ["the scripted expert"] if len(people) < len(drivers) else []
        return " or by ".join((*expert, *dict.fromkeys(people)))

    def _recipe(self) -> str:
        config, start = self.config, self._start
        rounds = len(self._learned) - 1
        rolled = counted(rounds, "round")
        hidden = f"{config.forget_actions:.0%}"
        before = (
            f"{start.recipe} ({counted(start.steps, 'step')}); then " if start is not None else ""
        )
        spread = f"labels spread over {config.label_std_bins} bins"
        parts = [
            f"{before}behavioural cloning and {rolled} of DAgger on the policy's own rollouts",
            f"{spread}, action tokens hidden in {hidden} of the frames",
        ]
        if config.randomise:
            parts.append("rollouts in randomised physics")
        if config.randomise_view:
            parts.append("rollouts under a randomised view")
        if config.locate:
            parts.append(f"a second loss of weight {config.locate} on the bodies' places")
        if config.action_noise_bins:
            parts.append(f"noise of {config.action_noise_bins:g} bins on past actions")
        if config.consistency:
            parts.append(f"a loss of weight {config.consistency:g} on the answer's change under it")
        if config.bin_features:
            parts.append(f"bins of {config.bin_features} smooth features")
        if config.int4_grid:
            parts.append("weights on the int4 grid")
        return "; ".join(parts)
