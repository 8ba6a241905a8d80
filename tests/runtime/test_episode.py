from __future__ import annotations

import os
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gatort.runtime.demonstrations import episode_files
from gatort.runtime.episode import Episode
from gatort.runtime.errors import DemonstrationError
from gatort.runtime.npz import read_npz
from gatort.runtime.spec import PolicySpec

TICKS = 5
MUTATED, SEED = 3_000, 0


@pytest.fixture
def episode(spec: PolicySpec) -> Episode:
    draw = np.random.default_rng(0)
    actions = draw.normal(size=(TICKS, len(spec.actuators))).astype(np.float32)
    return Episode(
        seed=7,
        succeeded=True,
        observations=tuple(
            draw.normal(size=(TICKS, *key.shape)).astype(key.dtype) for key in spec.observations
        ),
        actions=actions,
        expert_actions=actions.copy(),
    )


def test_labelled_ticks_are_read_as_they_were_written(
    spec: PolicySpec, episode: Episode, tmp_path: Path
) -> None:
    assert not len(episode.labelled)
    theirs = np.array([False, True, True, False, False])
    replace(episode, labelled=theirs).save(tmp_path / "7.npz", spec)
    assert Episode.load(tmp_path / "7.npz", spec).labelled.tolist() == theirs.tolist()
    replace(episode, labelled=theirs[:-1]).save(tmp_path / "8.npz", spec)
    with pytest.raises(DemonstrationError, match=r"labelled: expected booleans of shape \(5,\)"):
        Episode.load(tmp_path / "8.npz", spec)


def test_an_episode_is_read_as_it_was_written(
    spec: PolicySpec, episode: Episode, tmp_path: Path
) -> None:
    episode.save(tmp_path / "7.npz", spec)
    read = Episode.load(tmp_path / "7.npz", spec)
    assert (read.seed, read.succeeded) == (7, True)
    np.testing.assert_array_equal(read.actions, episode.actions)
    for found, expected in zip(read.observations, episode.observations, strict=True):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_not_finite_is_refused_by_file_key_and_tick(
    spec: PolicySpec, episode: Episode, tmp_path: Path, value: float
) -> None:
    episode.expert_actions[3, 1] = value
    episode.save(tmp_path / "7.npz", spec)
    with pytest.raises(DemonstrationError, match=r"7\.npz: expert_action: .* at tick 3"):
        Episode.load(tmp_path / "7.npz", spec)


def test_an_episode_in_degrees_is_refused_by_file_key_and_tick(
    spec: PolicySpec, episode: Episode, tmp_path: Path
) -> None:
    index = next(i for i, key in enumerate(spec.observations) if key.low)
    episode.observations[index][2] = 60
    episode.save(tmp_path / "7.npz", spec)
    name = spec.observations[index].name
    with pytest.raises(DemonstrationError, match=rf"7\.npz: {name}: .* found 60 at tick 2"):
        Episode.load(tmp_path / "7.npz", spec)


def test_an_action_without_ticks_is_refused(
    spec: PolicySpec, episode: Episode, tmp_path: Path
) -> None:
    episode.save(tmp_path / "7.npz", spec)
    arrays = read_npz(tmp_path / "7.npz", "an episode", DemonstrationError)
    np.savez(tmp_path / "8.npz", **(arrays | {"action": np.float32(0)}))
    with pytest.raises(DemonstrationError, match=r"8\.npz: "):
        Episode.load(tmp_path / "8.npz", spec)


def write_archive(path: Path, header: str, data: bytes = b"") -> None:
    text = header.encode().ljust(118) + b"\n"
    member = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("action.npy", member)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,)}", "claims"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", "shape"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", "no plain numbers"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", "claims"),
        ("(" * 100, "cannot be read"),
    ],
)
def test_a_header_that_claims_too_much_is_refused_before_memory_is_taken(
    tmp_path: Path, header: str, words: str
) -> None:
    write_archive(tmp_path / "x.npz", header)
    with pytest.raises(DemonstrationError, match=words):
        read_npz(tmp_path / "x.npz", "an episode", DemonstrationError)


def test_an_archive_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", action=np.zeros(80 << 20, np.uint8))
    assert (tmp_path / "bomb.npz").stat().st_size < 100_000
    tracemalloc.start()
    with pytest.raises(DemonstrationError, match="expected at most"):
        read_npz(tmp_path / "bomb.npz", "an episode", DemonstrationError)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_mutated_file_is_read_or_refused_in_one_way(
    spec: PolicySpec, episode: Episode, tmp_path: Path
) -> None:
    episode.save(tmp_path / "7.npz", spec)
    good = (tmp_path / "7.npz").read_bytes()
    draw = np.random.default_rng(SEED)
    sentences = []
    for _ in range(MUTATED):
        data = bytearray(good)
        for _ in range(int(draw.integers(1, 8))):
            data[draw.integers(len(data))] = draw.integers(256)
        cut = len(data) if draw.random() < 0.7 else int(draw.integers(len(data)))
        (tmp_path / "x.npz").write_bytes(data[:cut])
        try:
            Episode.load(tmp_path / "x.npz", spec)
        except DemonstrationError as error:
            sentences.append(str(error))
    assert len(sentences) > MUTATED // 2
    assert all("x.npz" in sentence for sentence in sentences)


def test_an_absent_file_is_refused_by_its_name(spec: PolicySpec, tmp_path: Path) -> None:
    with pytest.raises(
        DemonstrationError, match=r"none\.npz: expected an episode, found none \(No such file"
    ):
        Episode.load(tmp_path / "none.npz", spec)


def test_hidden_files_are_no_episodes_and_a_stray_name_is_refused(tmp_path: Path) -> None:
    for name in ("10.npz", "9.npz", "._10.npz", ".x.npz"):
        (tmp_path / name).touch()
    assert [path.name for path in episode_files(tmp_path)] == ["9.npz", "10.npz"]
    (tmp_path / "10 (1).npz").touch()
    with pytest.raises(DemonstrationError, match=r"10 \(1\)\.npz: expected episodes named by"):
        episode_files(tmp_path)


def test_a_pipe_is_no_episode_and_is_not_waited_for(spec: PolicySpec, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "7.npz")
    with pytest.raises(DemonstrationError, match=r"7\.npz: expected an episode, found a pipe"):
        Episode.load(tmp_path / "7.npz", spec)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", np.float64(np.nan)),
        ("places", np.full((TICKS, 2, 3), np.nan)),
        ("places", np.zeros((TICKS, 6))),
        ("action", np.full((TICKS, 3), 1e300)),
    ],
)
def test_an_array_that_training_cannot_use_is_refused_by_name(
    spec: PolicySpec, episode: Episode, tmp_path: Path, name: str, value: object
) -> None:
    episode.save(tmp_path / "7.npz", spec)
    arrays = read_npz(tmp_path / "7.npz", "an episode", DemonstrationError)
    np.savez(tmp_path / "8.npz", **(arrays | {name: value}))
    with pytest.raises(DemonstrationError, match=rf"8\.npz: {name}: expected"):
        Episode.load(tmp_path / "8.npz", spec)
