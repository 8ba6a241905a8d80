"""Options of the commands that work with tagged cubes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from pydantic import AfterValidator, Field, FiniteFloat
from pydantic_core import PydanticCustomError

from gatort.runtime.errors import ConfigError
from gatort.runtime.remote.address import host_of
from gatort.runtime.robots.cameras.board import Board
from gatort.runtime.robots.cameras.calibration import CameraCalibration
from gatort.runtime.robots.cameras.config import CameraConfig, CameraName
from gatort.runtime.robots.sensors.readings import require_loopback
from gatort.runtime.robots.tags.cubes import TaggedCube
from gatort.runtime.spec import Strict

Tables = Parameter(parse=False)


def known_address(robot: str) -> str:
    """Return the address of a robot, if it is one."""
    if host_of(robot) is None:
        raise PydanticCustomError("robot", "expected an address such as tcp://127.0.0.1:5555")
    return robot


def _known_sensor(address: str) -> str:
    try:
        return require_loopback(address)
    except ConfigError as error:
        raise ValueError(error) from error  # The report adds the name of the flag or key.


SensorAddress = Annotated[str, AfterValidator(_known_sensor)]
"""Address of a sensor on this computer."""


class TagOptions(Strict):
    """Cameras and cubes of a table."""

    cameras: Annotated[dict[CameraName, CameraConfig], Tables] = Field(default_factory=dict)
    """Cameras of this computer that look at the table from a fixed place."""
    cubes: Annotated[dict[str, TaggedCube], Tables] = Field(default_factory=dict)
    """Cubes with tags, by name."""
    calibrations: Annotated[dict[CameraName, Path], Tables] = Field(default_factory=dict)
    """Calibration file of each camera, by the camera's name."""

    def require(self, profile: Path | None, *tables: str) -> None:
        """Check that a profile has tables.

        Args:
            profile: the launch profile, if one was named.
            *tables: names of the tables.

        Raises:
            ConfigError: one is absent, or a calibration is that of no camera.
        """
        for table in tables:
            if not getattr(self, table):
                name = table if table == "calibrations" else f"{table}.NAME"
                raise ConfigError(
                    f"expected a launch profile with [{name}], found none; name one with --profile"
                    if profile is None
                    else f"{profile}: expected a table [{name}], found none; add one as in "
                    "docs/poses.md"
                )
        strangers = [name for name in self.calibrations if name not in self.cameras]
        if "calibrations" in tables and strangers:
            raise ConfigError(
                f"[calibrations]: expected cameras of [cameras] ({', '.join(self.cameras)}), found "
                f"{strangers[0]!r}"
            )

    def calibration(self, camera: str) -> CameraCalibration:
        """Return the content of a camera's calibration file.

        Raises:
            ConfigError: the file is absent, or no calibration.
        """
        path = self.calibrations[camera]
        if not path.exists():
            raise ConfigError(
                f"{path}: expected a calibrated lens, found no file: run `gatort calibrate "
                f"{camera}` without --place first"
            )
        return CameraCalibration.load(path)


class PosesOptions(TagOptions):
    """Publication of poses."""

    address: SensorAddress = "tcp://127.0.0.1:5560"
    """Address on this computer at which the poses are published."""
    seconds: Annotated[FiniteFloat, Field(gt=0, le=1e6)] | None = None
    """Duration. Default: until Ctrl-C."""


class CalibrateOptions(TagOptions):
    """Calibration of a camera."""

    board: Board = Board()
    """ChArUco board that is moved in front of the camera, or that lies at a known place."""
    robot: Annotated[str, AfterValidator(known_address)] | None = None
    """Address of a `gatort robot` whose hand holds a cube, tcp://HOST:PORT. The arm is not armed:
    guide it by hand."""
    held: str | None = None
    """Name of the cube in the hand."""
    keys: Path | None = None
    """Directory with controller.key and robot.pub; needed for a robot beyond this machine."""
