"""The board that tells where a camera stands, and how large its parts are."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat, NonNegativeInt, model_validator

from gatort.runtime.spec import Strict

Length = Annotated[FiniteFloat, Field(gt=0, le=2)]


class Board(Strict):
    """Board that lies on the table, face up, at a known place of the world."""

    kind: Literal["charuco", "apriltag"] = "charuco"
    """ChArUco board, or a single AprilTag of the family 36h11."""
    columns: Annotated[int, Field(ge=3, le=20)] = 7
    """Number of squares of a ChArUco board from left to right."""
    rows: Annotated[int, Field(ge=3, le=20)] = 5
    """Number of squares of a ChArUco board from top to bottom."""
    square_m: Length = 0.04
    """Edge of a square of a ChArUco board."""
    marker_m: Length = 0.03
    """Edge of a marker: of a ChArUco board's (dictionary 5X5_100), or of the AprilTag."""
    tag: Annotated[NonNegativeInt, Field(le=586)] = 0
    """Number of the AprilTag."""
    position_m: tuple[FiniteFloat, FiniteFloat, FiniteFloat] = (0.5, 0.0, 0.0)
    """Centre of the board in the world: x forward from the arm's base, y to its left, z up."""
    yaw_rad: FiniteFloat = 0.0
    """Turn of the board's right edge from the world's x axis, about the vertical."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "charuco" and self.marker_m >= self.square_m:
            raise ValueError(
                f"marker_m: expected less than square_m = {self.square_m:g}, "
                f"found {self.marker_m:g}"
            )
        return self

    @property
    def width_m(self) -> float:
        """Printed width."""
        return self.columns * self.square_m if self.kind == "charuco" else self.marker_m

    def in_world(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return points (N, 2) of the board in W, (N, 3). Board: x right, y up, from its centre."""
        cos, sin = np.cos(self.yaw_rad), np.sin(self.yaw_rad)
        flat = points @ np.array([[cos, sin], [-sin, cos]])
        placed: NDArray[np.float64] = np.array(self.position_m) + np.pad(flat, ((0, 0), (0, 1)))
        return placed
