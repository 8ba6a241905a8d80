"""Ablate the training of the policy with cameras: leave out one part at a time, measure the loss.

    python benchmarks/camera_ablation.py runs/ablation --start runs/nominal/bundle

Every row learns from demonstrations of the same layouts, for the same number of steps, from the
same weights. It is judged under the whole look: by the loss on layouts that no row learned from,
and by trials on validation seeds. An interrupted run continues with the first row that is not done.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from gatort.export.bundle_writer import write_bundle
from gatort.launch.progress import show_collect, show_trials
from gatort.launch.trial_report import trial_record
from gatort.policies.demos import Frames, tokenize
from gatort.policies.loading import PolicyOptions, load_policy, quickest_cpu_engine
from gatort.policies.presets import preset
from gatort.policies.recipe import TrainConfig
from gatort.policies.train import Trainer
from gatort.policies.weights import read_model
from gatort.runtime.bundle import TrainingRecord
from gatort.runtime.demonstrations import load_episodes
from gatort.runtime.grant import read_grant
from gatort.sim.collect import Collection
from gatort.sim.tasks.seeds import TRAINING_SEEDS, VALIDATION_SEEDS
from gatort.sim.tasks.stacking.specifications import CAMERA_SPEC
from gatort.sim.trials.runner import TrialSetup
from gatort.sim.trials.statistics import summarise
from gatort.sim.view_randomisation import NOMINAL_VIEW, TRAINING_VIEW, ViewRandomisation

FIRST_SEED: Final = TRAINING_SEEDS.start + 800_000
HELD_OUT_SEED: Final = FIRST_SEED + 10_000
TRIAL_SEED: Final = VALIDATION_SEEDS.start + 600
HELD_OUT_EPISODES: Final = 24
NOISE_NM: Final = (0.0, 1.0, 2.0)
TRAINING: Final = TrainConfig(
    steps=200, batch_sequences=16, learning_rate=3e-4, warmup_steps=20, locate=0.5, shift_px=2,
    colour_gain=0.1,
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One training."""

    name: str
    view: ViewRandomisation = TRAINING_VIEW
    config: TrainConfig = TRAINING


def _without(**fields: object) -> ViewRandomisation:
    return TRAINING_VIEW.model_copy(update=fields)


ROWS: Final = (
    Row("everything"),
    Row("nominal pictures only", NOMINAL_VIEW),
    Row(
        "without displaced cameras",
        _without(
            camera_shift_m=(0.0, 0.0), camera_turn_deg=(0.0, 0.0), camera_wider_deg=(0.0, 0.0),
            bracket_m=(0.0, 0.0),
        ),
    ),
    Row(
        "without light and lens",
        _without(
            lamps=False, light=(1.0, 1.0), exposure=(1.0, 1.0), white_balance=0.0,
            gamma=(1.0, 1.0), blur_px=(0.0, 0.0), noise=(0.0, 0.0), jpeg_quality=None,
        ),
    ),
    Row(
        "without colours, textures and things beside the table",
        _without(surfaces=False, block_colours=0.0, clutter=False),
    ),
    Row("without the second loss", config=TRAINING.model_copy(update={"locate": 0.0})),
    Row("without latency and outages", _without(latency_ms=(0.0, 0.0), outages_per_tick=0.0)),
    Row(
        "without shifts and changes of colour in a batch",
        config=TRAINING.model_copy(update={"shift_px": 0, "colour_gain": 0.0}),
    ),
)  # fmt: skip


def main() -> None:
    """Train and judge every row, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--start", type=Path, help="bundle whose weights every row starts from")
    parser.add_argument("--episodes", type=int, default=100, help="demonstrations of a row")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--workers", type=int, default=read_grant().processors)
    args = parser.parse_args()

    held_out = _frames(args.out, TRAINING_VIEW, HELD_OUT_SEED, HELD_OUT_EPISODES, args.workers)
    results = []
    for row in ROWS:
        report = args.out / f"{row.name.replace(' ', '_').replace(',', '')}.json"
        if not report.exists():
            frames = _frames(args.out, row.view, FIRST_SEED, args.episodes, args.workers)
            trained = _train(row, frames, args.out / report.stem, args.start)
            result = {
                "row": row.name,
                "loss": trained.validation_loss(held_out),
                "trials": _judge(trained.directory / "bundle", args.trials, args.workers),
            }
            report.write_text(json.dumps(result, indent=2) + "\n")
        results.append(json.loads(report.read_text()))

    for result in results:
        trials = result["trials"]
        low, high = trials["wilson_95"]
        print(
            f"| {result['row']} | {result['loss']:.3f} "
            f"| {trials['successes']} of {trials['episodes']} ({low:.0%} – {high:.0%}) |"
        )


def _frames(
    out: Path, view: ViewRandomisation, first_seed: int, episodes: int, workers: int
) -> Frames:
    """Return demonstrations under a view, which are made once."""
    number = next(index for index, row in enumerate(ROWS) if row.view == view)
    folder = out / f"demonstrations{number}_{first_seed}"
    collection = Collection(
        task="stacking",
        spec=CAMERA_SPEC,
        directory=folder,
        first_seed=first_seed,
        episodes=episodes,
        noise_nm=NOISE_NM,
        view_randomisation=view,
    )
    show_collect(collection, workers)
    return tokenize(load_episodes(folder, CAMERA_SPEC), CAMERA_SPEC)


def _train(row: Row, frames: Frames, folder: Path, start: Path | None) -> Trainer:
    """Train a row and write its bundle."""
    model = read_model(start) if start is not None else None
    dims = model.dims if model is not None else preset("camera")
    bodies = frames.places.shape[1] if row.config.locate else 0
    trainer = Trainer(CAMERA_SPEC, dims, row.config, folder, model, bodies)
    trainer.fit(frames, row.config.steps)
    training = TrainingRecord(
        recipe=row.name,
        demonstrations=f"{len(frames.starts) - 1} episodes",
        parameters=sum(each.numel() for each in trainer.model.parameters()),
        steps=trainer.step,
    )
    write_bundle(folder / "bundle", "ablation", trainer.policy(), training, task="stacking")
    return trainer


def _judge(bundle: Path, episodes: int, workers: int) -> dict[str, Any]:
    """Run trials under the whole look."""
    options = PolicyOptions(bundle=bundle, threads=1, engine=quickest_cpu_engine())
    setup = TrialSetup(load_policy=partial(load_policy, options), view=ViewRandomisation())
    seeds = range(TRIAL_SEED, TRIAL_SEED + episodes)
    return trial_record(summarise(show_trials(setup, seeds, workers, None, "trials")))


if __name__ == "__main__":
    main()
