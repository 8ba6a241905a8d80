"""Pictures in the reports of a run to its console."""

from __future__ import annotations

import numpy as np

from gatort.console.messages import LARGEST_PICTURE_BYTES
from gatort.console.reporting import thinned


def test_a_picture_that_fits_stays_as_it_is() -> None:
    picture = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)
    assert np.array_equal(thinned(picture), picture)


def test_a_larger_picture_keeps_every_kth_pixel() -> None:
    picture = np.arange(480 * 640 * 3).reshape(480, 640, 3).astype(np.uint8)
    found = thinned(picture)
    assert found.size <= LARGEST_PICTURE_BYTES
    step = -(-480 // len(found))
    assert np.array_equal(found, picture[::step, ::step])
