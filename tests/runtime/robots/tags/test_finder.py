"""Cubes are found in pictures, at their places and turns."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("cv2")

from gatort.runtime.errors import ConfigError, ObservationError
from gatort.runtime.robots.cameras.opencv import cv2
from gatort.runtime.robots.tags.cubes import TaggedCube
from gatort.runtime.robots.tags.finder import CubeFinder, TagCorners, fit_pose

from .conftest import CUBES, camera, photograph, turned

RED = (np.array([0.47, 0.08, 0.025]), turned((0.0, 0.0, 0.5)))
BLUE = (np.array([0.55, -0.09, 0.0225]), turned((0.0, 0.0, -1.1)))


@pytest.mark.parametrize("seed", range(8))
def test_cubes_are_found_within_four_millimetres_and_two_degrees(seed: int) -> None:
    random = np.random.default_rng(seed)
    poses = {
        name: (
            np.array([random.uniform(0.4, 0.6), y, edge / 2]),
            turned((0.0, 0.0, random.uniform(-np.pi, np.pi))),
        )
        for name, y, edge in (("red", 0.08, 0.05), ("blue", -0.08, 0.045))
    }
    picture = photograph(poses, camera())
    noisy = np.clip(picture + random.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)

    found = {pose.name: pose for pose in CubeFinder(CUBES).find(noisy, camera())}

    assert found.keys() == poses.keys()
    for name, (position, rotation) in poses.items():
        assert np.linalg.norm(found[name].position_m - position) < 0.004
        angle_rad = np.linalg.norm(cv2.Rodrigues(rotation.T @ found[name].rotation)[0])
        assert np.degrees(angle_rad) < 2
        assert found[name].residual_px < 1


def test_the_poses_have_no_common_bias() -> None:
    """Corners that are off by half a pixel would move every cube sideways by 0.4 mm."""
    errors = []
    for seed in range(12):
        random = np.random.default_rng(100 + seed)
        position = np.array([random.uniform(0.42, 0.58), random.uniform(-0.1, 0.1), 0.025])
        rotation = turned((0.0, 0.0, random.uniform(-np.pi, np.pi)))
        picture = photograph({"red": (position, rotation)}, camera())
        errors += [pose.position_m - position for pose in CubeFinder(CUBES).find(picture, camera())]
    assert len(errors) == 12
    assert abs(np.mean(errors, axis=0)[1]) < 0.0003  # The camera looks along x.


def test_the_numbers_of_a_pose_are_place_and_quaternion() -> None:
    rotation = turned((0.2, -0.3, 0.9))
    picture = photograph({"red": (np.array([0.5, 0.0, 0.1]), rotation)}, camera())
    (pose,) = CubeFinder(CUBES).find(picture, camera())
    assert pose.numbers.shape == (7,)
    w, *vector = pose.numbers[3:]
    half = np.array(cv2.Rodrigues(pose.rotation)[0]).ravel() / 2
    assert w == pytest.approx(np.cos(np.linalg.norm(half)))
    np.testing.assert_allclose(vector, np.sinc(np.linalg.norm(half) / np.pi) * half, atol=1e-9)


def test_a_picture_without_tags_has_no_cube() -> None:
    assert CubeFinder(CUBES).find(np.full((720, 960), 90, np.uint8), camera()) == []


def test_a_tag_of_no_cube_is_left_out() -> None:
    picture = photograph({"red": RED, "blue": BLUE}, camera())
    only_blue = CubeFinder({"blue": CUBES["blue"]})
    assert [pose.name for pose in only_blue.find(picture, camera())] == ["blue"]


def test_a_tag_on_the_wrong_face_gives_no_pose() -> None:
    """The cube of the picture has its tags 0 to 5, the expected one has 3 to 8."""
    picture = photograph({"red": RED}, camera())
    assert CubeFinder({"red": CUBES["red"]}).find(picture, camera())
    wrong = CubeFinder({"red": TaggedCube(edge_m=0.05, tag_m=0.04, first_tag=3)})
    assert wrong.find(picture, camera()) == []
    assert "at most 2 px are taken: a tag was misread, or is on the" in wrong.unfit["red"]
    assert wrong.find(np.full((720, 960), 90, np.uint8), camera()) == []
    assert wrong.unfit == {}


def test_one_tag_alone_gives_no_pose() -> None:
    picture = photograph({"red": RED}, camera())
    corners = CubeFinder(CUBES).corners(picture)["red"]
    assert fit_pose("red", corners, camera().lens) is not None
    alone = TagCorners(corners.points_m[:4], corners.pixels[:4])
    with pytest.raises(ObservationError, match="1 tag seen, 2 are needed: turn the cube"):
        fit_pose("red", alone, camera().lens)


def test_two_cubes_with_one_tag_are_refused() -> None:
    with pytest.raises(ConfigError, match="found tag 5 on both"):
        CubeFinder({"a": CUBES["red"], "b": TaggedCube(edge_m=0.05, tag_m=0.04, first_tag=5)})
