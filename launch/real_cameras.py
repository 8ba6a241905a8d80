"""Cameras of this computer around an arm in this process, or around a robot behind the wire."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Final

from gatort.runtime.clock import Clock
from gatort.runtime.remote.console import Lines
from gatort.runtime.robot import Robot
from gatort.runtime.robots.cameras.config import CameraConfig, CamerasProfile
from gatort.runtime.robots.cameras.frames import PictureSource
from gatort.runtime.robots.cameras.process import CameraProcess
from gatort.runtime.robots.cameras.rig import CameraRig, CameraRobot, open_cameras, with_cameras
from gatort.runtime.robots.driver import Driver
from gatort.runtime.spec import Interface

from .options import resolve

WATCH_S: Final = 0.05
"""Time between two looks at the cameras' status."""


def with_own_cameras(robot: Robot, configs: Mapping[str, CameraConfig], clock: Clock) -> Robot:
    """Return a robot whose observations have the pictures of this computer's cameras.

    Without cameras the robot is returned as it is.

    Raises:
        ConfigError: the robot already offers a camera's key.
        MissingDependency: the package for a source is absent.
        RobotError: a camera gives no picture.
    """
    if not configs:
        return robot
    try:
        return CameraRobot(robot, _open(robot.interface, configs, clock))
    except BaseException:
        robot.close()
        raise


@contextmanager
def arm_with_cameras(arm: Driver, profile: Path | None, clock: Clock) -> Iterator[Driver]:
    """Give an arm the cameras of a launch profile. Print each change of their status.

    Without a profile the arm is given as it is.

    Raises:
        ConfigError: the profile is not valid, or the arm already offers a camera's key.
        MissingDependency: the package for a source is absent.
        RobotError: a camera gives no picture.
    """
    if profile is None:
        yield arm
        return
    try:
        configs = resolve(CamerasProfile, None, profile).cameras
        rig = _open(arm.interface, configs, clock)
    except BaseException:
        arm.close()
        raise
    with Lines() as lines, _watched(rig.cameras, lines):
        yield with_cameras(arm, rig)


def _open(base: Interface, configs: Mapping[str, CameraConfig], clock: Clock) -> CameraRig:
    with ExitStack() as stack:
        cameras = open_cameras(configs, lambda name, config: CameraProcess(name, config, clock))
        for camera in cameras:
            stack.callback(camera.close)
        rig = CameraRig(base, cameras)
        stack.pop_all()  # From here on the rig closes them.
    return rig


@contextmanager
def _watched(cameras: Sequence[PictureSource], lines: Lines) -> Iterator[None]:
    """Print a line at each change of a camera's fault, and the counters at the end."""
    ended = Event()
    thread = Thread(target=_watch, args=(cameras, lines, ended), name="cameras", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        for camera in cameras:
            lines.offer(f"{camera.key.name}: {camera.status}")


def _watch(cameras: Sequence[PictureSource], lines: Lines, ended: Event) -> None:
    shown = dict.fromkeys(camera.key.name for camera in cameras)
    while not ended.wait(WATCH_S):
        for camera in cameras:
            name, status = camera.key.name, camera.status
            if status.fault != shown[name]:
                shown[name] = status.fault
                lines.offer(status.sentence or f"{name}: good again")
