"""Insets: every pixel of a camera's picture is a square in a corner of a larger one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gatort.sim.insets import BORDER, MARGIN_PX, framed, placed, with_insets

RANDOM = np.random.default_rng(0)


def picture(height: int, width: int) -> NDArray[np.uint8]:
    return RANDOM.integers(0, 200, (height, width, 3), np.uint8)


@pytest.mark.parametrize(("size", "times"), [((64, 64), 2), ((48, 96), 3), ((128, 96), 1)])
def test_a_pixel_becomes_a_square_of_its_colour(size: tuple[int, int], times: int) -> None:
    small = picture(*size)
    inset = framed(small, 480)
    assert inset.shape == (size[0] * times + 2, size[1] * times + 2, 3)
    for row in range(times):
        np.testing.assert_array_equal(inset[1 + row : -1 : times, 1:-1:times], small)
    for side in (inset[0], inset[-1], inset[:, 0], inset[:, -1]):
        assert (side == BORDER).all()


def test_a_picture_that_is_too_large_loses_whole_rows_and_columns() -> None:
    large = picture(480, 640)
    np.testing.assert_array_equal(framed(large, 480)[1:-1, 1:-1], large[::3, ::3])


def test_insets_stand_side_by_side_in_the_lower_left_corner() -> None:
    frame, cameras = np.zeros((480, 640, 3), np.uint8), [picture(64, 64), picture(64, 64)]
    shown = with_insets(frame, cameras)
    for left, bottom, inset in placed(cameras, 480):
        assert bottom == MARGIN_PX
        top = 480 - bottom - inset.shape[0]
        np.testing.assert_array_equal(
            shown[top : top + inset.shape[0], left : left + inset.shape[1]], inset
        )
        shown[top : top + inset.shape[0], left : left + inset.shape[1]] = 0
    assert not shown.any()  # Nothing else has changed.
    assert not frame.any()  # The frame is the caller's.


def test_insets_end_at_the_border_of_the_picture() -> None:
    frame = np.zeros((120, 90, 3), np.uint8)
    assert with_insets(frame, [picture(32, 32)] * 4).shape == frame.shape
