"""Data sets that the tests damage: two joints, a gripper and a camera, moving as an arm does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gatort.runtime.demonstrations import DemonstrationManifest, write_manifest
from gatort.runtime.episode import Episode
from gatort.runtime.robots.panda import ranged_key
from gatort.runtime.spec import Actuator, ObservationKey, PolicySpec

HZ = 20


@pytest.fixture(scope="session")
def arm_spec() -> PolicySpec:
    """Joint positions and velocities, a gripper and two cameras of 32 × 32."""
    cameras = tuple(
        ObservationKey(
            name=f"camera/{name}", shape=(32, 32, 3), dtype="uint8", unit="1", encoding="image"
        )
        for name in ("front", "wrist")
    )
    return PolicySpec(
        observations=(
            *cameras,
            ranged_key("arm/joint_position", "rad", (-2.0, -3.0, 1.0), (2.0, -1.0, 3.5)),
            ranged_key("arm/joint_velocity", "rad/s", (-5.0,) * 3, (5.0,) * 3),
            ranged_key("gripper/width", "m", (0.0,), (0.08,)),
        ),
        actuators=(
            *(
                Actuator(name=f"arm/joint{index}", unit="rad", low=-3.0, high=3.5, safe=0.0)
                for index in range(3)
            ),
            Actuator(name="gripper/width", unit="m", low=0.0, high=0.08, safe=0.0),
        ),
        control_hz=HZ,
        action_delay_ms=25,
        window_frames=2,
    )


def moving_episode(seed: int, ticks: int = 60) -> Episode:
    """Return an episode of `arm_spec` in which every joint moves with a frequency of its own."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(ticks) / HZ
    rates = np.array([2.0, 3.0, 4.5]) * rng.uniform(0.9, 1.1)
    phases = rng.uniform(0, 2 * np.pi, 3)
    middle, reach = np.array([0.0, -2.0, 2.2]), np.array([0.8, 0.6, 0.5])
    angles = time_s[:, None] * rates + phases
    position = (middle + reach * np.sin(angles)).astype(np.float32)
    velocity = (reach * rates * np.cos(angles)).astype(np.float32)
    width = (0.04 + 0.03 * np.sin(time_s[:, None])).astype(np.float32)
    # The front camera sees much red, the wrist camera much green, both with noise.
    front = rng.integers(0, 60, (ticks, 32, 32, 3)) + np.array([180, 60, 20])
    wrist = rng.integers(0, 60, (ticks, 32, 32, 3)) + np.array([30, 150, 90])
    action = np.concatenate([position, width], axis=1).astype(np.float32)
    return Episode(
        seed=seed,
        succeeded=seed % 2 == 0,
        observations=(
            front.astype(np.uint8), wrist.astype(np.uint8), position, velocity, width,
        ),
        actions=action,
        expert_actions=action + np.float32(0.001),
        stamps_ns=(7_000_000_000 + time_s * 1e9 + rng.integers(0, 90_000, ticks)).astype(np.int64),
    )  # fmt: skip


def write_demonstrations(folder: Path, spec: PolicySpec, episodes: list[Episode]) -> Path:
    """Write a folder of demonstrations."""
    folder.mkdir()
    for episode in episodes:
        episode.save(folder / f"{episode.seed}.npz", spec)
    manifest = DemonstrationManifest(
        task=None,
        spec=spec,
        driver="a test",
        seconds=3.0,
        first_seed=episodes[0].seed,
        last_seed=episodes[-1].seed,
        episodes=len(episodes),
        successes=sum(episode.succeeded for episode in episodes),
        ticks=sum(episode.ticks for episode in episodes),
    )
    write_manifest(folder, manifest)
    return folder


@pytest.fixture(scope="session")
def shown(arm_spec: PolicySpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Demonstrations of four episodes."""
    episodes = [moving_episode(seed) for seed in (3, 4, 10, 11)]
    return write_demonstrations(tmp_path_factory.mktemp("shown") / "demos", arm_spec, episodes)
