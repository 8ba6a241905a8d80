"""Demonstrations and recordings become a LeRobotDataset and come back equal."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.datasets.conftest import write_demonstrations

from gatort.datasets import lerobot_layout
from gatort.datasets.conversion import from_recordings, to_demonstrations, to_lerobot
from gatort.runtime.demonstrations import episode_files, load_manifest
from gatort.runtime.episode import Episode
from gatort.runtime.errors import ConfigError, DemonstrationError
from gatort.runtime.spec import PolicySpec

ROOT = Path(__file__).parents[2]
RECORDINGS = ROOT / "tests" / "data" / "recordings"
LEROBOT_PYTHON = ROOT / ".venv-lerobot" / "bin" / "python"
LOADER = Path(__file__).parent / "lerobot" / "load.py"


def episodes_in(folder: Path) -> list[Episode]:
    spec = load_manifest(folder).spec
    return [Episode.load(path, spec) for path in episode_files(folder)]


def assert_equal(found: Episode, expected: Episode) -> None:
    assert (found.seed, found.succeeded) == (expected.seed, expected.succeeded)
    for mine, other in zip(found.observations, expected.observations, strict=True):
        assert mine.dtype == other.dtype
        np.testing.assert_array_equal(mine, other)
    np.testing.assert_array_equal(found.actions, expected.actions)
    np.testing.assert_array_equal(found.expert_actions, expected.expert_actions)
    np.testing.assert_array_equal(found.places, expected.places)
    np.testing.assert_array_equal(found.stamps_ns, expected.stamps_ns)
    np.testing.assert_array_equal(found.labelled, expected.labelled)


def test_demonstrations_come_back_from_a_lerobot_data_set_to_the_last_bit(
    shown: Path, tmp_path: Path
) -> None:
    there = to_lerobot([shown], tmp_path / "lerobot")
    back = to_demonstrations(tmp_path / "lerobot", tmp_path / "back")
    assert (there.episodes, there.ticks, there.successes) == (4, 240, 2)
    assert back.spec == load_manifest(shown).spec
    for found, expected in zip(episodes_in(tmp_path / "back"), episodes_in(shown), strict=True):
        assert_equal(found, expected)
    assert load_manifest(tmp_path / "back").driver == "a test"


def test_small_films_change_the_pictures_little_and_the_numbers_not_at_all(
    shown: Path, tmp_path: Path
) -> None:
    to_lerobot([shown], tmp_path / "lerobot", lossless=False)
    to_demonstrations(tmp_path / "lerobot", tmp_path / "back")
    for found, expected in zip(episodes_in(tmp_path / "back"), episodes_in(shown), strict=True):
        for mine, other in zip(found.observations[:2], expected.observations[:2], strict=True):
            # Noise of 60 levels is the worst that a film meets; halved colours alone cost 10.
            error = np.abs(mine.astype(int) - other.astype(int)).mean()
            assert 0 < error < 15
        np.testing.assert_array_equal(found.actions, expected.actions)


def test_a_recording_comes_back_as_the_episode_that_it_holds(tmp_path: Path) -> None:
    recording = RECORDINGS / "greedy.mcap"
    direct = from_recordings([recording], tmp_path / "direct")
    to_lerobot([recording], tmp_path / "lerobot")
    to_demonstrations(tmp_path / "lerobot", tmp_path / "back")
    (expected,), (found,) = episodes_in(tmp_path / "direct"), episodes_in(tmp_path / "back")
    assert direct.ticks == expected.ticks > 1
    assert np.all(np.diff(expected.stamps_ns) > 0)
    assert_equal(found, expected)


def test_a_data_set_has_the_form_of_version_3(shown: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lerobot"
    to_lerobot([shown], folder)
    info = json.loads((folder / "meta" / "info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert (info["fps"], info["total_frames"], info["total_episodes"]) == (20, 240, 4)
    assert info["features"]["observation.state"]["names"][:2] == [
        "arm/joint_position/0", "arm/joint_position/1",
    ]  # fmt: skip
    data = pq.read_table(folder / "data" / "chunk-000" / "file-000.parquet")
    assert data.column("index").to_pylist() == list(range(240))
    np.testing.assert_allclose(data.column("timestamp").to_numpy()[:3], [0, 0.05, 0.1], atol=1e-6)
    statistics = json.loads((folder / "meta" / "stats.json").read_text())
    states = np.stack(data.column("observation.state").to_numpy())
    np.testing.assert_allclose(statistics["observation.state"]["mean"], states.mean(0), rtol=1e-5)
    red = statistics["observation.images.front"]["mean"][0][0][0]
    pictures = np.concatenate([each.observations[0] for each in episodes_in(shown)])
    assert red == pytest.approx(pictures[..., 0].mean() / 255)


def test_files_that_are_full_are_followed_by_the_next_ones(
    shown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lerobot_layout, "DATA_MB", 0)
    monkeypatch.setattr(lerobot_layout, "VIDEO_MB", 0)
    to_lerobot([shown], tmp_path / "lerobot")
    assert len(list((tmp_path / "lerobot" / "data").rglob("*.parquet"))) == 4
    assert len(list((tmp_path / "lerobot" / "videos").rglob("*.mp4"))) == 8
    to_demonstrations(tmp_path / "lerobot", tmp_path / "back")
    for found, expected in zip(episodes_in(tmp_path / "back"), episodes_in(shown), strict=True):
        assert_equal(found, expected)


def test_every_kind_of_key_comes_back(every_encoding_spec: PolicySpec, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = tuple(
        rng.integers(0, 200, (5, *key.shape)).astype(key.dtype)
        if key.dtype != "float32"
        else rng.uniform(-3, 3, (5, *key.shape)).astype(np.float32)
        for key in every_encoding_spec.observations
    )
    actions = rng.uniform(-30, 30, (5, 3)).astype(np.float32)
    places = rng.uniform(-1, 1, (5, 4, 3)).astype(np.float32)
    labelled = np.array([False, True, True, False, False])
    episode = Episode(7, True, values, actions, actions, places, labelled=labelled)
    demos = write_demonstrations(tmp_path / "demos", every_encoding_spec, [episode])
    to_lerobot([demos], tmp_path / "lerobot")
    to_demonstrations(tmp_path / "lerobot", tmp_path / "back")
    (found,) = episodes_in(tmp_path / "back")
    assert_equal(found, episode)


def test_a_folder_with_files_is_left_alone(shown: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(ConfigError, match="expected a new or empty folder, found one with files"):
        to_lerobot([shown], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_refusal_leaves_nothing_behind(shown: Path, tmp_path: Path) -> None:
    spec = load_manifest(shown).spec
    stamped = episodes_in(shown)[0]
    bare = replace(stamped, seed=5, stamps_ns=np.empty(0, np.int64))
    mixed = write_demonstrations(tmp_path / "mixed", spec, [stamped, bare])
    with pytest.raises(DemonstrationError, match="only one of the two has 'stamp_ns'"):
        to_lerobot([mixed], tmp_path / "lerobot")
    assert [path.name for path in tmp_path.iterdir()] == ["mixed"]


@pytest.mark.slow
@pytest.mark.skipif(
    not LEROBOT_PYTHON.exists(), reason="no .venv-lerobot: make .venv-lerobot/.installed"
)
def test_lerobots_own_loader_gives_the_recorded_values(shown: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "lerobot", tmp_path / "loaded.npz"
    to_lerobot([shown], folder)
    subprocess.run([LEROBOT_PYTHON, "-P", LOADER, folder, out], check=True, timeout=300)
    loaded = np.load(out)
    episodes = episodes_in(shown)
    front, wrist, position, velocity, width = (
        np.concatenate(values)
        for values in zip(*(each.observations for each in episodes), strict=True)
    )
    state = np.concatenate([position, velocity, width], axis=1)
    np.testing.assert_array_equal(loaded["observation.state"], state)
    np.testing.assert_array_equal(
        loaded["action"], np.concatenate([each.actions for each in episodes])
    )
    np.testing.assert_array_equal(
        loaded["stamp_ns"], np.concatenate([each.stamps_ns for each in episodes])
    )
    for name, pictures in (("front", front), ("wrist", wrist)):
        shares = loaded[f"observation.images.{name}"]  # (N, 3, H, W), from 0 to 1
        np.testing.assert_array_equal(np.rint(shares.transpose(0, 2, 3, 1) * 255), pictures)
    assert loaded["fps"] == 20
    assert loaded["episodes"] == 4
    assert set(loaded["tasks"]) == {"unnamed"}
    np.testing.assert_allclose(loaded["stats/observation.state/mean"], state.mean(0), rtol=1e-5)
