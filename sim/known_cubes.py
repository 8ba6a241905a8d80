"""Cubes around an arm whose poses and sizes are known.

A sensor publishes them, a simulated scene has them, or they follow from the arm's observation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from numpy.typing import NDArray

from gatort.runtime.clock import Clock
from gatort.runtime.facts import Fact
from gatort.runtime.robot import Observation, Robot
from gatort.runtime.robots.kinematics import tool_pose
from gatort.runtime.robots.panda import PROPRIOCEPTION
from gatort.runtime.robots.sensors.readings import EDGE, POSE, SensorReading
from gatort.runtime.robots.sensors.robot import SensorRobot, sensor_fact
from gatort.runtime.robots.sensors.sockets import Subscription
from gatort.runtime.robots.wrapped import layers
from gatort.runtime.spec import ObservationKey

from .robot import SimulatedRobot
from .simulators.simulator import Array, Box
from .task_keys import body_fact, pose_of
from .tasks import TASKS

ALL_SEEN_S: Final = 1.0
"""Longest wait for the poses of all cubes whose sizes are published: a second camera may see
another one."""


class SensedCubes:
    """Cubes that a sensor publishes, for an arm whose policy reads none of them.

    Implements `MeasuredKeys`, without a key.
    """

    keys: Sequence[ObservationKey] = ()

    def __init__(self, address: str, clock: Clock) -> None:
        """Subscribe, and wait for the first poses.

        Raises:
            ConfigError: the address is not valid, or not on loopback.
            RobotError: nothing was published in time.
        """
        self._sensor = Subscription(address, clock)
        try:
            self._sensor.wait()
            self._sensor.wait_until(_all_seen, ALL_SEEN_S)
        except BaseException:
            self._sensor.close()
            raise

    def read(self, seen: Observation) -> Sequence[NDArray[Any]]:  # noqa: ARG002
        """Return no value, and drain the subscription so that no old message waits."""
        self._sensor.update()
        return ()

    def boxes(self) -> list[Box]:
        """Return each cube whose size is published, where it was last seen.

        Raises:
            ObservationError: a pose has another number of values.
        """
        readings = self._sensor.update()
        return [
            Box(name, pose_of(POSE + name, readings[POSE + name]), edge_m)
            for name, edge_m in _edges_m(readings).items()
            if POSE + name in readings
        ]

    def facts(self, now_ns: int) -> Sequence[Fact]:
        """See `MeasuredKeys.facts`: a row for the sensor, and one for each body."""
        readings = self._sensor.update()
        edges_m = _edges_m(readings)
        names = {name.removeprefix(POSE) for name in readings if name.startswith(POSE)}
        unsized = "of unknown size, so no path is checked for it: let the sensor publish "
        return [
            sensor_fact(self._sensor, now_ns),
            *(
                body_fact(
                    name,
                    edges_m.get(name),
                    readings.get(POSE + name),
                    now_ns,
                    "" if name in edges_m else f"{unsized}{EDGE}{name}",
                )
                for name in sorted(names | edges_m.keys())
            ),
        ]

    def close(self) -> None:
        """Release the sensor. A second call does nothing."""
        self._sensor.close()


def with_cubes(robot: Robot, address: str, clock: Clock) -> Robot:
    """Return a robot beside which the cubes of a sensor are known. It closes the robot on failure.

    Raises:
        ConfigError: the address is not valid, or not on loopback.
        RobotError: nothing was published in time.
    """
    try:
        return SensorRobot(robot, SensedCubes(address, clock))
    except BaseException:
        robot.close()
        raise


def known_boxes(robot: Robot, values: Mapping[str, Array]) -> list[Box]:
    """Return the cubes that are known beside a robot.

    Args:
        robot: an arm. A simulated one in this process tells the cubes of its scene.
        values: its newest observation, by key. A task's keys tell cubes of an arm elsewhere.

    Raises:
        ObservationError: a published pose has another number of values.
    """
    boxes: list[Box] = []
    for layer in layers(robot):
        if isinstance(layer, SensorRobot) and isinstance(layer.measured, SensedCubes):
            boxes += layer.measured.boxes()
        if isinstance(layer, SimulatedRobot):
            poses = layer.moment().bodies
            cubes = layer.layout.cubes
            return boxes + [Box(cube.name, poses[cube.name], cube.edge_m) for cube in cubes]
    tool_m, _ = tool_pose(values[PROPRIOCEPTION[0].name])
    for task in TASKS.values():
        boxes += task.cubes_of(values, tool_m)
    return boxes


def _edges_m(readings: dict[str, SensorReading]) -> dict[str, float]:
    """Return the published edge of each cube."""
    return {
        name.removeprefix(EDGE): float(reading.value[0])
        for name, reading in readings.items()
        if name.startswith(EDGE) and reading.value.size == 1
    }


def _all_seen(readings: dict[str, SensorReading]) -> bool:
    return all(POSE + name in readings for name in _edges_m(readings))
