"""The mapping file in docs/convert.md converts the data set that it describes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tests.datasets.conftest import moving_episode, write_demonstrations

from gatort.datasets.conversion import to_demonstrations, to_lerobot
from gatort.datasets.lerobot_layout import OWN
from gatort.datasets.mapping import read_mapping
from gatort.runtime.demonstrations import load_episodes, load_manifest
from gatort.runtime.episode import Episode
from gatort.runtime.spec import PolicySpec

PAGE = Path(__file__).parents[2] / "docs" / "convert.md"
PER_CENT = 1250.0
"""Opening of the gripper in the data set for one metre: 100 for 0.08 m."""
NAMES = ["shoulder", "elbow", "wrist", "gripper"]


def write_described(folder: Path, spec: PolicySpec, seeds: tuple[int, ...]) -> None:
    """Write degrees, per cents and a large picture in BGR, in features of other names."""
    top = spec.observations[0].model_copy(update={"name": "camera/top", "shape": (64, 64, 3)})
    keys = [key.model_copy(update={"low": (-1e4,) * key.size, "high": (1e4,) * key.size})
            for key in spec.observations[2:]]  # fmt: skip
    foreign = spec.model_copy(update={"observations": (top, spec.observations[1], *keys)})
    episodes = []
    for seed in seeds:
        episode = moving_episode(seed)
        front, wrist, position, velocity, width = episode.observations
        large = front[..., ::-1].repeat(2, axis=1).repeat(2, axis=2)
        action = np.degrees(episode.actions)
        action[:, 3] = episode.actions[:, 3] * PER_CENT
        episodes.append(
            Episode(
                seed,
                True,
                (large, wrist, np.degrees(position), np.degrees(velocity), width * PER_CENT),
                action,
                action,
            )
        )
    # Pictures come in the order of their names: top, wrist.
    demos = write_demonstrations(folder / "source", foreign, episodes)
    to_lerobot([demos], folder / "their-data")
    rename(folder / "their-data")


def rename(data_set: Path) -> None:
    """Split the state as the example has it, and take gatort's own record away."""
    (data_set / OWN).unlink()
    path = data_set / "data" / "chunk-000" / "file-000.parquet"
    table = pq.read_table(path)
    state = np.stack(table.column("observation.state").to_numpy())
    parts = {"observation.state": state[:, [0, 1, 2, 6]], "observation.velocity": state[:, 3:6]}
    table = table.drop_columns(["observation.state", "expert_action"])
    for name, values in parts.items():
        table = table.append_column(name, pa.array(list(values)))
    pq.write_table(table, path)

    info_path = data_set / "meta" / "info.json"
    info = json.loads(info_path.read_text())
    del info["features"]["expert_action"]
    for name, names in (("observation.state", NAMES), ("observation.velocity", None)):
        width = parts[name].shape[1]
        info["features"][name] = {"dtype": "float32", "shape": [width], "names": names}
    info_path.write_text(json.dumps(info))


def mappings() -> list[str]:
    """Return the mapping files of the page."""
    return re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_mapping_in_the_page_converts_the_data_set_that_it_describes(
    arm_spec: PolicySpec, shown: Path, tmp_path: Path
) -> None:
    write_described(tmp_path, arm_spec, (31, 32))
    (tmp_path / "demos").symlink_to(shown)
    (tmp_path / "mapping.toml").write_text(mappings()[0])
    to_demonstrations(
        tmp_path / "their-data", tmp_path / "back", read_mapping(tmp_path / "mapping.toml")
    )
    for found in load_episodes(tmp_path / "back", arm_spec):
        expected = moving_episode(found.seed)
        front, *others = zip(found.observations, expected.observations, strict=True)
        # The mean of four equal pixels, rounded once on the way.
        assert np.abs(front[0].astype(int) - front[1]).max() <= 2
        for mine, other in others:
            # Degrees in float32 have 24 bits.
            np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(found.actions, expected.actions, rtol=1e-6, atol=1e-7)


def test_the_mapping_with_a_specification_converts_a_file_of_robomimic(tmp_path: Path) -> None:
    (tmp_path / "mapping.toml").write_text(mappings()[1])
    position = moving_episode(1).observations[2][:, :2] * np.float32(0.5)
    with h5py.File(tmp_path / "demo.hdf5", "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": 20}})
        data["demo_0/obs/joint_pos"] = position
        data["demo_0/actions"] = position / np.array([2.9, 1.8])
    to_demonstrations(
        tmp_path / "demo.hdf5", tmp_path / "back", read_mapping(tmp_path / "mapping.toml")
    )
    (found,) = load_episodes(tmp_path / "back", load_manifest(tmp_path / "back").spec)
    np.testing.assert_array_equal(found.observations[0], position)
    np.testing.assert_allclose(found.actions, position, rtol=1e-6)
