"""The pictures of a film are those that the policy got, tick by tick."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gatort.launch import picture_track
from gatort.launch.picture_track import PictureTrack
from gatort.runtime.robot import Observation
from gatort.runtime.spec import PolicySpec


def observation(spec: PolicySpec, level: int) -> Observation:
    values: list[NDArray[Any]] = [
        np.full(key.shape, level + index, key.dtype) for index, key in enumerate(spec.observations)
    ]
    return Observation(level, 0, tuple(values), np.zeros(3))


def test_each_tick_keeps_its_own_pictures_and_nothing_else(every_encoding_spec: PolicySpec) -> None:
    keys = every_encoding_spec.observations
    track = PictureTrack(keys, ticks=3)
    for level in (10, 20, 30, 40):
        track.keep(observation(every_encoding_spec, level))
    images = [index for index, key in enumerate(keys) if key.encoding == "image"]
    assert len(track.pictures) == len(images) == 2
    for index, camera in zip(images, track.pictures, strict=True):
        assert camera.shape == (3, *keys[index].shape)
        assert camera[:, 0, 0, 0].tolist() == [10 + index, 20 + index, 30 + index]
    assert [picture[0, 0, 0] for picture in track.newest] == [40 + index for index in images]


def test_a_tick_without_an_observation_repeats_the_last_pictures(
    every_encoding_spec: PolicySpec,
) -> None:
    track = PictureTrack(every_encoding_spec.observations, ticks=3)
    track.keep(observation(every_encoding_spec, 10))
    track.keep(None)
    track.keep(observation(every_encoding_spec, 20))
    first = track.pictures[0]
    np.testing.assert_array_equal(first[0], first[1])
    assert (first[2] != first[1]).all()


def test_the_memory_has_a_limit(
    every_encoding_spec: PolicySpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    tick_bytes = 2 * 16 * 32 * 3
    monkeypatch.setattr(picture_track, "MOST_BYTES", 2 * tick_bytes + 1)
    track = PictureTrack(every_encoding_spec.observations, ticks=100)
    for level in range(5):
        track.keep(observation(every_encoding_spec, level))
    assert [len(camera) for camera in track.pictures] == [2, 2]


def test_a_robot_without_cameras_has_no_pictures(spec: PolicySpec) -> None:
    track = PictureTrack(spec.observations, ticks=3)
    track.keep(observation(spec, 1))
    assert (list(track.pictures), list(track.newest)) == ([], [])
