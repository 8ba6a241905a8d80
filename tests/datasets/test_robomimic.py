"""Robomimic's HDF5 files become demonstrations through a mapping."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from tests.datasets.conftest import moving_episode

from gatort.datasets.conversion import Converted, to_demonstrations
from gatort.datasets.mapping import read_mapping
from gatort.runtime.demonstrations import load_episodes, load_manifest
from gatort.runtime.errors import DemonstrationError
from gatort.runtime.spec import PolicySpec

MAPPING = """
[keys."camera/front"]
from = "obs/agentview_image"

[keys."camera/wrist"]
from = "obs/eye_in_hand_image"

[keys."arm/joint_position"]
from = "obs/joint_pos"

[keys."arm/joint_velocity"]
from = "obs/joint_vel"

[keys."gripper/width"]
from = "obs/gripper"

[action]
from = "actions"

[specification]
"""


def toml_of(spec: PolicySpec) -> str:
    """Return a specification as a table of a mapping file."""
    fields = json.loads(spec.model_dump_json(exclude_defaults=True))
    plain = [f"{name} = {json.dumps(value)}" for name, value in fields.items()
             if not isinstance(value, list)]  # fmt: skip
    tables = [
        "\n".join(
            [f"[[specification.{name}]]", *(f"{k} = {json.dumps(v)}" for k, v in row.items())]
        )
        for name in ("observations", "actuators")
        for row in fields[name]
    ]
    return "\n".join([*plain, *tables])


def write(path: Path, change: Callable[[h5py.Group], None] = lambda _: None, hz: int = 20) -> None:
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": hz}})
        for number in (0, 1, 10):
            episode = moving_episode(number)
            demo = data.create_group(f"demo_{number}")
            names = ("agentview_image", "eye_in_hand_image", "joint_pos", "joint_vel", "gripper")
            for name, values in zip(names, episode.observations, strict=True):
                stored = values[:, 0] if name == "gripper" else values
                demo.create_dataset(f"obs/{name}", data=stored, compression="gzip")
            demo["actions"] = episode.actions.astype(np.float64)
            demo["rewards"] = (np.arange(60) == 59) * float(number == 10)
            change(demo)


def convert(folder: Path, spec: PolicySpec, mapping: str = MAPPING) -> Converted:
    file = folder / "mapping.toml"
    file.write_text(mapping + toml_of(spec))
    return to_demonstrations(folder / "demo.hdf5", folder / "back", read_mapping(file))


def test_a_file_of_robomimic_becomes_demonstrations(arm_spec: PolicySpec, tmp_path: Path) -> None:
    write(tmp_path / "demo.hdf5")
    converted = convert(tmp_path, arm_spec)
    assert (converted.episodes, converted.successes, converted.ticks) == (3, 1, 180)
    episodes = load_episodes(tmp_path / "back", arm_spec)
    assert [each.seed for each in episodes] == [0, 1, 10]
    for found in episodes:
        expected = moving_episode(found.seed)
        for mine, other in zip(found.observations, expected.observations, strict=True):
            np.testing.assert_array_equal(mine, other)
        np.testing.assert_array_equal(found.actions, expected.actions)
    assert load_manifest(tmp_path / "back").driver == "HDF5 demo.hdf5"


def test_the_rate_of_the_environment_is_compared(arm_spec: PolicySpec, tmp_path: Path) -> None:
    write(tmp_path / "demo.hdf5", hz=100)
    with pytest.raises(DemonstrationError, match="found 100; state take_every = 5 to keep one ti"):
        convert(tmp_path, arm_spec)


def test_a_file_without_a_rate_needs_one_in_the_mapping(
    arm_spec: PolicySpec, tmp_path: Path
) -> None:
    write(tmp_path / "demo.hdf5", lambda demo: demo.parent.attrs.clear())
    with pytest.raises(DemonstrationError, match="found none; state fps in the mapping"):
        convert(tmp_path, arm_spec)


def test_arrays_of_different_lengths_are_refused(arm_spec: PolicySpec, tmp_path: Path) -> None:
    def lengthen(demo: h5py.Group) -> None:
        values = np.asarray(demo["obs/joint_pos"])
        del demo["obs/joint_pos"]
        demo["obs/joint_pos"] = np.concatenate([values, values[-1:]])

    write(tmp_path / "demo.hdf5", lengthen)
    with pytest.raises(DemonstrationError, match="found 61 in obs/joint_pos and 60 in"):
        convert(tmp_path, arm_spec)


def test_fractions_for_discrete_ids_are_refused(arm_spec: PolicySpec, tmp_path: Path) -> None:
    discrete = {"dtype": "int32", "encoding": "discrete", "low": (), "high": (), "unit": "1"}
    keys = (*arm_spec.observations[:4], arm_spec.observations[4].model_copy(update=discrete))
    write(tmp_path / "demo.hdf5")
    with pytest.raises(
        DemonstrationError, match="gripper/width: expected whole numbers of 32 bits"
    ):
        convert(tmp_path, arm_spec.model_copy(update={"observations": keys}))


def test_a_value_that_is_no_number_is_refused(arm_spec: PolicySpec, tmp_path: Path) -> None:
    def spoil(demo: h5py.Group) -> None:
        demo["actions"][7, 1] = np.nan

    write(tmp_path / "demo.hdf5", spoil)
    with pytest.raises(DemonstrationError, match="action: expected finite numbers, found another "):
        convert(tmp_path, arm_spec)


def test_a_label_that_is_no_number_is_refused(arm_spec: PolicySpec, tmp_path: Path) -> None:
    def spoil(demo: h5py.Group) -> None:
        demo["labels"] = np.asarray(demo["actions"])
        demo["labels"][7, 1] = np.inf

    write(tmp_path / "demo.hdf5", spoil)
    labelled = '[expert_action]\nfrom = "labels"\n' + MAPPING
    with pytest.raises(DemonstrationError, match="expert_action: expected finite numbers, found"):
        convert(tmp_path, arm_spec, labelled)
