"""A robot with the keys that a sensor of this computer measures for a policy."""

from __future__ import annotations

from gatort.runtime.clock import Clock
from gatort.runtime.errors import ConfigError
from gatort.runtime.policy import Policy
from gatort.runtime.robot import Robot
from gatort.runtime.robots.sensors.robot import PublishedKeys, SensorRobot
from gatort.runtime.robots.sensors.sockets import Subscription
from gatort.sim.task_keys import TaskKeys
from gatort.sim.tasks import task_of


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
            keys = TaskKeys(chosen, derived, robot.interface, sensor, clock)
            robot = SensorRobot(robot, keys)
    except BaseException:
        if sensor is not None:
            sensor.close()
        robot.close()
        raise
    return robot
