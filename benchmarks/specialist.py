"""Train the mark that a token policy has to reach: a small MLP that regresses the expert's action
from the same data.

    python benchmarks/specialist.py runs/demos runs/stack/round* --out runs/specialist \
        --json runs/specialist.json

Not shipped. It sees the last four observations and no past actions. It learns the demonstrations
and the labelled rollouts of the token policy, and runs the same trials in lockstep.
"""

from __future__ import annotations

import argparse
import json
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gatort.runtime.clock import VirtualClock
from gatort.runtime.demonstrations import load_episodes
from gatort.runtime.episode import Episode
from gatort.runtime.robot import Observation
from gatort.sim.make import MujocoRobot
from gatort.sim.rollout import Act, rollout
from gatort.sim.tasks.stacking.specifications import STACK_SPEC
from gatort.sim.trials.statistics import wilson_95

Array = NDArray[np.float32]

HISTORY = 4
BATCH = 512
EPOCHS = 40
LOW = np.array([actuator.low for actuator in STACK_SPEC.actuators], np.float32)
HIGH = np.array([actuator.high for actuator in STACK_SPEC.actuators], np.float32)


class Specialist(nn.Module):
    """Three hidden layers of 512. (N, 4, features) observations give (N, A) actions in [−1, 1]."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        sizes = [HISTORY * features, 512, 512, 512, len(LOW)]
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise(sizes):
            layers += [nn.Linear(width_in, width_out), nn.GELU()]
        self.net = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, flatten, regress."""
        y: Tensor = self.net(((x - self.mean) / self.std).clamp(-5, 5).flatten(1))
        return y


def features_of(values: tuple[Array, ...], lead: int) -> Array:
    """Join observation arrays with `lead` leading axes into (…, features)."""
    return np.concatenate([value.reshape(*value.shape[:lead], -1) for value in values], axis=-1)


def with_history(x: Array) -> Array:
    """Turn (K, features) into (K, 4, features), the oldest first. The start is repeated."""
    index = np.maximum(np.arange(len(x))[:, None] + np.arange(1 - HISTORY, 1), 0)
    return x[index]


def fit(episodes: list[Episode]) -> Specialist:
    """Fit a specialist to the expert's action of every tick."""
    x = np.concatenate([with_history(features_of(episode.observations, 1)) for episode in episodes])
    y = np.concatenate([episode.expert_actions for episode in episodes])
    inputs = torch.from_numpy(x)
    targets = torch.from_numpy(np.clip((y - LOW) / (HIGH - LOW) * 2 - 1, -1, 1))
    model = Specialist(x.shape[-1])
    model.mean.copy_(inputs[:, -1].mean(0))
    model.std.copy_(inputs[:, -1].std(0) + 1e-4)
    steps = EPOCHS * len(inputs) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1e-3, total_steps=steps, pct_start=0.05
    )
    for _ in track(range(steps), f"{len(inputs)} ticks"):
        pick = torch.randint(len(inputs), (BATCH,))
        loss = nn.functional.smooth_l1_loss(model(inputs[pick]), targets[pick], beta=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model


def follow(model: Specialist) -> Act:
    """Return a chooser of actions that sees the last four observations."""
    past: deque[Array] = deque(maxlen=HISTORY)

    def act(observation: Observation, _: NDArray[np.float64]) -> NDArray[np.float64]:
        x = features_of(observation.values, 0)
        past.extend([x] if past else [x] * HISTORY)
        with torch.inference_mode():
            y = model(torch.from_numpy(np.stack(past))[None])[0].numpy()
        return (LOW + (y + 1) / 2 * (HIGH - LOW)).astype(np.float64)

    return act


def run_trials(weights: Path, seeds: list[int]) -> int:
    """Run trials in a worker process. Return the number of successes."""
    torch.set_num_threads(1)
    state = load_file(weights)
    model = Specialist(len(state["mean"]))
    model.load_state_dict(state)
    clock = VirtualClock()
    robot = MujocoRobot(clock)
    return sum(rollout(robot, clock, seed, follow(model)).succeeded for seed in seeds)


def main() -> None:
    """Train, then run trials on layouts that training never saw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demos", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    weights = args.out / "specialist.safetensors"
    torch.manual_seed(0)
    episodes = [episode for folder in args.demos for episode in load_episodes(folder, STACK_SPEC)]
    save_file(fit(episodes).state_dict(), weights)
    seeds = list(range(args.seed, args.seed + args.episodes))
    shares = [seeds[worker :: args.workers] for worker in range(args.workers)]
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        successes = sum(pool.map(run_trials, [weights] * args.workers, shares))
    result = {
        "episodes": args.episodes,
        "first_seed": args.seed,
        "successes": successes,
        "success_rate": successes / args.episodes,
        "wilson_95": wilson_95(successes, args.episodes),
    }
    print(json.dumps(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
