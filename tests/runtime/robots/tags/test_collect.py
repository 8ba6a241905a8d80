"""Pictures for a calibration are taken when they show something new, and the arm rests."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("cv2")
pytest.importorskip("scipy")

from gatort.runtime.robots.cameras.board import Board
from gatort.runtime.robots.cameras.opencv import cv2
from gatort.runtime.robots.cameras.placement import draw_board
from gatort.runtime.robots.kinematics import tool_pose
from gatort.runtime.robots.panda import HOME_RAD
from gatort.runtime.robots.tags.calibrate import FEWEST_TILTED
from gatort.runtime.robots.tags.collect import BOARDS, HANDS, BoardPictures, HandPictures
from gatort.runtime.robots.tags.finder import CubeFinder, TagCorners

from .conftest import CUBES, LENS, camera, photograph, turned

MS = 1_000_000


def test_a_board_is_taken_once_at_each_place() -> None:
    boards = BoardPictures(Board())
    drawn = draw_board(Board(), square_px=30)
    first = np.pad(drawn, ((40, 200), (40, 300)), constant_values=255)
    moved = np.pad(drawn, ((200, 40), (300, 40)), constant_values=255)
    assert boards.offer(np.full((300, 300), 99, np.uint8)) == "the board is not seen"
    assert boards.offer(first) == ""
    assert boards.offer(first).startswith("move the board")
    assert boards.offer(moved) == ""
    assert boards.left == BOARDS - 2


def board_picture(tilt_rad: float, shift_px: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Return a picture (720, 960) of a board, tilted about its longer axis and moved."""
    drawn = draw_board(Board(), square_px=40)
    height, width = drawn.shape
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    flat = corners - (width / 2, height / 2)
    half = np.pad(flat, ((0, 0), (0, 1))) @ turned((tilt_rad, 0.0, 0.0)).T
    depth = 1 + half[:, 2:] / LENS.focal_px[0]
    seen = half[:, :2] / depth + np.array([480, 360]) + shift_px
    warp = cv2.getPerspectiveTransform(corners, seen.astype(np.float32))
    picture = np.full((720, 960), 255, np.uint8)
    return cv2.warpPerspective(
        drawn, warp, (960, 720), dst=picture, borderMode=cv2.BORDER_TRANSPARENT
    )


def test_a_flat_board_is_no_longer_taken_once_only_tilted_ones_are_missing() -> None:
    boards = BoardPictures(Board())
    places = iter([(x, y) for x in range(-250, 251, 50) for y in (-150, 150)])
    for _ in range(BOARDS - FEWEST_TILTED):
        assert boards.offer(board_picture(0.1, next(places))) == ""
    assert (boards.left, boards.tilted_left) == (FEWEST_TILTED, FEWEST_TILTED)
    assert boards.offer(board_picture(0.1, next(places))).startswith("tilt the board")
    for _ in range(FEWEST_TILTED):
        assert boards.offer(board_picture(0.7, next(places))) == ""
    assert (boards.left, boards.tilted_left) == (0, 0)


def test_a_board_that_is_tilted_where_it_lay_flat_shows_something_new() -> None:
    boards = BoardPictures(Board())
    assert boards.offer(board_picture(0.0)) == ""
    assert boards.tilted_left == FEWEST_TILTED
    assert boards.offer(board_picture(0.7)) == ""
    assert boards.tilted_left == FEWEST_TILTED - 1


def test_a_posture_is_taken_after_half_a_second_of_rest_and_only_once() -> None:
    hands = HandPictures(CubeFinder(CUBES), "red")
    position, rotation = tool_pose(HOME_RAD)
    picture = photograph({"red": (np.array([0.5, 0.0, 0.05]), np.eye(3))}, camera())
    assert hands.is_ready(HOME_RAD + 0.01, 0) == "let the arm rest"
    assert hands.is_ready(HOME_RAD, 10 * MS) == "let the arm rest"
    # A joint that drifts stays at rest, but not for longer than it stays near its place.
    assert hands.is_ready(HOME_RAD + 0.0015, 509 * MS) == "let the arm rest"
    assert hands.is_ready(HOME_RAD + 0.0015, 510 * MS) == ""
    assert hands.is_ready(HOME_RAD + 0.003, 520 * MS) == "let the arm rest"
    assert hands.is_ready(HOME_RAD + 0.003, 1_020 * MS) == ""
    assert hands.offer(picture, HOME_RAD, position, rotation) == ""
    assert hands.is_ready(HOME_RAD + 0.1, 2_000 * MS).startswith("guide the arm")
    assert hands.is_ready(HOME_RAD + 0.2, 2_000 * MS) == "let the arm rest"
    assert hands.is_ready(HOME_RAD + 0.2, 2_500 * MS) == ""
    assert hands.left == HANDS - 1


def test_a_posture_in_which_one_tag_is_seen_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    finder = CubeFinder(CUBES)
    hands = HandPictures(finder, "red")
    picture = photograph({"red": (np.array([0.5, 0.0, 0.05]), np.eye(3))}, camera())
    seen = finder.corners(picture)["red"]
    alone = TagCorners(seen.points_m[:4], seen.pixels[:4])
    monkeypatch.setattr(finder, "corners", lambda _: {"red": alone})
    assert hands.offer(picture, HOME_RAD, *tool_pose(HOME_RAD)).startswith("red: 1 tag seen, 2 are")
    assert hands.left == HANDS


def test_a_cube_that_is_not_seen_is_named_and_the_posture_may_be_tried_again() -> None:
    hands = HandPictures(CubeFinder(CUBES), "blue")
    position, rotation = tool_pose(HOME_RAD)
    picture = photograph({"red": (np.array([0.5, 0.0, 0.05]), np.eye(3))}, camera())
    assert hands.offer(picture, HOME_RAD, position, rotation) == "blue is not seen"
    assert hands.is_ready(HOME_RAD, 0) == "let the arm rest"
    assert hands.left == HANDS
