"""CameraLens and place of a camera, as a calibration measured them, and their file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat, PositiveInt, ValidationError, model_validator

from gatort.runtime.errors import ConfigError
from gatort.runtime.invalid_values import first_error
from gatort.runtime.regular_file import read_regular
from gatort.runtime.spec import Strict

from .pose import OpticalPose

MOST_BYTES: Final = 1 << 14
"""Largest calibration file."""

Positive = Annotated[FiniteFloat, Field(gt=0)]
Vector = tuple[FiniteFloat, FiniteFloat, FiniteFloat]


class CameraLens(Strict):
    """Pinhole with radial and tangential distortion, as OpenCV has it."""

    frame_size: tuple[PositiveInt, PositiveInt]
    """Width and height of the frames that it holds for."""
    focal_px: tuple[Positive, Positive]
    """Focal length along x and y."""
    centre_px: tuple[FiniteFloat, FiniteFloat]
    """Principal point."""
    distortion: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat] = (0,) * 5
    """OpenCV's k1, k2, p1, p2, k3."""
    residual_px: FiniteFloat | None = None
    """Root mean square error of the corners that it was fitted to."""

    @classmethod
    def pinhole(cls, width: int, height: int, fovy_rad: float) -> Self:
        """Return a lens without distortion, from its vertical field of view.

        Pixel centres have whole coordinates, as in OpenCV.
        """
        focal_px = float(height / 2 / np.tan(fovy_rad / 2))
        return cls(
            frame_size=(width, height),
            focal_px=(focal_px, focal_px),
            centre_px=((width - 1) / 2, (height - 1) / 2),
        )

    @property
    def matrix(self) -> NDArray[np.float64]:
        """Camera matrix, (3, 3)."""
        (fx, fy), (cx, cy) = self.focal_px, self.centre_px
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


class CameraPlace(Strict):
    """Pose of a camera in the world."""

    position_m: Vector
    """Optical centre in W."""
    rotation: tuple[Vector, Vector, Vector]
    """R_world_camera, row by row. The camera's x points right, y down, z forward."""
    residual_px: FiniteFloat | None = None
    """Root mean square error of the corners that it was fitted to."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        rotation = np.array(self.rotation)
        if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-6):
            raise ValueError("rotation: expected rows of length 1, normal to each other")
        return self

    @classmethod
    def of(cls, pose: OpticalPose, residual_px: float | None = None) -> Self:
        """Return a pose as a record."""
        return cls(
            position_m=pose.position_m.tolist(),
            rotation=pose.rotation.tolist(),
            residual_px=residual_px,
        )

    @property
    def pose(self) -> OpticalPose:
        """Pose as arrays."""
        return OpticalPose(np.array(self.position_m), np.array(self.rotation))


class CameraCalibration(Strict):
    """A calibrated camera: the content of a calibration file."""

    lens: CameraLens
    place: CameraPlace | None = None
    """`None` before the place was measured."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a calibration file.

        Raises:
            ConfigError: it is absent, or no calibration.
        """
        content = read_regular(path, "a calibration", ConfigError, MOST_BYTES)
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise ConfigError(
                f"{path}: expected a calibration that `gatort calibrate` wrote; "
                f"{first_error(error, 'the file')}; measure it again"
            ) from error

    @property
    def text(self) -> str:
        """Content of its file."""
        return self.model_dump_json(indent=2) + "\n"
