"""From the frames of calibrated cameras to published poses of cubes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Condition
from typing import Final

from gatort.runtime.clock import Clock
from gatort.runtime.errors import ConfigError
from gatort.runtime.robots.cameras.calibration import CameraCalibration
from gatort.runtime.robots.cameras.camera import Camera
from gatort.runtime.robots.cameras.config import CameraConfig
from gatort.runtime.robots.cameras.intake import Intake
from gatort.runtime.robots.cameras.opencv import cv2
from gatort.runtime.robots.sensors.readings import EDGE, POSE
from gatort.runtime.robots.sensors.sockets import SensorPublisher

from .cubes import TaggedCube
from .finder import CubeFinder, CubePose

WAIT_S: Final = 0.1
"""Longest wait for a frame, so that an interruption is noticed soon."""


@dataclass(frozen=True, slots=True)
class MeasuredFrame:
    """The cubes in one frame."""

    camera: str
    """Name of the camera."""
    poses: list[CubePose]
    """Poses of the cubes that it sees, in W."""
    unfit: dict[str, str]
    """Cubes whose tags told no pose, each with the reason."""
    age_ms: float
    """Time from the light to the publication of the poses."""


class NewestFrame:
    """The newest frame of each camera. Camera threads put, one thread takes."""

    def __init__(self) -> None:
        self._frames: dict[str, tuple[int, object]] = {}
        self._changed = Condition()

    def put(self, intake: Intake) -> None:
        """Keep the frame that a camera has just taken."""
        if intake.frame is None or intake.newest is None or intake.last_trouble is not None:
            return
        with self._changed:
            self._frames[intake.key.name] = (intake.newest.stamp_ns, intake.frame.pixels)
            self._changed.notify()

    def take(self) -> tuple[str, int, object] | None:
        """Wait for a frame. Return its camera's key, its stamp and its pixels, or `None`."""
        with self._changed:
            if not self._frames:
                self._changed.wait(WAIT_S)
            if not self._frames:
                return None
            name = next(iter(self._frames))
            return name, *self._frames.pop(name)


class PoseStream:
    """Reads cameras, finds cubes and publishes their poses."""

    def __init__(
        self,
        cubes: Mapping[str, TaggedCube],
        cameras: Mapping[str, CameraConfig],
        calibrations: Mapping[str, CameraCalibration],
        address: str,
        clock: Clock,
    ) -> None:
        """Bind the address and start the cameras.

        Args:
            cubes: cubes by name.
            cameras: cameras by name.
            calibrations: lens and place of each camera.
            address: address on loopback at which the poses are published.
            clock: the computer's monotonic clock.

        Raises:
            ConfigError: a tag is on two cubes, a camera is not calibrated, or the address is not
                free.
            MissingDependency: the package for a source is absent.
        """
        self._finder = CubeFinder(cubes)
        self._calibrations = dict(calibrations)
        for name in cameras:
            _require_place(name, calibrations)
        self._edges = {EDGE + name: [cube.edge_m] for name, cube in cubes.items()}
        self._clock = clock
        self._frames = NewestFrame()
        self._publisher = SensorPublisher(address)
        self.cameras = [
            Camera(name, config, clock, on_change=self._frames.put)
            for name, config in cameras.items()
        ]

    @property
    def address(self) -> str:
        """Bound address."""
        return self._publisher.address

    @property
    def troubles(self) -> list[str]:
        """Sentences on the cameras that have no fresh picture now."""
        return [each.sentence for camera in self.cameras if (each := camera.status).fault]

    def measure(self) -> MeasuredFrame | None:
        """Wait for a frame, find the cubes in it and publish them; `None` if no frame came.

        Raises:
            ConfigError: the frame has another size than the calibration.
        """
        taken = self._frames.take()
        if taken is None:
            return None
        key, stamp_ns, pixels = taken
        name = key.removeprefix("camera/")
        calibration = self._calibrations[name]
        grey = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)  # type: ignore[call-overload]  # BGR frame
        size = grey.shape[1], grey.shape[0]
        if size != calibration.lens.frame_size:
            raise ConfigError(
                f"camera {name!r}: expected frames of {_shown(calibration.lens.frame_size)}, for "
                f"which it was calibrated, found {_shown(size)}: set its frame_size in the "
                f"profile, or measure it again with `gatort calibrate {name}`"
            )
        poses = self._finder.find(grey, calibration)
        measured = {POSE + pose.name: pose.numbers.tolist() for pose in poses}
        self._publisher.publish(stamp_ns, measured | self._edges)
        age_ms = (self._clock.now_ns() - stamp_ns) * 1e-6
        return MeasuredFrame(name, poses, self._finder.unfit, age_ms)

    def close(self) -> None:
        """End the cameras and release the address. A second call does nothing."""
        for camera in self.cameras:
            camera.close()
        self._publisher.close()


def _shown(size: tuple[int, int]) -> str:
    return "×".join(map(str, size))


def _require_place(name: str, calibrations: Mapping[str, CameraCalibration]) -> None:
    found = calibrations.get(name)
    if found is None or found.place is None:
        missing, remedy = ("lens", "") if found is None else ("place", " --place")
        raise ConfigError(
            f"camera {name!r}: expected a calibrated camera, found none of its {missing}: "
            f"measure it with `gatort calibrate {name}{remedy}`"
        )
