"""The window shows the policy's pictures. MuJoCo's own handle checks their sizes."""

from __future__ import annotations

import numpy as np
import pytest

from gatort.sim.insets import placed
from gatort.sim.viewer import _show_pictures

viewer = pytest.importorskip("mujoco.viewer")
mujoco = pytest.importorskip("mujoco")
PICTURES = [np.full((64, 64, 3), level, np.uint8) for level in (50, 150)]


class Simulate:
    """The part of MuJoCo's window behind its handle that needs a screen."""

    exitrequest = 0

    def __init__(self, height_px: int) -> None:
        self.viewport = mujoco.MjrRect(0, 0, 640, height_px)
        self.images: list[tuple[mujoco.MjrRect, np.ndarray]] = []

    def set_images(self, images: list[tuple[mujoco.MjrRect, np.ndarray]]) -> None:
        self.images = images


def handle_of(simulate: Simulate) -> viewer.Handle:
    return viewer.Handle(simulate, None, None, None, None)


def test_pictures_lie_in_the_lower_left_corner_of_the_window() -> None:
    simulate = Simulate(480)
    _show_pictures(handle_of(simulate), PICTURES)
    assert len(simulate.images) == 2
    for (view, image), (left, bottom, inset) in zip(
        simulate.images, placed(PICTURES, 480), strict=True
    ):
        assert (view.left, view.bottom, view.height, view.width) == (
            left, bottom, *inset.shape[:2],
        )  # fmt: skip
        np.testing.assert_array_equal(image[::-1], inset)  # OpenGL's first row is the lowest.


@pytest.mark.parametrize("height_px", [0, 50])
def test_a_window_without_height_shows_none(height_px: int) -> None:
    simulate = Simulate(height_px)
    _show_pictures(handle_of(simulate), PICTURES)
    assert simulate.images == []


def test_a_policy_without_cameras_changes_nothing() -> None:
    simulate = Simulate(480)
    _show_pictures(handle_of(simulate), [])
    assert simulate.images == []
