"""Where the corners of a cube's tags are."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from gatort.runtime.robots.tags.cubes import FACES, TaggedCube, face_axes

CUBE = TaggedCube(edge_m=0.05, tag_m=0.04, first_tag=12)


def test_each_tag_lies_on_its_face_with_the_margin_around_it() -> None:
    corners_m = CUBE.corners_m()
    assert corners_m.shape == (6, 4, 3)
    for face, name in enumerate(FACES):
        axis, sign = "xyz".index(name[1]), -1.0 if name[0] == "-" else 1.0
        np.testing.assert_allclose(corners_m[face, :, axis], sign * 0.025)
        others = np.delete(corners_m[face], axis, axis=1)
        np.testing.assert_allclose(np.abs(others), 0.02)


@pytest.mark.parametrize("face", range(6))
def test_the_corners_of_a_tag_run_clockwise_from_the_upper_left_seen_from_outside(
    face: int,
) -> None:
    normal, right, up = face_axes(face)
    np.testing.assert_allclose(np.cross(right, up), normal, atol=1e-12)
    centred = CUBE.corners_m()[face] - CUBE.corners_m()[face].mean(axis=0)
    seen = np.sign(np.column_stack([centred @ right, centred @ up]))
    np.testing.assert_array_equal(seen, [(-1, 1), (1, 1), (1, -1), (-1, -1)])


def test_a_cube_has_six_numbers_of_its_own() -> None:
    assert list(CUBE.tags) == [12, 13, 14, 15, 16, 17]


def test_a_tag_without_a_white_margin_is_refused() -> None:
    with pytest.raises(ValidationError, match="expected less than edge_m"):
        TaggedCube(edge_m=0.05, tag_m=0.05, first_tag=0)
