"""A course of DAgger: rounds, the bundle after each fit, and continuation after an interruption."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gatort.policies.dagger import Course
from gatort.policies.model import Gato
from gatort.policies.presets import preset
from gatort.policies.recipe import CourseConfig
from gatort.policies.train import Trainer
from gatort.runtime.bundle import Manifest, TrainingRecord
from gatort.runtime.bundle import write_manifest as write_bundle_manifest
from gatort.runtime.demonstrations import DemonstrationManifest, write_manifest
from gatort.runtime.episode import Episode
from gatort.runtime.errors import DemonstrationError
from gatort.runtime.spec import PolicySpec

CONFIG = CourseConfig(
    steps=4,
    batch_sequences=2,
    sequence_frames=4,
    warmup_steps=1,
    rounds=2,
    round_episodes=1,
    first_share=0.5,
)
EPISODE_TICKS = 6
ROUND_SEED = 1_500_000


def store(directory: Path, spec: PolicySpec, first_seed: int, count: int) -> DemonstrationManifest:
    """Store random episodes of one folder, none of which succeeded."""
    directory.mkdir(parents=True)
    low = [actuator.low for actuator in spec.actuators]
    high = [actuator.high for actuator in spec.actuators]
    for seed in range(first_seed, first_seed + count):
        rng = np.random.default_rng(seed)
        observations = tuple(
            rng.uniform(-1, 1, (EPISODE_TICKS, *key.shape)).astype(key.dtype)
            for key in spec.observations
        )
        actions = rng.uniform(low, high, (EPISODE_TICKS, len(low))).astype(np.float32)
        Episode(seed, False, observations, actions, actions).save(directory / f"{seed}.npz", spec)
    manifest = DemonstrationManifest(
        spec=spec,
        driver="random",
        seconds=1.0,
        first_seed=first_seed,
        last_seed=first_seed + count - 1,
        episodes=count,
        successes=0,
        ticks=count * EPISODE_TICKS,
    )
    write_manifest(directory, manifest)
    return manifest


class Bench:
    """A course whose rollouts are random episodes and whose bundles hold only a manifest."""

    def __init__(self, spec: PolicySpec, directory: Path) -> None:
        self.spec = spec
        self.directory = directory
        self.demonstrations = directory / "demos"
        self.rounds: list[int] = []
        """Rounds whose rollouts were made."""
        self.written: list[TrainingRecord] = []
        """Records of the bundles that were written."""
        store(self.demonstrations, spec, 1_000_000, 2)

    def course(self, config: CourseConfig = CONFIG, start: TrainingRecord | None = None) -> Course:
        out = self.directory / "out"
        trainer = Trainer(self.spec, preset("tiny"), config, out)
        return Course(trainer, config, out, self.roll_out, self.write_bundle, start)

    def roll_out(self, index: int, bundle: Path, directory: Path) -> DemonstrationManifest:
        assert bundle.exists()
        self.rounds.append(index)
        return store(directory, self.spec, ROUND_SEED + index, 1)

    def write_bundle(self, directory: Path, model: Gato, training: TrainingRecord) -> None:
        self.written.append(training)
        directory.mkdir(exist_ok=True)
        manifest = Manifest(
            name="tiny", spec=self.spec, model=model.dims, files={}, training=training
        )
        write_bundle_manifest(directory, manifest)


@pytest.fixture
def bench(spec: PolicySpec, tmp_path: Path) -> Bench:
    return Bench(spec, tmp_path)


def test_the_rounds_share_the_steps_after_the_first_fit_equally() -> None:
    config = CONFIG.model_copy(update={"steps": 101, "rounds": 3, "first_share": 0.4})
    assert [config.steps_until(done) for done in range(4)] == [40, 60, 80, 101]


def test_a_course_writes_a_bundle_after_each_fit_and_learns_from_every_round(
    bench: Bench,
) -> None:
    bench.course().run([bench.demonstrations])
    assert bench.rounds == [0, 1]
    assert [record.steps for record in bench.written] == [2, 3, 4]
    last = bench.written[-1]
    assert last.training_seeds == (
        (1_000_000, 1_000_001),
        (ROUND_SEED, ROUND_SEED),
        (ROUND_SEED + 1, ROUND_SEED + 1),
    )
    assert last.demonstrations.startswith("4 episodes of 24 ticks")
    assert last.recipe.startswith("behavioural cloning and 2 rounds of DAgger")


def test_a_finished_course_does_nothing_again(bench: Bench) -> None:
    bench.course().run([bench.demonstrations])
    bench.rounds.clear()
    bench.written.clear()
    bench.course().run([bench.demonstrations])
    assert (bench.rounds, bench.written) == ([], [])


def test_a_course_that_was_stopped_in_its_second_round_continues_there(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(index: int, bundle: Path, directory: Path) -> DemonstrationManifest:
        if index == 1:
            raise KeyboardInterrupt
        return Bench.roll_out(bench, index, bundle, directory)

    monkeypatch.setattr(bench, "roll_out", stop)
    with pytest.raises(KeyboardInterrupt):
        bench.course().run([bench.demonstrations])
    assert [record.steps for record in bench.written] == [2, 3]

    monkeypatch.undo()
    bench.course().run([bench.demonstrations])
    assert bench.rounds == [0, 1]
    assert [record.steps for record in bench.written] == [2, 3, 4]


def test_fine_tuning_keeps_the_history_of_the_policy_that_it_starts_from(bench: Bench) -> None:
    start = TrainingRecord(
        recipe="cloning",
        demonstrations="some",
        training_seeds=((1_200_000, 1_200_009),),
        validation_seeds=((900_000, 900_009),),
        parameters=1,
        steps=7,
    )
    bench.course(CONFIG.model_copy(update={"rounds": 0}), start).run([bench.demonstrations])
    (record,) = bench.written
    assert record.recipe.startswith("cloning (7 steps); then behavioural cloning and 0 rounds")
    assert record.training_seeds == ((1_000_000, 1_000_001), (1_200_000, 1_200_009))
    assert record.validation_seeds == start.validation_seeds


def test_a_single_demonstration_is_refused(bench: Bench, tmp_path: Path) -> None:
    store(tmp_path / "one", bench.spec, 1_000_000, 1)
    with pytest.raises(DemonstrationError, match="expected 2 episodes or more"):
        bench.course().run([tmp_path / "one"])
