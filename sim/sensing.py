"""A robot with the keys that a sensor of this computer measures for a policy."""

from __future__ import annotations

from typing import Final

from gatort.runtime.clock import Clock
from gatort.runtime.errors import ConfigError, SpecError
from gatort.runtime.policy import Policy
from gatort.runtime.robot import Robot
from gatort.runtime.robots.panda import PROPRIOCEPTION
from gatort.runtime.robots.sensors.robot import PublishedKeys, SensorRobot
from gatort.runtime.robots.sensors.sockets import Subscription
from gatort.runtime.spec import ObservationKey
from gatort.sim.task_keys import TaskKeys
from gatort.sim.tasks import task_of
from gatort.sim.tasks.task import Task

_OF_THE_ARM: Final = tuple(key.name for key in PROPRIOCEPTION)


def completed(
    robot: Robot, address: str | None, policy: Policy, task: str | None, clock: Clock
) -> Robot:
    """Return a robot that offers every key of a policy, given by a sensor where need be.

    It closes the robot if that cannot be.

    Raises:
        ConfigError: the policy's task is not known, or the robot lacks no key.
        RobotError: the sensor does not publish in time.
        SpecError: the robot lacks a key that no sensor is for, or the sensor lacks a value.
    """
    try:
        _require_keys(robot, policy, is_sensed=address is not None)
    except BaseException:
        robot.close()
        raise
    return robot if address is None else with_sensor(robot, address, policy, task, clock)


def with_sensor(
    robot: Robot, address: str, policy: Policy, task: str | None, clock: Clock
) -> Robot:
    """Return a robot whose observations have every key of a policy that it lacks.

    A key that the sensor publishes by its own name is taken from there. The other keys are those of
    the policy's task, which follow from poses and joints.

    Raises:
        ConfigError: the policy's task is not known, or the robot lacks no key.
        RobotError: the sensor does not publish in time.
        SpecError: the sensor lacks a value.
    """
    sensor = None
    try:
        sensor = Subscription(address, clock)
        sensor.wait()
        offered = {key.name for key in robot.interface.observations}
        lacking = [key for key in policy.spec.observations if key.name not in offered]
        published = [key for key in lacking if key.name in sensor.update()]
        derived = [key for key in lacking if key not in published]
        if not lacking:
            raise ConfigError(
                f"--sensor {address}: expected a policy with keys that the robot lacks, found "
                "that it offers them all: leave out --sensor"
            )
        if published:
            robot = SensorRobot(robot, PublishedKeys(sensor, published, clock))
        if derived:
            chosen = task_of(policy.manifest, task)
            _require_defined(derived, chosen, address)
            keys = TaskKeys(chosen, derived, robot.interface, sensor, clock)
            robot = SensorRobot(robot, keys)
    except BaseException:
        if sensor is not None:
            sensor.close()
        robot.close()
        raise
    return robot


def _require_keys(robot: Robot, policy: Policy, *, is_sensed: bool) -> None:
    """Check that a robot offers a policy's keys, but for those that a sensor may measure.

    Raises:
        SpecError: it lacks one. The sentence names the remedy.
    """
    offered = sorted(key.name for key in robot.interface.observations)
    lacking = [key for key in policy.spec.observations if key.name not in offered]
    # Where a camera or a hand is missing, a sensor alone would not help.
    for key in sorted(lacking, key=_is_measured):
        if not (is_sensed and _is_measured(key)):
            raise SpecError(
                f"the robot lacks observation key {key.name!r}; it offers {offered}: {_remedy(key)}"
            )


def _is_measured(key: ObservationKey) -> bool:
    """Check if a sensor may measure a key: it is no picture, and not the arm's own."""
    return key.encoding != "image" and key.name not in _OF_THE_ARM


def _remedy(key: ObservationKey) -> str:
    if key.encoding == "image":
        table = key.name.replace("camera/", "cameras.")
        return f"give a --profile with [{table}] (docs/cameras.md)"
    if key.name in _OF_THE_ARM:
        return "start `gatort robot` for an arm with a hand, and leave out --hand none"
    return "give --sensor with a program that measures it, such as `gatort poses` (docs/poses.md)"


def _require_defined(keys: list[ObservationKey], task: Task, address: str) -> None:
    """Check that keys which a sensor does not publish follow from poses, as a task defines them.

    Raises:
        SpecError: one does not.
    """
    defined = {key.name for spec in task.interfaces.values() for key in spec.observations}
    for key in keys:
        if key.name not in defined:
            raise SpecError(
                f"--sensor {address}: expected a sensor that publishes {key.name!r}, or a task "
                f"that derives it from poses, found neither there nor in the task {task.name!r}"
            )
