"""`gatort demos`: demonstrations by the scripted expert, made in parallel."""

from __future__ import annotations

from os import sched_getaffinity
from pathlib import Path

from pydantic import NonNegativeFloat, PositiveInt

from gatort.launch.report import screen
from gatort.runtime.errors import ConfigError


def demos(
    out: Path,
    *,
    episodes: PositiveInt = 200,
    seed: PositiveInt | None = None,
    noise_nm: tuple[NonNegativeFloat, ...] = (0.0, 1.0, 2.0, 4.0),
    randomise: bool = False,
    task: str = "stacking",
    workers: PositiveInt | None = None,
) -> int:
    """Let a task's scripted expert drive, and store its observations and actions as episodes with a manifest.

    The same command goes on where it was stopped.

    Parameters
    ----------
    out
        Folder for the episodes.
    episodes
        How many.
    seed
        Layout of the first; the others follow one by one. The first training seed when it is not given.
    noise_nm
        Noise on the torques, so that the expert shows how it recovers; each episode draws one. N·m
    randomise
        Vary arm, blocks, delay and sensors from episode to episode, over the ranges in sim/randomisation.py.
    task
        Name of the task; its first interface is observed.
    workers
        Processes that share the episodes; one per core when it is not given.
    """
    from gatort.launch.collect import (
        Collection,
        collect,
    )
    from gatort.sim.randomisation import Randomisation
    from gatort.sim.tasks import task_named
    from gatort.sim.tasks.seeds import TRAINING_SEEDS

    first = TRAINING_SEEDS.start if seed is None else seed
    require_training_seeds(range(first, first + episodes))
    collection = Collection(
        task=task,
        spec=task_named(task).interface,
        directory=out,
        first_seed=first,
        episodes=episodes,
        noise_nm=noise_nm,
        randomisation=Randomisation() if randomise else None,
    )
    manifest = collect(collection, workers or len(sched_getaffinity(0)))
    screen().print(
        f"{manifest.episodes} episodes, {manifest.successes} succeeded, {manifest.ticks} ticks, seeds "
        f"{manifest.first_seed} to {manifest.last_seed} in {out}"
    )
    return 0


def require_training_seeds(seeds: range) -> None:
    """Check that layouts are ones that no trial and no validation will use.

    Raises:
        ConfigError: naming the range to choose from.
    """
    from gatort.sim.tasks.seeds import TRAINING_SEEDS

    if seeds[0] not in TRAINING_SEEDS or seeds[-1] not in TRAINING_SEEDS:
        raise ConfigError(
            f"seeds {seeds[0]} to {seeds[-1]} are not for training: choose from {TRAINING_SEEDS[0]} to "
            f"{TRAINING_SEEDS[-1]}, so that no trial repeats a layout that was learned from"
        )
