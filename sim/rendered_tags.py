"""Cameras around a simulated arm that measure the poses of tagged cubes.

They are a sensor on the arm's clock, so that trials in lockstep see poses with a camera's rate,
latency and errors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.clock import Clock
from gatort.runtime.robots.sensors.readings import EDGE, POSE, SensorReading
from gatort.runtime.robots.tags.finder import CubeFinder, CubePose, in_grey
from gatort.runtime.safety import State

from .robot import SimulatedRobot
from .tagged_scene import SIDE, TaggedScene, tagged

CAMERAS: Final = ("front", SIDE)
"""Cameras that look at the cubes."""
FRAME_NS: Final = 33_000_000
"""Time between two pictures: 30 Hz in whole inner steps."""
LATENCY_NS: Final = 60_000_000
"""Time from the light to the poses: exposure, transfer and detection of a USB camera."""

Degrade = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""Changes a grey picture (height, width)."""


class RenderedTags:
    """Poses of the cubes of a simulated arm, as a camera sees them. Implements `Sensor`."""

    def __init__(
        self,
        robot: SimulatedRobot,
        clock: Clock,
        latency_ns: int = LATENCY_NS,
        degrade: Degrade | None = None,
        cameras: Sequence[str] = CAMERAS,
    ) -> None:
        """Look at a robot's present layout from now on. The first picture is taken at once.

        Args:
            robot: arm on which the cubes lie.
            clock: the arm's clock.
            latency_ns: time from a picture to its poses.
            degrade: faults of the lens, applied to each grey picture.
            cameras: cameras of the scene that look at the cubes.
        """
        cubes = tagged(robot.layout.cubes)
        self.scene = TaggedScene(robot.task.scene, cubes)
        self._robot = robot
        self._clock = clock
        self._latency_ns = latency_ns
        self._degrade = degrade
        self._finder = CubeFinder(cubes)
        self._cameras = {name: self.scene.calibration(name) for name in cameras}
        self._waiting: deque[tuple[int, list[CubePose]]] = deque()
        """Stamps and poses that are not yet published."""
        now_ns = clock.now_ns()
        self._next_ns = now_ns
        self._readings = {
            EDGE + name: SensorReading(np.array([cube.edge_m]), now_ns)
            for name, cube in cubes.items()
        }
        self._stamp_ns: int | None = None
        self._take(now_ns)
        self._publish(*self._waiting.popleft())
        robot.on_step = self._on_step

    address = "cameras of the simulator"
    """See `Sensor.address`."""

    @property
    def stamp_ns(self) -> int | None:
        """See `Sensor.stamp_ns`."""
        return self._stamp_ns

    def update(self) -> dict[str, SensorReading]:
        """See `Sensor.update`."""
        ready_ns = self._clock.now_ns() - self._latency_ns
        while self._waiting and self._waiting[0][0] <= ready_ns:
            self._publish(*self._waiting.popleft())
        return self._readings

    def _on_step(self, at_ns: int, _: State, __: NDArray[np.float64]) -> None:
        if at_ns >= self._next_ns:
            self._take(at_ns)

    def _take(self, at_ns: int) -> None:
        poses: list[CubePose] = []
        for name, camera in self._cameras.items():
            picture = in_grey(self.scene.draw(name, self._robot.positions))
            if self._degrade is not None:
                picture = self._degrade(picture)
            poses += self._finder.find(picture, camera)
        # The camera whose pose fits a cube best comes last, and stays.
        self._waiting.append((at_ns, sorted(poses, key=lambda pose: -pose.residual_px)))
        self._next_ns = at_ns + FRAME_NS

    def _publish(self, stamp_ns: int, poses: list[CubePose]) -> None:
        self._stamp_ns = stamp_ns
        for pose in poses:
            self._readings[POSE + pose.name] = SensorReading(pose.numbers, stamp_ns)

    def close(self) -> None:
        """Free the OpenGL context, and leave the robot. A second call does nothing.

        Robot and sensor hold each other. Python's garbage collector counts objects, and not the
        megabytes of model, scene and pictures that hang on them.
        """
        self._robot.on_step = None
        self.scene.close()
