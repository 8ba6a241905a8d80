"""The registry of tasks: names, seeds, and the interface that suits a policy."""

from __future__ import annotations

from itertools import pairwise

import pytest

from gatort.policies.loading import SHIPPED_BUNDLE
from gatort.runtime.bundle import load_manifest
from gatort.runtime.errors import ConfigError, SpecError
from gatort.sim.make import SimulatorName
from gatort.sim.tasks import TASKS, task_named, task_of
from gatort.sim.tasks.seeds import TRAINING_SEEDS, TRIAL_SEEDS, VALIDATION_SEEDS
from gatort.sim.tasks.task import with_pictures

SIMULATORS: tuple[SimulatorName, ...] = ("mujoco", "pybullet")


def test_training_validation_and_trial_seeds_never_meet() -> None:
    ranges = sorted((TRIAL_SEEDS, VALIDATION_SEEDS, TRAINING_SEEDS), key=lambda each: each.start)
    for lower, higher in pairwise(ranges):
        assert lower.stop <= higher.start


def test_a_task_is_registered_under_its_name() -> None:
    assert all(name == task.name for name, task in TASKS.items())


def test_an_unknown_task_is_refused_with_the_valid_names() -> None:
    with pytest.raises(ConfigError, match=r"expected a task, one of stacking.*found 'juggling'"):
        task_named("juggling")


def test_an_unknown_interface_is_refused_with_the_valid_names() -> None:
    with pytest.raises(ConfigError, match="one of stack, camera, gato; found 'sonar'"):
        task_named("stacking").interface_named("sonar")


def test_the_manifest_of_a_policy_names_its_task() -> None:
    manifest = load_manifest(SHIPPED_BUNDLE)
    assert task_of(manifest).name == "stacking"
    assert task_of(manifest, "stacking").name == "stacking"
    with pytest.raises(ConfigError, match="--task juggling: policy 'stack' is for task 'stacking'"):
        task_of(manifest, "juggling")


def test_a_policy_without_a_task_asks_for_one() -> None:
    manifest = load_manifest(SHIPPED_BUNDLE).model_copy(update={"task": None})
    with pytest.raises(ConfigError, match="'stack' names no task: give one with --task"):
        task_of(manifest)
    assert task_of(manifest, "stacking").name == "stacking"


def test_a_policy_that_suits_no_interface_is_refused_with_the_first_difference_from_each() -> None:
    task = task_named("stacking")
    spec = task.interface
    first, *others = spec.observations
    strange = first.model_copy(update={"name": "camera/side"})
    policy = spec.model_copy(update={"observations": (strange, *others)})
    with pytest.raises(SpecError, match="stack: the robot lacks observation key 'camera/side'"):
        task.interface_for(policy)


def test_a_policy_that_reads_fewer_keys_gets_the_interface_that_has_them_all() -> None:
    task = task_named("stacking")
    camera = task.interfaces["camera"]
    one_camera = camera.model_copy(update={"observations": camera.observations[1:]})
    assert task.interface_for(one_camera) == camera


def test_the_cameras_of_an_interface_have_the_size_that_the_policy_reads() -> None:
    task = task_named("stacking")
    wide = with_pictures(task.interfaces["camera"], {"camera/front": (96, 128, 3)})
    offered = task.interface_for(wide)
    assert [key.shape for key in offered.observations[:2]] == [(96, 128, 3), (64, 64, 3)]
