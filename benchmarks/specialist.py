"""The mark that a token policy has to reach: a small MLP that regresses the expert's action, trained by DAgger.

    python benchmarks/specialist.py --out runs/specialist            # train, then 200 trials
    python benchmarks/specialist.py --out runs/specialist --trials 200 --first-seed 5000

Not shipped. It sees the last four observations and no past actions, and learns on the same demonstrations as the
token policy: each round drives with the MLP, labels every tick with the expert and trains on all rounds so far
(Ross et al., "A Reduction of Imitation Learning and Structured Prediction to No-Regret Online Learning", 2011).
"""

from __future__ import annotations

import argparse
import json
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from gatort.runtime.clock import VirtualClock
from gatort.runtime.episode import Episode
from gatort.runtime.robot import Observation
from gatort.sim.robot import MujocoRobot
from gatort.sim.rollout import follow_expert, rollout
from gatort.sim.task import STACK_SPEC, TRAINING_SEEDS, TRIAL_SECONDS

HISTORY = 4
ROLLOUT_SECONDS = 8.0
LOW = np.array([a.low for a in STACK_SPEC.actuators], np.float32)
HIGH = np.array([a.high for a in STACK_SPEC.actuators], np.float32)


class Specialist(nn.Module):
    """Three hidden layers of 512 from (N, 4·features) normalised observations to (N, A) actions in [−1, 1]."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        sizes = [HISTORY * features, 512, 512, 512, len(LOW)]
        layers: list[nn.Module] = []
        for i, o in pairwise(sizes):
            layers += [nn.Linear(i, o), nn.GELU()]
        self.net = nn.Sequential(*layers[:-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 4, features) to (N, A)."""
        return self.net(((x - self.mean) / self.std).clamp(-5, 5).flatten(1))


def features_of(values: tuple[np.ndarray, ...]) -> np.ndarray:
    """Observation arrays (K, …) or (…) to (K, features) or (features,)."""
    lead = values[0].ndim - 1
    return np.concatenate([v.reshape(*v.shape[:lead], -1) for v in values], axis=-1)


def with_history(x: np.ndarray) -> np.ndarray:
    """(K, features) to (K, 4, features), the oldest first, the start repeated."""
    index = np.maximum(np.arange(len(x))[:, None] + np.arange(1 - HISTORY, 1), 0)
    return x[index]


def drive_episodes(job: tuple[str | None, list[int], str | None]) -> list[bool]:
    """Worker: run the seeds with the weights at a path (the expert when none), save episodes when asked."""
    weights, seeds, out = job
    torch.set_num_threads(1)
    clock = VirtualClock()
    robot = MujocoRobot(clock)
    model = None
    if weights:
        state = load_file(weights)
        model = Specialist(len(state["mean"]))
        model.load_state_dict(state)
    results = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        if model is None:
            drive = follow_expert(float(rng.choice([0.0, 1.0, 3.0])), rng)
        else:
            past: deque[np.ndarray] = deque(maxlen=HISTORY)

            def drive(observation: Observation, _: np.ndarray, past: deque[np.ndarray] = past) -> np.ndarray:
                x = features_of(observation.values)
                past.extend([x] * (HISTORY - len(past)) if not past else [x])
                with torch.inference_mode():
                    y = model(torch.from_numpy(np.stack(past))[None])[0].numpy()
                return LOW + (y + 1) / 2 * (HIGH - LOW)

        episode = rollout(robot, clock, seed, drive, ROLLOUT_SECONDS if out else TRIAL_SECONDS)
        results.append(episode.succeeded)
        if out:
            episode.save(Path(out) / f"{seed}.npz", STACK_SPEC)
    return results


def run_seeds(weights: Path | None, seeds: list[int], out: Path | None, workers: int) -> float:
    """Success rate over the seeds."""
    if out:
        out.mkdir(parents=True, exist_ok=True)
    jobs = [(str(weights) if weights else None, seeds[i::workers], str(out) if out else None) for i in range(workers)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return float(np.mean([s for part in pool.map(drive_episodes, jobs) for s in part]))


def fit(model: Specialist, paths: list[Path], epochs: int) -> float:
    """Train on every episode so far; returns the last epoch's loss."""
    episodes = [Episode.load(path, STACK_SPEC) for path in paths]
    x = np.concatenate([with_history(features_of(e.observations)) for e in episodes])
    y = np.concatenate([e.expert_actions for e in episodes])
    inputs = torch.from_numpy(x.astype(np.float32))
    targets = torch.from_numpy(np.clip((y - LOW) / (HIGH - LOW) * 2 - 1, -1, 1))
    model.mean.copy_(inputs[:, -1].mean(0))
    model.std.copy_(inputs[:, -1].std(0) + 1e-4)
    steps = epochs * len(inputs) // 512
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps + 1, pct_start=0.05)
    total = 0.0
    for step in range(steps):
        pick = torch.randint(len(inputs), (512,))
        loss = nn.functional.smooth_l1_loss(model(inputs[pick]), targets[pick], beta=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total = 0.99 * total + 0.01 * loss.item() if step else loss.item()
    print(f"  {len(inputs)} ticks, {steps} steps, loss {total:.5f}", flush=True)
    return total


def main() -> None:
    """Train by DAgger, then run trials on seeds that training never saw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--episodes", type=int, default=120, help="per round")
    parser.add_argument("--epochs", type=int, default=20, help="per round, over all rounds so far")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(args.workers)
    weights = args.out / "specialist.safetensors"
    if not weights.exists():
        driver: Path | None = None
        model: Specialist | None = None
        for index in range(args.rounds):
            start = time.perf_counter()
            first = TRAINING_SEEDS.start + index * 10_000
            rate = run_seeds(
                driver, list(range(first, first + args.episodes)), args.out / f"round{index}", args.workers
            )
            print(f"round {index}: {rate:.0%} of {args.episodes} ({time.perf_counter() - start:.0f} s)", flush=True)
            paths = sorted(args.out.glob("round*/*.npz"))
            if model is None:
                model = Specialist(features_of(Episode.load(paths[0], STACK_SPEC).observations).shape[-1])
            fit(model, paths, args.epochs)
            driver = args.out / "latest.safetensors"
            save_file(model.state_dict(), driver)
        driver.rename(weights)
    seeds = list(range(args.first_seed, args.first_seed + args.trials))
    rate = run_seeds(weights, seeds, None, args.workers)
    print(json.dumps({"episodes": args.trials, "first_seed": args.first_seed, "success_rate": rate}))


if __name__ == "__main__":
    main()
