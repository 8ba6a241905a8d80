"""Lens and place follow from pictures, and refuse pictures that do not tell them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2")
pytest.importorskip("scipy")

from gatort.runtime.errors import ConfigError, ObservationError
from gatort.runtime.robots.cameras.calibration import CameraCalibration, CameraPlace
from gatort.runtime.robots.cameras.opencv import cv2
from gatort.runtime.robots.kinematics import tool_pose
from gatort.runtime.robots.panda import HOME_RAD
from gatort.runtime.robots.tags.calibrate import (
    BoardView,
    HandView,
    fit_lens,
    fit_place,
    guess_tilt_rad,
)
from gatort.runtime.robots.tags.finder import TagCorners

from .conftest import CUBES, LENS, camera, project, turned

HELD = np.array([0.003, -0.004, 0.005])
NOISE_PX = 0.15


def hand_views(postures: int, spread_rad: float, seed: int = 0) -> list[HandView]:
    """Return views of a cube in the hand in random postures around the first one of trials."""
    random = np.random.default_rng(seed)
    views = []
    for _ in range(postures):
        joints = HOME_RAD + random.uniform(-spread_rad, spread_rad, 7)
        position, rotation = tool_pose(joints)
        in_cube = CUBES["red"].corners_m()[[0, 2, 4]].reshape(-1, 3)
        in_world = (in_cube @ turned((0.1, 0.0, 0.7)).T + HELD) @ rotation.T + position
        pixels = project(in_world, camera()) + random.normal(0, NOISE_PX, (len(in_cube), 2))
        views.append(HandView(position, rotation, TagCorners(in_cube, pixels)))
    return views


@pytest.mark.parametrize("seed", range(4))
def test_the_place_follows_from_a_cube_in_the_hand(seed: int) -> None:
    found = fit_place(hand_views(15, 0.4, seed), LENS)
    wanted = camera().place
    assert wanted is not None
    assert np.linalg.norm(found.place.pose.position_m - wanted.pose.position_m) < 0.002
    turn = wanted.pose.rotation.T @ found.place.pose.rotation
    assert np.degrees(np.linalg.norm(cv2.Rodrigues(turn)[0])) < 0.2
    assert found.place.residual_px == pytest.approx(NOISE_PX * 2**0.5, rel=0.2)


def test_a_hand_that_hardly_moves_is_refused_with_the_expected_error() -> None:
    with pytest.raises(ObservationError, match="move the hand further"):
        fit_place(hand_views(15, 0.01), LENS)


def test_too_few_postures_are_refused() -> None:
    with pytest.raises(ObservationError, match="expected at least 8 postures"):
        fit_place(hand_views(5, 0.4), LENS)


def board_views(pictures: int, tilt_rad: float) -> list[BoardView]:
    """Return views of a board, tilted by up to an angle about each axis."""
    random = np.random.default_rng(3)
    board = np.array([(x, y) for x in range(6) for y in range(4)]) * 0.04 - (0.1, 0.06)
    views = []
    for _ in range(pictures):
        turn = random.uniform(-tilt_rad, tilt_rad, 3)
        shift = np.array([random.uniform(-0.12, 0.12), random.uniform(-0.1, 0.1), 0.5])
        solid = np.pad(board, ((0, 0), (0, 1)))
        seen = cv2.projectPoints(solid, turn, shift, LENS.matrix, np.array(LENS.distortion))[0]
        pixels = np.array(seen).reshape(-1, 2) + random.normal(0, 0.05, (len(board), 2))
        views.append(BoardView(board, pixels))
    return views


def test_the_lens_follows_from_pictures_of_a_board() -> None:
    views = board_views(12, 0.5)
    lens = fit_lens(views, LENS.frame_size)
    np.testing.assert_allclose(lens.focal_px, LENS.focal_px, rtol=0.01)
    np.testing.assert_allclose(lens.centre_px, LENS.centre_px, atol=5)
    assert lens.residual_px is not None
    assert lens.residual_px < 0.1
    with pytest.raises(ObservationError, match="expected at least 8 pictures"):
        fit_lens(views[:7], LENS.frame_size)


def test_a_board_that_was_held_flat_tells_no_lens() -> None:
    with pytest.raises(ObservationError, match=r"tilted by 15° or more .* in 0 of 12: tilt it by"):
        fit_lens(board_views(12, 0.03), LENS.frame_size)


def test_a_calibration_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "front.json"
    path.write_text(camera().text)
    assert CameraCalibration.load(path) == camera()


@pytest.mark.parametrize(
    "content", ["", "{}", '{"lens": 1}', camera().text.replace("870", "NaN"), "[" * 10_000]
)
def test_a_file_that_is_no_calibration_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "front.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"front.json: expected a calibration"):
        CameraCalibration.load(path)


def test_a_rotation_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="expected rows of length 1"):
        CameraPlace(position_m=(0, 0, 0), rotation=((1, 0, 0), (0, 2, 0), (0, 0, 1)))


@pytest.mark.parametrize("tilt_deg", [0, 15, 45])
@pytest.mark.parametrize("focal_px", [576.0, 864.0, 1152.0])
def test_the_tilt_of_a_board_is_guessed_before_the_lens_is_known(
    tilt_deg: float, focal_px: float
) -> None:
    """Lenses of 0.6, 0.9 and 1.2 widths of the picture; 0.9 is the guess."""
    board = np.array([(x, y) for x in range(6) for y in range(4)]) * 0.04 - (0.1, 0.06)
    matrix = np.array([[focal_px, 0, 480], [0, focal_px, 360], [0, 0, 1]])
    turn, shift = np.array([np.radians(tilt_deg), 0, 0]), np.array([0.05, 0.0, 0.5])
    solid = np.pad(board, ((0, 0), (0, 1)))
    pixels = np.array(cv2.projectPoints(solid, turn, shift, matrix, None)[0]).reshape(-1, 2)
    guessed_deg = np.degrees(guess_tilt_rad(BoardView(board, pixels), (960, 720)))
    # A wrong focal length moves the guess. Exact at 0.9, and within 4° at the others.
    assert guessed_deg == pytest.approx(tilt_deg, abs=0.1 if focal_px == 864.0 else 4.0)
