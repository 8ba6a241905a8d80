"""Cameras beside a robot: pictures join its observations under `camera/NAME`.

    arm in this process    ──▶ CameraDriver ──▶ serve, the wire
    arm behind the wire    ──▶ CameraRobot  ──▶ control loop

The stamp of an observation stays the robot's own, because `apply_at` follows from it. A command
takes effect 25 ms after the joints were read, also while a picture is 60 ms old. Each picture has
an age limit of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from numpy.typing import NDArray

from gatort.runtime.errors import ConfigError, ObservationError
from gatort.runtime.facts import Fact
from gatort.runtime.robot import Observation, Robot
from gatort.runtime.robots.driver import BY_CONTROLLER, Driver, OnStep, Watched
from gatort.runtime.robots.wrapped import WrappedRobot, layers
from gatort.runtime.safety import Command
from gatort.runtime.spec import Interface

from .config import CameraConfig, require_source
from .frames import CameraPicture, PictureSource


class CameraRig:
    """Cameras of one computer, and the interface of a robot that has them."""

    def __init__(self, base: Interface, cameras: Sequence[PictureSource]) -> None:
        """Join the cameras' keys with those of a robot.

        Args:
            base: interface of the robot without the cameras.
            cameras: running cameras. `close` closes them.

        Raises:
            ConfigError: the robot already offers a camera's key.
        """
        offered = {key.name for key in base.observations}
        for camera in cameras:
            if camera.key.name in offered:
                raise ConfigError(
                    f"the robot already offers {camera.key.name}: name the camera differently, "
                    "or choose an interface without cameras"
                )
        self.interface = Interface(
            observations=(*base.observations, *(camera.key for camera in cameras)),
            actuators=base.actuators,
            control_hz=base.control_hz,
            action_delay_ms=base.action_delay_ms,
        )
        """Interface with the keys of robot and cameras, in Gato's order."""
        order = [key.name for key in self.interface.observations]
        self.cameras = tuple(sorted(cameras, key=lambda camera: order.index(camera.key.name)))
        """Cameras, in the order of their keys."""
        keys = (*base.observations, *(camera.key for camera in self.cameras))
        self._order = [keys.index(key) for key in self.interface.observations]
        self._robot_has_pictures = bool(base.pictures)
        self._looked: tuple[CameraPicture, ...] = ()
        """Pictures of the last `look`, a copy each, that no observation holds yet."""

    def look(self) -> tuple[NDArray[Any], ...] | None:
        """Copy each newest picture for the next `join`. See `Robot.look`.

        Raises:
            ObservationError: a camera has no fresh picture.
        """
        # Pictures that come with the robot's joints hold up those that come before them.
        if self._robot_has_pictures or not self.cameras:
            return None
        self._looked = ()
        self._looked = tuple(_copy(picture) for picture in self._read())
        return tuple(picture.pixels for picture in self._looked)

    def join(self, values: tuple[NDArray[Any], ...]) -> tuple[NDArray[Any], ...]:
        """Return a robot's values and the pictures, in the interface's order.

        The pictures are those of the last `look`, unless a camera has one by now that is newer by
        more than a period. Then they are a copy of each newest one.

        Raises:
            ObservationError: a camera has no fresh picture.
        """
        looked, self._looked = self._looked, ()
        newest = self._read()
        if not looked or self._are_outdated(looked, newest):
            looked = tuple(_copy(picture) for picture in newest)
        joined = (*values, *(picture.pixels for picture in looked))
        return tuple(joined[index] for index in self._order)

    def facts(self, now_ns: int) -> tuple[Fact, ...]:
        """Return the size and the age of each camera's newest picture, or its fault."""
        return camera_facts(self.cameras, now_ns)

    def _are_outdated(
        self, looked: Sequence[CameraPicture], newest: Sequence[CameraPicture]
    ) -> bool:
        return any(
            new.stamp_ns - old.stamp_ns > self.interface.period_ns
            for old, new in zip(looked, newest, strict=True)
        )

    def _read(self) -> tuple[CameraPicture, ...]:
        return tuple(camera.read() for camera in self.cameras)

    def close(self) -> None:
        """Close the cameras. A second call does nothing."""
        for camera in self.cameras:
            camera.close()


def camera_facts(cameras: Sequence[PictureSource], now_ns: int) -> tuple[Fact, ...]:
    """Return the size and the age of each camera's newest picture, or its fault."""
    return tuple(_camera_fact(camera, now_ns) for camera in cameras)


def _camera_fact(camera: PictureSource, now_ns: int) -> Fact:
    try:
        picture = camera.read()
    except ObservationError as error:
        return Fact(camera.key.name, "no fresh picture", str(error))
    height, width = picture.pixels.shape[:2]
    age_ms = max(now_ns - picture.stamp_ns, 0) * 1e-6
    return Fact(camera.key.name, f"{width}×{height}, {age_ms:.0f} ms old")


def _copy(picture: CameraPicture) -> CameraPicture:
    return replace(picture, pixels=picture.pixels.copy())


class CameraRobot(WrappedRobot):
    """Any robot with the cameras of this computer."""

    def __init__(self, robot: Robot, rig: CameraRig) -> None:
        """Take over a robot and cameras. `close` closes both."""
        super().__init__(robot)
        self.cameras = rig.cameras
        self._rig = rig

    @property
    def interface(self) -> Interface:
        """See `Robot.interface`."""
        return self._rig.interface

    def look(self) -> tuple[NDArray[Any], ...] | None:
        """See `Robot.look`."""
        return self._rig.look()

    def observe(self) -> Observation:
        """See `Robot.observe`. Pictures without a `look` are taken after the robot has answered.

        Raises:
            ObservationError: the robot or a camera has nothing fresh.
            RobotError: the robot no longer answers.
        """
        seen = super().observe()
        return replace(seen, values=self._rig.join(seen.values))

    def close(self) -> None:
        """See `Robot.close`."""
        try:
            super().close()
        finally:
            self._rig.close()


def cameras_of(robot: Robot) -> tuple[PictureSource, ...]:
    """Return a robot's cameras of this computer."""
    return tuple(
        camera
        for layer in layers(robot)
        if isinstance(layer, CameraRobot)
        for camera in layer.cameras
    )


class CameraDriver(Driver):
    """An arm of this process with the cameras of this computer.

    The arm keeps its inner loop, its watchdog and its pace; this driver adds pictures alone.
    """

    def __init__(self, arm: Driver, rig: CameraRig) -> None:
        """Take over an arm and cameras. `close` closes both."""
        # Driver's own constructor would make a second inner loop, and only the arm's may decide.
        self.interface = rig.interface
        self._driven = arm
        self._clock = arm._clock  # noqa: SLF001  # both are drivers
        self._rig = rig

    @property
    def inner_loop(self) -> Watched:
        """Inner loop of the arm."""
        return self._driven.inner_loop

    @inner_loop.setter
    def inner_loop(self, inner_loop: Watched) -> None:
        self._driven.inner_loop = inner_loop

    @property
    def on_step(self) -> OnStep | None:
        """Callback of the arm after each inner step."""
        return self._driven.on_step

    @on_step.setter
    def on_step(self, on_step: OnStep | None) -> None:
        self._driven.on_step = on_step

    @property
    def stop_reason(self) -> str | None:
        """See `Robot.stop_reason`."""
        return self._driven.stop_reason

    @property
    def succeeded(self) -> bool:
        """See `Robot.succeeded`."""
        return self._driven.succeeded

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Facts of the arm, and the age of each camera's picture."""
        return (*self._driven.facts, *self._rig.facts(self._clock.now_ns()))

    @property
    def fault(self) -> str | None:
        """See `Driver.fault`."""
        return self._driven.fault

    def recover(self) -> None:
        """See `Driver.recover`."""
        self._driven.recover()

    def arm(self) -> None:
        """See `Robot.arm`."""
        self._driven.arm()

    def look(self) -> tuple[NDArray[Any], ...] | None:
        """See `Robot.look`."""
        self._driven.advance()
        return self._rig.look()

    def observe(self) -> Observation:
        """See `Robot.observe`. Pictures without a `look` are taken after the arm was read.

        Raises:
            ObservationError: the arm or a camera has nothing fresh.
            RobotError: the arm failed.
        """
        seen = self._driven.observe()
        return replace(seen, values=self._rig.join(seen.values))

    def command(self, command: Command) -> None:
        """See `Robot.command`."""
        self._driven.command(command)

    def stop(self, reason: str = BY_CONTROLLER) -> None:
        """See `Driver.stop`."""
        self._driven.stop(reason)

    def advance(self) -> None:
        """See `Driver.advance`."""
        self._driven.advance()

    def _advance(self, now_ns: int) -> None:  # noqa: ARG002  the arm reads the same clock
        self._driven.advance()

    def _read(self) -> tuple[int, Sequence[NDArray[Any]]]:
        seen = self.observe()
        return seen.stamp_ns, seen.values

    def close(self) -> None:
        """See `Driver.close`."""
        try:
            self._driven.close()
        finally:
            self._rig.close()


class PacedCameraDriver(CameraDriver):
    """A `CameraDriver` around an arm that waits for its own cycle, such as Franka's."""

    own_pace = True


def with_cameras(arm: Driver, rig: CameraRig) -> CameraDriver:
    """Return an arm of this process with cameras, at the arm's own pace."""
    return PacedCameraDriver(arm, rig) if arm.own_pace else CameraDriver(arm, rig)


class StartedCamera(PictureSource, Protocol):
    """A camera that may not have given a picture yet."""

    def wait(self) -> None:
        """Wait for the first good picture.

        Raises:
            RobotError: none came in time; the sentence has the reason.
        """
        ...


Started = TypeVar("Started", bound=StartedCamera)


def open_cameras(
    configs: Mapping[str, CameraConfig], start: Callable[[str, CameraConfig], Started]
) -> list[Started]:
    """Start cameras with `start`, and wait for a picture of each.

    Raises:
        MissingDependency: the package for a source is absent.
        RobotError: a device or file is absent, or a camera gives no picture in time.
    """
    for name, config in configs.items():
        require_source(name, config)
    with ExitStack() as stack:
        cameras = []
        for name, config in configs.items():
            cameras.append(start(name, config))
            stack.callback(cameras[-1].close)
        for camera in cameras:
            camera.wait()
        stack.pop_all()  # From here on the caller closes them.
    return cameras
