"""Image patches (arXiv 2205.06175, section 2.1 and appendix C.3): their pixels and their places."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .spec import PATCH_PIXELS, PolicySpec

PATCH_INTERVALS = 128
"""Number of positions to which a patch's row and column are quantised."""
# uint8 → [−1, 1] / √16 in one multiplication and one subtraction.
PIXEL_SCALE = np.float32(2.0 / 255.0 / 4.0)
PIXEL_OFFSET = np.float32(1.0 / 4.0)


def image_patches(images: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
    """Cut images (…, H, W, 3) into `out` (…, P, 3, 16, 16): raster order, pixels in [−1, 1] / 4."""
    *lead, height, width, channels = images.shape
    rows = height // PATCH_PIXELS
    columns = width // PATCH_PIXELS
    at = len(lead)

    tiles = images.reshape(*lead, rows, PATCH_PIXELS, columns, PATCH_PIXELS, channels)
    tiles = tiles.transpose(
        *range(at), at, at + 2, at + 4, at + 1, at + 3
    )  # (…, rows, columns, 3, 16, 16)
    grid = out.reshape(tiles.shape)
    np.multiply(tiles, PIXEL_SCALE, out=grid)
    np.subtract(grid, PIXEL_OFFSET, out=grid)


def patch_intervals(spec: PolicySpec) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return first and one-past-last position of each patch of a frame, (2, p) each.

    The first row is the patch's row in its image, the second its column.
    """
    cells: list[tuple[int, int, int, int]] = []
    for key in spec.observations:
        if key.encoding == "image":
            rows = key.shape[0] // PATCH_PIXELS
            columns = key.shape[1] // PATCH_PIXELS
            cells += [
                (row, column, rows, columns) for row in range(rows) for column in range(columns)
            ]

    table = np.array(cells, np.int64).T  # (4, p)
    index = table[:2]
    count = table[2:]
    return index * PATCH_INTERVALS // count, (index + 1) * PATCH_INTERVALS // count
