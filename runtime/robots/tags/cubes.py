"""A cube with a printed AprilTag on each face: where the corners of its tags are.

B is the cube's frame: its origin is the centre, its axes are normal to the faces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat, NonNegativeInt, model_validator

from gatort.runtime.errors import ConfigError
from gatort.runtime.invalid_values import said
from gatort.runtime.spec import Strict

FACES: Final = ("+x", "+y", "-x", "-y", "+z", "-z")
"""Faces by their outward normal in B. Tag number `first_tag + i` is on face i."""
_NORMALS: Final = np.vstack([np.eye(3), -np.eye(3)])[[0, 1, 3, 4, 2, 5]]

Edge = Annotated[
    FiniteFloat,
    Field(gt=0, le=0.5),
    said("expected a length in m, at most 0.5, such as 0.05 for 50 mm"),
]


class TaggedCube(Strict):
    """A cube whose six faces have tags of the family 36h11."""

    edge_m: Edge
    """Edge of the cube, tags included."""
    tag_m: Edge
    """Edge of the black square of a tag."""
    first_tag: Annotated[NonNegativeInt, Field(le=581)]
    """Number of the tag on the face +x. The other faces have the five numbers that follow."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.tag_m >= self.edge_m:
            raise ValueError(
                f"tag_m: expected less than edge_m = {self.edge_m:g}, because a tag needs a white "
                f"margin, found {self.tag_m:g}"
            )
        return self

    @property
    def tags(self) -> range:
        """Numbers of its tags, face by face."""
        return range(self.first_tag, self.first_tag + len(FACES))

    def corners_m(self) -> NDArray[np.float64]:
        """Return the corners of the tags in B, (6, 4, 3): upper left, then clockwise."""
        squares = [self._square(face) for face in range(len(FACES))]
        return np.array(squares)

    def _square(self, face: int) -> NDArray[np.float64]:
        normal, right, up = face_axes(face)
        half = self.tag_m / 2
        corners = [half * (x * right + y * up) for x, y in ((-1, 1), (1, 1), (1, -1), (-1, -1))]
        square: NDArray[np.float64] = np.array(corners) + normal * self.edge_m / 2
        return square


def face_axes(face: int) -> NDArray[np.float64]:
    """Return normal, right and up of a face in B, (3, 3), as one sees it from outside.

    The tag of a side face stands upright. That of the upper face has its top towards −x, and that
    of the lower face towards +x.
    """
    normal = _NORMALS[face]
    right = np.array([0.0, 1.0, 0.0]) if normal[2] else np.cross([0.0, 0.0, 1.0], normal)
    return np.array([normal, right, np.cross(normal, right)])


def require_own_tags(cubes: Mapping[str, TaggedCube]) -> None:
    """Check that no tag is on two cubes.

    Raises:
        ConfigError: two cubes share a tag.
    """
    owners: dict[int, str] = {}
    for name, cube in cubes.items():
        for tag in cube.tags:
            if tag in owners:
                raise ConfigError(
                    f"cubes {owners[tag]!r} and {name!r}: expected tags of their own, "
                    f"found tag {tag} on both: let their first_tag differ by 6"
                )
            owners[tag] = name
