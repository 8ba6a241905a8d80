"""Train the shipped camera policy, from nothing or from a bundle, in one command.

    python benchmarks/train_camera.py runs/camera                       # one GPU, 16 cores
    python benchmarks/train_camera.py runs/camera --start policies/stack_camera --on-two-cores

Demonstrations, training, DAgger and trials follow one another; the same command continues after an
interruption. The commands are printed before they run, so that each can be run by hand.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from gatort.runtime.grant import read_grant
from gatort.sim.tasks.seeds import TRAINING_SEEDS

FIRST_SEED = TRAINING_SEEDS.start + 60_000
EPISODES_APART = 10_000
"""Seeds from one set of demonstrations to the next."""


@dataclass(frozen=True)
class Size:
    """Amount of data and of training."""

    nominal: int
    """Demonstrations with the nominal look and physics."""
    seen: int
    """Demonstrations with randomised looks."""
    varied: int
    """Demonstrations with randomised looks and physics."""
    steps: int
    first_share: float
    batch_sequences: int
    learning_rate: float
    rounds: int
    round_episodes: int


ONE_GPU = Size(200, 600, 900, 16_000, 0.35, 64, 7e-4, 4, 400)
TWO_CORES = Size(60, 140, 300, 3_000, 0.4, 32, 2e-4, 2, 200)


def main() -> None:
    """Run every step that is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--start", type=Path, help="bundle whose weights training starts from")
    parser.add_argument("--on-two-cores", action="store_true", help="a small amount, for a CPU")
    parser.add_argument("--episodes", type=int, default=200, help="trials of each kind at the end")
    parser.add_argument("--workers", type=int, default=read_grant().processors)
    args = parser.parse_args()

    size = TWO_CORES if args.on_two_cores else ONE_GPU
    args.out.mkdir(parents=True, exist_ok=True)
    folders = _demonstrate(args.out, size, args.workers)
    _train(args.out, size, folders, args.start, args.workers, gpu=not args.on_two_cores)
    _try(args.out, args.episodes, args.workers)


def _demonstrate(out: Path, size: Size, workers: int) -> list[Path]:
    sets = [
        ("nominal", size.nominal, []),
        ("seen", size.seen, ["--randomise-view"]),
        ("varied", size.varied, ["--randomise-view", "--randomise"]),
    ]
    folders = []
    for index, (name, episodes, flags) in enumerate(sets):
        folders.append(out / name)
        seed = FIRST_SEED + index * EPISODES_APART
        _gatort(
            "demos", out / name, "--cameras", *flags, "--episodes", episodes, "--seed", seed,
            "--workers", workers,
        )  # fmt: skip
    return folders


def _train(
    out: Path, size: Size, folders: list[Path], start: Path | None, workers: int, *, gpu: bool
) -> None:
    _gatort(
        "train", *folders, "--out", out / "training", "--preset", "camera",
        *(["--start", start] if start is not None else []),
        "--steps", size.steps, "--first-share", size.first_share,
        "--batch-sequences", size.batch_sequences, "--learning-rate", size.learning_rate,
        "--rounds", size.rounds, "--round-episodes", size.round_episodes,
        "--locate", 0.5, "--shift-px", 2, "--colour-gain", 0.1,
        # Few passes of exact decoding, see docs/training.md. Not tried with so much data yet.
        "--bin-features", 32, "--action-noise-bins", 500, "--consistency", 20,
        # Under randomised physics as well, the first rollouts fail and teach little.
        "--randomise-view", "--workers", workers,
        *(["--compiled"] if gpu else []),
    )  # fmt: skip


def _try(out: Path, episodes: int, workers: int) -> None:
    bundle = out / "training" / "bundle"
    for name, flags in {
        "nominal": [],
        "view": ["--randomise-view"],
        "pybullet": ["--robot", "pybullet"],
        "frozen": ["--freeze-camera", "front"],
    }.items():
        _gatort(
            "trials", "--bundle", bundle, "--episodes", episodes, *flags, "--workers", workers,
            "--json", out / f"{name}.json",
        )  # fmt: skip


def _gatort(*arguments: object) -> None:
    words = [str(argument) for argument in arguments]
    print("gatort", *words, flush=True)
    subprocess.run([sys.executable, "-m", "gatort", *words], check=True)


if __name__ == "__main__":
    main()
