"""Collection: episodes are stored whole, continued after an interruption, and never mixed."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from gatort.policies.loading import SHIPPED_BUNDLE, PolicyOptions, load_policy
from gatort.runtime.bundle import MANIFEST_FILE, load_manifest, sha256_of
from gatort.runtime.demonstrations import load_episodes
from gatort.runtime.demonstrations import load_manifest as load_demonstrations
from gatort.runtime.errors import ConfigError, DemonstrationError
from gatort.sim.collect import (
    Collection,
    CollectionProgress,
    PolicySource,
    can_drive,
    collect,
    policy_episodes,
    require_training_seeds,
)
from gatort.sim.randomisation import Randomisation
from gatort.sim.tasks.stacking.specifications import CAMERA_SPEC, STACK_SPEC

FIRST = 1_000_000


def collection(directory: Path, **fields: object) -> Collection:
    """Two episodes of half a second unless the fields say otherwise."""
    nominal = Collection(
        task="stacking",
        spec=STACK_SPEC,
        directory=directory,
        first_seed=FIRST,
        episodes=2,
        seconds=0.5,
    )
    return nominal.model_copy(update=fields)


def shipped() -> PolicySource:
    load = partial(load_policy, PolicyOptions(threads=1))
    return PolicySource(bundle=SHIPPED_BUNDLE, load=load)


def test_a_collection_is_episodes_with_a_manifest_that_counts_them(tmp_path: Path) -> None:
    manifest = collect(collection(tmp_path), workers=1)
    episodes = load_episodes(tmp_path, STACK_SPEC)
    assert load_demonstrations(tmp_path) == manifest
    assert [episode.seed for episode in episodes] == [FIRST, FIRST + 1]
    assert (manifest.episodes, manifest.first_seed, manifest.last_seed) == (2, FIRST, FIRST + 1)
    assert manifest.ticks == sum(episode.ticks for episode in episodes) == 20
    assert manifest.driver == "expert, noise 0 N·m"


def test_a_collection_makes_only_the_episodes_that_its_folder_lacks(tmp_path: Path) -> None:
    whole = collect(collection(tmp_path), workers=1)
    kept = (tmp_path / f"{FIRST}.npz").stat().st_mtime_ns
    made_anew = tmp_path / f"{FIRST + 1}.npz"
    before = load_episodes(tmp_path, STACK_SPEC)[1]
    made_anew.unlink()

    seen: list[CollectionProgress] = []
    assert collect(collection(tmp_path), 1, seen.append) == whole
    assert [(each.made, each.asked) for each in seen] == [(0, 1), (1, 1)]
    assert (tmp_path / f"{FIRST}.npz").stat().st_mtime_ns == kept
    np.testing.assert_array_equal(load_episodes(tmp_path, STACK_SPEC)[1].actions, before.actions)


def test_two_processes_collect_the_same_as_one(tmp_path: Path) -> None:
    noisy = (1.0, 4.0)
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    one = collect(collection(alone, noise_nm=noisy), workers=1)
    assert collect(collection(shared, noise_nm=noisy), workers=2) == one
    for mine, theirs in zip(
        load_episodes(alone, STACK_SPEC), load_episodes(shared, STACK_SPEC), strict=True
    ):
        np.testing.assert_array_equal(mine.actions, theirs.actions)


def test_a_policy_drives_while_the_expert_labels(tmp_path: Path) -> None:
    manifest = collect(collection(tmp_path, policy=shipped(), episodes=1), workers=1)
    (episode,) = load_episodes(tmp_path, STACK_SPEC)
    assert (
        manifest.driver == f"policy, manifest SHA-256 {sha256_of(SHIPPED_BUNDLE / MANIFEST_FILE)}"
    )
    assert (episode.actions != episode.expert_actions).any()


@pytest.mark.parametrize(
    ("fields", "difference"),
    [
        ({"noise_nm": (3.0,)}, "expert, noise 3 N·m; found expert, noise 0 N·m"),
        ({"randomisation": Randomisation()}, "randomised physics; found expert, noise 0 N·m"),
        ({"first_seed": FIRST + 1}, "seeds from 1000001; found seeds from 1000000"),
        ({"seconds": 1.0}, "at most 1 s; found at most 0.5 s"),
        ({"spec": CAMERA_SPEC}, "another specification; found another specification"),
        ({"policy": shipped()}, "found expert, noise 0 N·m"),
    ],
)
def test_a_folder_of_other_episodes_is_refused_with_the_first_difference(
    tmp_path: Path, fields: dict[str, object], difference: str
) -> None:
    collection(tmp_path).claim()
    other = collection(tmp_path, **fields)
    with pytest.raises(DemonstrationError, match=f"{difference}; choose another folder"):
        collect(other, workers=1)


def test_more_episodes_are_added_to_those_of_a_folder(tmp_path: Path) -> None:
    collect(collection(tmp_path, episodes=1), workers=1)
    kept = (tmp_path / f"{FIRST}.npz").stat().st_mtime_ns
    seen: list[CollectionProgress] = []
    manifest = collect(collection(tmp_path, episodes=3), 1, seen.append)
    assert (manifest.episodes, manifest.last_seed, seen[-1].made) == (3, FIRST + 2, 2)
    assert (tmp_path / f"{FIRST}.npz").stat().st_mtime_ns == kept
    # Fewer episodes take none away.
    assert collect(collection(tmp_path, episodes=2), workers=1) == manifest
    assert len(load_episodes(tmp_path, STACK_SPEC)) == 3


def test_episodes_of_an_unknown_origin_are_refused(tmp_path: Path) -> None:
    (tmp_path / "7.npz").touch()
    with pytest.raises(DemonstrationError, match="found episodes of an unknown origin"):
        collect(collection(tmp_path), workers=1)


def test_a_folder_of_other_files_is_refused_and_hidden_files_are_ignored(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").touch()
    collection(tmp_path).claim()
    (tmp_path / "collection.txt").rename(tmp_path / "demonstrations.json")
    with pytest.raises(
        DemonstrationError, match=r"found other files, such as demonstrations\.json"
    ):
        collect(collection(tmp_path), workers=1)


def test_a_policys_episodes_are_the_same_every_time() -> None:
    policy = shipped().load()
    first, other, again = policy_episodes(policy, [5000, 5001, 5000])
    assert first.succeeded
    np.testing.assert_array_equal(first.actions, again.actions)
    assert first.ticks != other.ticks or (first.actions != other.actions).any()


def test_only_a_trained_policy_of_a_task_can_drive() -> None:
    manifest = load_manifest(SHIPPED_BUNDLE)
    untrained = manifest.training.model_copy(update={"steps": 0})
    assert can_drive(manifest)
    assert not can_drive(manifest.model_copy(update={"training": untrained}))
    assert not can_drive(manifest.model_copy(update={"task": None}))


@pytest.mark.parametrize("seeds", [range(999_999, 1_000_001), range(1_999_999, 2_000_001)])
def test_seeds_of_trials_and_validation_are_not_for_training(seeds: range) -> None:
    with pytest.raises(ConfigError, match="expected training seeds, 1000000 to 1999999"):
        require_training_seeds(seeds)
