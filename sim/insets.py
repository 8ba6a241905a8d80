"""Camera pictures in a corner of a larger picture, pixel by pixel as the policy got them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""Rows from the top, (height, width, 3)."""

LARGEST_SHARE: Final = 3
"""An inset takes at most one part in three of the height of the larger picture."""
MARGIN_PX: Final = 8
"""Distance of the insets from the border and from each other."""
BORDER_PX: Final = 1
BORDER: Final = 255
"""Level of the border: white."""


def framed(picture: Picture, height_px: int) -> Picture:
    """Return a picture for a larger one of this height: each pixel a square, and a thin border.

    A picture that is too large loses whole rows and columns instead.
    """
    most_px = height_px // LARGEST_SHARE
    step = -(-len(picture) // most_px)
    picture = picture[::step, ::step]

    times = most_px // len(picture)
    enlarged = picture.repeat(times, axis=0).repeat(times, axis=1)
    return np.pad(enlarged, [(BORDER_PX,) * 2, (BORDER_PX,) * 2, (0, 0)], constant_values=BORDER)


def placed(pictures: Sequence[Picture], height_px: int) -> Iterator[tuple[int, int, Picture]]:
    """Yield left edge, bottom edge and pixels of each inset, side by side from the lower left.

    Args:
        pictures: camera pictures.
        height_px: height of the larger picture.
    """
    left = MARGIN_PX
    for picture in pictures:
        inset = framed(picture, height_px)
        yield left, MARGIN_PX, inset
        left += inset.shape[1] + MARGIN_PX


def with_insets(frame: Picture, pictures: Sequence[Picture]) -> Picture:
    """Return a frame that shows the pictures in its lower left corner, as far as they fit."""
    shown = frame.copy()
    height, width = frame.shape[:2]
    for left, bottom, inset in placed(pictures, height):
        fits = inset[:, : max(0, width - left)]
        top = height - bottom - inset.shape[0]
        shown[top : top + inset.shape[0], left : left + fits.shape[1]] = fits
    return shown
