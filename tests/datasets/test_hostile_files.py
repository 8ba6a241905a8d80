"""Files that anybody may have written are refused with a sentence, and lead nowhere."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gatort.datasets.conversion import to_demonstrations, to_lerobot
from gatort.datasets.mapping import read_mapping
from gatort.datasets.robomimic import RobomimicFile
from gatort.runtime.errors import ConfigError, DemonstrationError, GatortError


@pytest.fixture
def lerobot(shown: Path, tmp_path: Path) -> Path:
    to_lerobot([shown], tmp_path / "lerobot")
    return tmp_path / "lerobot"


def refusal(lerobot: Path) -> str:
    with pytest.raises(GatortError) as refused:
        to_demonstrations(lerobot, lerobot.parent / "back")
    assert not (lerobot.parent / "back").exists()
    return str(refused.value)


def change_info(lerobot: Path, **fields: Any) -> None:
    path = lerobot / "meta" / "info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


DATA = Path("data", "chunk-000", "file-000.parquet")
FILM = Path("videos", "observation.images.front", "chunk-000", "file-000.mp4")
EPISODES = Path("meta", "episodes", "chunk-000", "file-000.parquet")


@pytest.mark.parametrize("name", [DATA, FILM, EPISODES, Path("meta", "info.json")])
def test_a_file_that_was_cut_off_is_refused(lerobot: Path, name: Path) -> None:
    path = lerobot / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert refusal(lerobot).startswith(str(path))


@pytest.mark.parametrize("name", [DATA, FILM, EPISODES])
def test_a_link_is_refused(lerobot: Path, name: Path) -> None:
    path = lerobot / name
    path.rename(lerobot.parent / "elsewhere")
    path.symlink_to(lerobot.parent / "elsewhere")
    assert "found a link; copy the data set with `cp -rL` first" in refusal(lerobot)


def test_a_pipe_is_refused_without_waiting(lerobot: Path) -> None:
    (lerobot / DATA).unlink()
    os.mkfifo(lerobot / DATA)
    assert refusal(lerobot).endswith("expected a table, found a pipe")


def test_a_pattern_that_leads_out_of_the_folder_is_refused(lerobot: Path) -> None:
    change_info(lerobot, data_path="../{chunk_index}/{file_index}.parquet")
    assert "data_path: expected data/chunk-{chunk_index:03d}" in refusal(lerobot)


def test_another_version_is_refused(lerobot: Path) -> None:
    change_info(lerobot, codebase_version="v2.1")
    assert "codebase_version: expected v3.0, found 'v2.1'" in refusal(lerobot)


def test_more_episodes_than_there_are_are_refused(lerobot: Path) -> None:
    change_info(lerobot, total_episodes=5)
    assert "expected episodes 0 to 4, as meta/info.json says, found 4 others" in refusal(lerobot)


def test_a_column_of_objects_is_refused(lerobot: Path) -> None:
    table = pq.read_table(lerobot / DATA)
    index = table.column_names.index("action")
    texts = pa.array(["cos\nsystem"] * table.num_rows)
    pq.write_table(table.set_column(index, "action", texts), lerobot / DATA)
    assert "action: expected numbers in every row, found string" in refusal(lerobot)


def test_rows_of_another_length_are_refused(lerobot: Path) -> None:
    table = pq.read_table(lerobot / DATA)
    index = table.column_names.index("action")
    rows = pa.array([[0.0]] * table.num_rows)
    pq.write_table(table.set_column(index, "action", rows), lerobot / DATA)
    assert "action: expected 4 values in each row" in refusal(lerobot)


def test_a_table_that_would_fill_the_memory_is_refused_before_it_is_read(lerobot: Path) -> None:
    many = pa.array(np.zeros(1 << 23, np.int64))
    pq.write_table(pa.table({"episode_index": many}), lerobot / DATA)
    assert (lerobot / DATA).stat().st_size < 1 << 20
    assert "8388608 rows, expected at most" in refusal(lerobot)


def test_an_episode_that_would_fill_the_memory_is_refused(lerobot: Path) -> None:
    table = pq.read_table(lerobot / EPISODES).to_pylist()
    for row in table:
        row["length"] = 1 << 21
    pq.write_table(pa.Table.from_pylist(table), lerobot / EPISODES)
    change_info(lerobot, total_frames=4 << 21)
    assert "episode 0: expected at most 4 GiB" in refusal(lerobot)


def test_a_film_of_other_pictures_is_refused(lerobot: Path) -> None:
    path = lerobot / "meta" / "info.json"
    info = json.loads(path.read_text())
    info["features"]["observation.images.front"]["shape"] = [16, 16, 3]
    path.write_text(json.dumps(info))
    assert "expected pictures of shape (32, 32, 3), found (16, 16, 3)" in refusal(lerobot)


def test_a_film_that_is_another_format_is_not_followed(lerobot: Path) -> None:
    (lerobot / FILM).write_text(f"ffconcat version 1.0\nfile '{lerobot / FILM}'\n")
    assert "expected a whole mp4 file, found one that cannot be read" in refusal(lerobot)


# -- HDF5 ----------------------------------------------------------------------------------------


@pytest.fixture
def hdf5(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "demo.hdf5", "w") as file:
        group = file.create_group("data/demo_0")
        group["actions"] = np.zeros((4, 3))
        group["obs/joints"] = np.zeros((4, 2))
    return tmp_path / "demo.hdf5"


def read(path: Path, *names: str) -> None:
    file = RobomimicFile(path)
    list(file.episodes([*file.columns, *names]))


def test_an_external_link_is_refused(hdf5: Path) -> None:
    with h5py.File(hdf5, "a") as file:
        file["data/demo_0/obs/secret"] = h5py.ExternalLink("/etc/passwd", "/")
    with pytest.raises(
        DemonstrationError, match="secret: expected an array or a group, found a li"
    ):
        read(hdf5, "obs/secret")


def test_an_array_in_another_file_is_refused(hdf5: Path) -> None:
    with h5py.File(hdf5, "a") as file:
        file.create_dataset("data/demo_0/obs/secret", (4,), "u1", external=[("/etc/passwd", 0, 4)])
    with pytest.raises(DemonstrationError, match="expected an array in this file, found one in an"):
        read(hdf5)


def test_an_array_of_objects_is_refused(hdf5: Path) -> None:
    with h5py.File(hdf5, "a") as file:
        file.create_dataset("data/demo_0/obs/text", (4,), h5py.string_dtype())
    with pytest.raises(DemonstrationError, match="expected an array of numbers, found object"):
        read(hdf5, "obs/text")


def test_an_array_that_would_fill_the_memory_is_refused(hdf5: Path) -> None:
    with h5py.File(hdf5, "a") as file:
        file.create_dataset("data/demo_0/obs/huge", (1 << 20, 4096), "f4", chunks=(1, 4096))
    with pytest.raises(DemonstrationError, match=r"huge: expected at most .* bytes, found shape"):
        read(hdf5)


def test_a_file_that_is_no_hdf5_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo.hdf5").write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(DemonstrationError, match="expected a whole HDF5 file"):
        read(tmp_path / "demo.hdf5")


def test_a_file_that_was_cut_off_is_refused_as_hdf5(hdf5: Path) -> None:
    content = hdf5.read_bytes()
    for share in (0.3, 0.6, 0.9):
        hdf5.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(DemonstrationError):
            read(hdf5)


# -- Mapping files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("keys = [", "expected TOML, found"),
        (f"keys{'.a' * 500} = 1", "expected lines of at most 1000 characters"),
        (
            "tas = 1\n[keys]\n[action]\nfrom = 'a'",
            "tas: expected no such key, found 1; valid ones are task, like",
        ),
        ("[keys]\n[action]\nfrom = 'a'", "expected task, like or specification, found none"),
        ("task = 'x'\n[keys]\n[action]\nfrm = 'a'", "action.from: expected a value, found none"),
        ("task = 'x'\n[keys]\n[action]\nfrom = 'a'\nunits = 'rad'", "valid ones are from, columns"),
    ],
)
def test_a_mapping_that_is_not_valid_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "mapping.toml").write_text(text)
    with pytest.raises(ConfigError) as refused:
        read_mapping(tmp_path / "mapping.toml")
    assert sentence in str(refused.value)
