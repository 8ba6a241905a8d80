"""Train the mark that a token policy has to reach: a network that regresses the expert's action.

    python benchmarks/specialist.py runs/demos --out runs/specialist --json runs/specialist.json \
        --rounds 3 --randomise-view

Not shipped. It sees the last four joint states, the newest pictures if there are cameras, and no
past actions. It learns the demonstrations that a token policy learns. Then it drives rounds of
DAgger of its own under the same randomisation, and runs the same trials in lockstep.
"""

from __future__ import annotations

import argparse
import json
from collections import deque
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gatort.policies.pictures import varied
from gatort.runtime.clock import MonotonicClock, VirtualClock
from gatort.runtime.demonstrations import (
    DemonstrationManifest,
    load_episodes,
    load_manifest,
    write_manifest,
)
from gatort.runtime.episode import Episode
from gatort.runtime.robot import Observation
from gatort.runtime.spec import PolicySpec
from gatort.sim.make import make_robot
from gatort.sim.randomisation import Randomisation
from gatort.sim.rollout import Act, rollout
from gatort.sim.tasks import task_named
from gatort.sim.tasks.seeds import TRAINING_SEEDS
from gatort.sim.trials.statistics import wilson_95
from gatort.sim.view_randomisation import TRAINING_VIEW, ViewRandomisation
from gatort.sim.workers import spread

Array = NDArray[np.float32]

HISTORY = 4
BATCH = 256
ROUND_SEEDS = 10_000
SAVED_STEPS = 500
"""Steps after which the weights are written: a fit takes an hour."""
CHANNELS = (32, 64, 64)
SEEN = 128
"""Numbers that the pictures of one camera become."""


class Specialist(nn.Module):
    """Small convolutions for each camera, then three hidden layers of 512.

    Inputs: (N, 4, features) joint states and (N, H, W, 3) pictures of each camera in [0, 255].
    Output: (N, A) actions in [−1, 1].
    """

    def __init__(self, features: int, actions: int, sizes: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        self.eyes = nn.ModuleList(_eye(height, width) for height, width in sizes)
        widths = [HISTORY * features + SEEN * len(sizes), 512, 512, 512, actions]
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise(widths):
            layers += [nn.Linear(width_in, width_out), nn.GELU()]
        self.net = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor, pictures: Sequence[Tensor]) -> Tensor:
        """Normalise, look, regress."""
        joints = ((x - self.mean) / self.std).clamp(-5, 5).flatten(1)
        seen = [
            eye(picture.permute(0, 3, 1, 2) / 127.5 - 1)
            for eye, picture in zip(self.eyes, pictures, strict=True)
        ]
        y: Tensor = self.net(torch.cat([joints, *seen], dim=1))
        return y


def _eye(height: int, width: int) -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in pairwise((3, *CHANNELS)):
        layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.GELU()]
    cells = (height >> len(CHANNELS)) * (width >> len(CHANNELS))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(CHANNELS[-1] * cells, SEEN), nn.GELU())


class Inputs:
    """Split of an observation into joint states and pictures."""

    def __init__(self, spec: PolicySpec) -> None:
        images = [key.encoding == "image" for key in spec.observations]
        self.pictures = [index for index, image in enumerate(images) if image]
        self.numbers = [index for index, image in enumerate(images) if not image]
        self.sizes = [spec.observations[index].shape[:2] for index in self.pictures]
        self.low = np.array([actuator.low for actuator in spec.actuators], np.float32)
        self.high = np.array([actuator.high for actuator in spec.actuators], np.float32)

    def features(self, values: Sequence[Array], lead: int) -> Array:
        """Join the numbers of observations with `lead` leading axes into (…, features)."""
        chosen = [values[index] for index in self.numbers]
        return np.concatenate([v.reshape(*v.shape[:lead], -1) for v in chosen], axis=-1)

    def empty(self, spec: PolicySpec) -> Specialist:
        """Return an untrained specialist of this interface."""
        features = sum(spec.observations[index].size for index in self.numbers)
        return Specialist(features, len(self.low), self.sizes)


def with_history(x: Array) -> Array:
    """Turn (K, features) into (K, 4, features), the oldest first. The start is repeated."""
    index = np.maximum(np.arange(len(x))[:, None] + np.arange(1 - HISTORY, 1), 0)
    return x[index]


def fit(
    model: Specialist, spec: PolicySpec, episodes: list[Episode], steps: int, weights: Path
) -> None:
    """Fit a specialist to the expert's action of every tick. Write its weights now and then."""
    inputs = Inputs(spec)
    rng = np.random.default_rng(0)
    joints = [with_history(inputs.features(episode.observations, 1)) for episode in episodes]
    x = torch.from_numpy(np.concatenate(joints))
    seen = [
        np.concatenate([episode.observations[index] for episode in episodes])
        for index in inputs.pictures
    ]
    y = np.concatenate([episode.expert_actions for episode in episodes])
    share = (y - inputs.low) / (inputs.high - inputs.low)
    targets = torch.from_numpy(np.clip(share * 2 - 1, -1, 1))
    model.mean.copy_(x[:, -1].mean(0))
    model.std.copy_(x[:, -1].std(0) + 1e-4)

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1e-3, total_steps=steps, pct_start=0.05
    )
    for step in track(range(1, steps + 1), f"{len(x)} ticks"):
        pick = rng.integers(len(x), size=BATCH)
        pictures = [
            varied(torch.from_numpy(picture[pick])[:, None], 2, 0.1, rng)[:, 0] for picture in seen
        ]
        with torch.autocast("cpu", torch.bfloat16):
            found = model(x[pick], pictures).float()
        loss = nn.functional.smooth_l1_loss(found, targets[pick], beta=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % SAVED_STEPS == 0 or step == steps:
            save_file(model.state_dict(), weights)
            print(f"step {step} of {steps}, loss {loss.item():.5f}", flush=True)


def follow(model: Specialist, inputs: Inputs) -> Act:
    """Return a chooser of actions that sees the last four joint states and the newest pictures."""
    past: deque[Array] = deque(maxlen=HISTORY)

    def act(observation: Observation, _: NDArray[np.float64]) -> NDArray[np.float64]:
        x = inputs.features(observation.values, 0)
        past.extend([x] if past else [x] * HISTORY)
        pictures = [torch.from_numpy(observation.values[index])[None] for index in inputs.pictures]
        with torch.inference_mode():
            y = model(torch.from_numpy(np.stack(past))[None], pictures)[0].numpy()
        share = (y + 1) / 2
        return (inputs.low + share * (inputs.high - inputs.low)).astype(np.float64)

    return act


class Driver:
    """A specialist in a worker process."""

    def __init__(
        self,
        weights: Path,
        task: str,
        spec: PolicySpec,
        physics: Randomisation | None,
        view: ViewRandomisation | None,
        keep: Path | None,
        seconds: float | None,
    ) -> None:
        torch.set_num_threads(1)
        self.inputs = Inputs(spec)
        self.model = self.inputs.empty(spec)
        self.model.load_state_dict(load_file(weights))
        self.clock = VirtualClock()
        self.robot = make_robot("mujoco", task, self.clock, spec, 0, physics, view)
        self.keep = keep
        self.seconds = seconds

    def __call__(self, seed: int) -> bool:
        """Run the trial of one seed, and keep it as an episode if there is a folder for it."""
        act = follow(self.model, self.inputs)
        episode = rollout(self.robot, self.clock, seed, act, self.seconds)
        if self.keep is not None:
            episode.save(self.keep / f"{seed}.npz", self.robot.spec)
        return episode.succeeded


def describe(
    folder: Path,
    demos: DemonstrationManifest,
    seeds: range,
    succeeded: int,
    episodes: Sequence[Episode],
) -> None:
    """Make a round's folder one of demonstrations, so that a later training can start with it."""
    manifest = DemonstrationManifest(
        task=demos.task,
        spec=demos.spec,
        driver="specialist",
        seconds=demos.seconds,
        first_seed=seeds[0],
        last_seed=seeds[-1],
        episodes=len(seeds),
        successes=succeeded,
        ticks=sum(len(episode.expert_actions) for episode in episodes),
    )
    write_manifest(folder, manifest)


def main() -> None:
    """Train, then run trials on layouts that training never saw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demos", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6000, help="optimizer steps in all")
    parser.add_argument("--start", type=Path, help="weights of an earlier training to go on from")
    parser.add_argument("--rounds", type=int, default=0, help="rounds of DAgger")
    parser.add_argument("--round-episodes", type=int, default=200)
    parser.add_argument("--round-seed", type=int, default=TRAINING_SEEDS.start + 700_000)
    parser.add_argument("--randomise", action="store_true", help="physics in the rounds")
    parser.add_argument("--randomise-view", action="store_true", help="pictures in the rounds")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    clock = MonotonicClock()
    start_ns = clock.now_ns()
    manifest = load_manifest(args.demos[0])
    task = manifest.task or "stacking"
    spec = task_named(task).interface_for(manifest.spec)
    physics = Randomisation() if args.randomise else None
    view = TRAINING_VIEW if args.randomise_view else None
    weights = args.out / "specialist.safetensors"
    drive = partial(Driver, weights, task, spec)

    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = Inputs(spec).empty(spec)
    if args.start is not None:
        model.load_state_dict(load_file(args.start))
    episodes = [episode for folder in args.demos for episode in load_episodes(folder, spec)]
    rounds: list[float] = []
    for index in range(args.rounds + 1):
        fit(model, spec, episodes, args.steps // (args.rounds + 1), weights)
        if index < args.rounds:
            folder = args.out / f"round{index}"
            folder.mkdir(exist_ok=True)
            first = args.round_seed + index * ROUND_SEEDS
            seeds = range(first, first + args.round_episodes)
            made = partial(drive, physics, view, folder, manifest.seconds)
            succeeded = sum(spread(made, seeds, args.workers))
            rounds.append(succeeded / len(seeds))
            round_episodes = [Episode.load(folder / f"{seed}.npz", spec) for seed in seeds]
            describe(folder, manifest, seeds, succeeded, round_episodes)
            episodes += round_episodes
    trained_s = (clock.now_ns() - start_ns) * 1e-9

    seeds = range(args.seed, args.seed + args.episodes)
    result: dict[str, Any] = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "training_s": trained_s,
        "rounds": rounds,
    }
    looks = {"nominal": None} | (
        {"randomised view": ViewRandomisation()} if view is not None else {}
    )
    for name, look in looks.items():
        run = partial(drive, None, look, None, None)
        successes = sum(spread(run, seeds, args.workers))
        result[name] = {
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
