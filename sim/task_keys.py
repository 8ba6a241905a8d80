"""A task's own keys on a real arm: from the poses that a sensor measures and the arm's joints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.clock import Clock
from gatort.runtime.errors import ObservationError, SpecError
from gatort.runtime.facts import Fact
from gatort.runtime.robot import Observation
from gatort.runtime.robots.kinematics import tool_pose
from gatort.runtime.robots.panda import PROPRIOCEPTION
from gatort.runtime.robots.sensors.readings import EDGE, POSE, Sensor, SensorReading
from gatort.runtime.robots.sensors.robot import AGE_LIMIT_MS, sensor_fact
from gatort.runtime.spec import Interface, ObservationKey

from .pose_tracker import LONGEST_UNSEEN_NS, PoseTracker
from .simulators.simulator import ArmState, Array, Pose
from .tasks.task import Moment, Task

_ARM_KEYS: Final = tuple(key.name for key in PROPRIOCEPTION)
_POSE_NUMBERS: Final = 7


class TaskKeys:
    """Keys of a task, such as `blocks/red_from_tool`. Implements `MeasuredKeys`."""

    def __init__(
        self,
        task: Task,
        keys: Sequence[ObservationKey],
        robot: Interface,
        sensor: Sensor,
        clock: Clock,
    ) -> None:
        """Prepare to derive keys.

        Args:
            task: task that defines the keys.
            keys: keys to derive.
            robot: interface of the robot whose observations `read` gets.
            sensor: sensor that publishes `pose/NAME` for each body that the task sees, and
                `edge/NAME` for each cube among them.
            clock: the computer's monotonic clock.

        Raises:
            SpecError: the robot has no such joints or hand, or the sensor does not publish a value.
        """
        self.keys = tuple(keys)
        self._task = task
        self._sensor = sensor
        self._clock = clock
        self._places = _places_of(_ARM_KEYS, robot)
        readings = sensor.update()
        self._edges_m = {
            name: _edge_m(EDGE + name, readings) for name in task.seen if name in task.scene.cubes
        }
        self._layout = replace(
            layout := task.layout(0),
            cubes=tuple(
                replace(cube, edge_m=self._edges_m.get(cube.name, cube.edge_m))
                for cube in layout.cubes
            ),
        )
        self._tracker = PoseTracker(self._edges_m)

    def read(self, seen: Observation) -> Sequence[NDArray[Any]]:
        """See `MeasuredKeys.read`."""
        self._require_alive()
        arm = self._arm(seen)
        self._tracker.move(arm, seen.stamp_ns)
        readings = self._sensor.update()
        for name in self._task.seen:
            reading = _measured(POSE + name, readings)
            self._tracker.measure(name, pose_of(POSE + name, reading), reading.stamp_ns)
        bodies = self._tracker.poses(seen.stamp_ns)
        moment = Moment(self._layout, 0.0, arm, bodies)
        return [self._task.read(key.name, moment).astype(key.dtype) for key in self.keys]

    def _require_alive(self) -> None:
        self._sensor.update()
        stamp_ns = self._sensor.stamp_ns
        age_ms = (self._clock.now_ns() - (stamp_ns or 0)) * 1e-6
        if age_ms > AGE_LIMIT_MS:
            raise ObservationError(
                f"the sensor of the poses: expected a message of the last {AGE_LIMIT_MS:g} ms, "
                f"found one {age_ms:.0f} ms old"
            )

    def _arm(self, seen: Observation) -> ArmState:
        position, velocity, width = (
            seen.values[place].astype(np.float64) for place in self._places
        )
        tool_m, rotation = tool_pose(position)
        return ArmState(position, velocity, float(np.ravel(width)[0]), tool_m, rotation)

    def facts(self, now_ns: int) -> Sequence[Fact]:
        """See `MeasuredKeys.facts`: a row for the sensor, and one for each body."""
        readings = self._sensor.update()
        bodies = (
            body_fact(name, edge_m, readings.get(POSE + name), now_ns, self._unfit(name, edge_m))
            for name, edge_m in ((name, self._edges_m.get(name)) for name in self._task.seen)
        )
        return [sensor_fact(self._sensor, now_ns), *bodies]

    def _unfit(self, name: str, edge_m: float | None) -> str:
        return "" if edge_m is None else self._task.unfit_edge(name, edge_m)

    def close(self) -> None:
        """See `MeasuredKeys.close`."""
        self._sensor.close()


def body_fact(
    name: str, edge_m: float | None, reading: SensorReading | None, now_ns: int, unfit: str = ""
) -> Fact:
    """Return a body's row of the checklist: its size, its place, and when it was seen.

    Args:
        name: name of the body.
        edge_m: its edge, if it is a cube.
        reading: its newest pose; `None` if it was never seen.
        now_ns: present instant on the clock of the stamp.
        unfit: why its size does not fit; empty if it does.
    """
    size = "" if edge_m is None else f"edge {1e3 * edge_m:g} mm, "
    if reading is None:
        unseen = "bring it into a camera's sight"
        return Fact(POSE + name, f"{size}never seen", unfit or unseen)
    place = ", ".join(f"{metres:.3f}" for metres in reading.value[:3])
    unseen_ns = now_ns - reading.stamp_ns
    unseen = f"expected at most {LONGEST_UNSEEN_NS * 1e-9:g} s: bring it into a camera's sight"
    return Fact(
        POSE + name,
        f"{size}at {place} m, seen {unseen_ns * 1e-9:.1f} s ago",
        unfit or (unseen if unseen_ns > LONGEST_UNSEEN_NS else ""),
    )


def pose_of(name: str, reading: SensorReading) -> Pose:
    """Return the pose of a reading: x, y, z in m, then a quaternion, w first.

    Raises:
        ObservationError: it has another number of values, or the quaternion has no length.
    """
    length = float(np.linalg.norm(reading.value[3:]))
    if reading.value.size != _POSE_NUMBERS or length < 0.5:
        raise ObservationError(
            f"{name}: expected x, y, z and a quaternion of length 1, found {reading.value.tolist()}"
        )
    return Pose(reading.value[:3], rotation_of(reading.value[3:] / length))


def rotation_of(quaternion: Array) -> Array:
    """Return the rotation (3, 3) of a quaternion (4,) of length 1, w first."""
    w, vector = quaternion[0], quaternion[1:]
    x, y, z = vector
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation: Array = np.eye(3) + 2 * w * cross + 2 * cross @ cross
    return rotation


def _places_of(names: Sequence[str], robot: Interface) -> list[int]:
    offered = [key.name for key in robot.observations]
    missing = [name for name in names if name not in offered]
    if missing:
        raise SpecError(
            f"keys of a task need an arm with {', '.join(names)}; the robot lacks {missing[0]!r}"
        )
    return [offered.index(name) for name in names]


def _edge_m(name: str, readings: Mapping[str, SensorReading]) -> float:
    reading = readings.get(name)
    if reading is None or reading.value.size != 1:
        raise SpecError(
            f"expected a sensor that publishes {name} (1 value), "
            f"found one that publishes {', '.join(sorted(readings))}"
        )
    return float(reading.value[0])


def _measured(name: str, readings: Mapping[str, SensorReading]) -> SensorReading:
    if name not in readings:
        raise ObservationError(
            f"{name}: expected to have seen it, found it never seen: bring it into a camera's sight"
        )
    return readings[name]
