"""A robot with measured keys: values are merged by name, and old ones are refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from tests.conftest import observation_key

from gatort.runtime.clock import VirtualClock
from gatort.runtime.errors import ObservationError, SpecError
from gatort.runtime.facts import Fact
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.robots.sensors.readings import SensorReading
from gatort.runtime.robots.sensors.robot import AGE_LIMIT_MS, PublishedKeys, SensorRobot
from gatort.runtime.spec import ObservationKey, PolicySpec

MS = 1_000_000
FORCE = observation_key("a_sensor/force", 3)


class FixedSensor:
    """A sensor whose readings a test sets."""

    address = "tcp://127.0.0.1:5560"

    def __init__(self, **values: SensorReading) -> None:
        self.readings = {f"a_sensor/{name}": reading for name, reading in values.items()}
        self.is_closed = False

    @property
    def stamp_ns(self) -> int | None:
        return max((each.stamp_ns for each in self.readings.values()), default=None)

    def update(self) -> dict[str, SensorReading]:
        return self.readings

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(1_000 * MS)


def reading(*numbers: float, stamp_ms: int = 1_000) -> SensorReading:
    return SensorReading(np.array(numbers), stamp_ms * MS)


Sense = Callable[[FixedSensor], SensorRobot]


@pytest.fixture
def sense(spec: PolicySpec, clock: VirtualClock) -> Sense:
    def make(sensor: FixedSensor, key: ObservationKey = FORCE) -> SensorRobot:
        return SensorRobot(ScriptedRobot(spec, clock), PublishedKeys(sensor, [key], clock))

    return make


def test_measured_keys_join_the_robots_own_in_gatos_order(sense: Sense) -> None:
    robot = sense(FixedSensor(force=reading(1, 2, 3)))
    names = [key.name for key in robot.interface.observations]
    assert names == sorted(names)
    assert names[0] == "a_sensor/force"
    seen = robot.observe()
    np.testing.assert_array_equal(seen.values[0], [1, 2, 3])
    assert seen.values[0].dtype == np.float32
    own = robot.robot.observe()
    assert [value.shape for value in seen.values[1:]] == [value.shape for value in own.values]


def test_the_stamp_stays_that_of_the_joints(sense: Sense, clock: VirtualClock) -> None:
    robot = sense(FixedSensor(force=reading(1, 2, 3, stamp_ms=900)))
    assert robot.observe().stamp_ns == clock.now_ns()


def test_a_reading_is_refused_once_it_is_too_old(sense: Sense, clock: VirtualClock) -> None:
    robot = sense(FixedSensor(force=reading(1, 2, 3)))
    clock.sleep_until_ns(round((1_000 + AGE_LIMIT_MS) * MS))
    robot.observe()
    clock.sleep_until_ns(clock.now_ns() + MS)
    with pytest.raises(ObservationError, match=r"a_sensor/force: .* found one 201 ms old"):
        robot.observe()


def test_another_number_of_values_is_refused_before_and_after_the_start(sense: Sense) -> None:
    with pytest.raises(SpecError, match="the policy reads 3 values, the sensor publishes 2"):
        sense(FixedSensor(force=reading(1, 2)))
    sensor = FixedSensor(force=reading(1, 2, 3))
    robot = sense(sensor)
    sensor.readings["a_sensor/force"] = reading(1, 2, 3, 4)
    with pytest.raises(ObservationError, match="expected 3 values, found 4"):
        robot.observe()


def test_the_checklist_tells_the_sensors_address_and_the_age_of_each_key(
    sense: Sense, clock: VirtualClock
) -> None:
    robot = sense(FixedSensor(force=reading(1, 2, 3)))
    clock.sleep_until_ns((1_000 + 34) * MS)
    assert robot.facts(clock.now_ns()) == [
        Fact("sensor", "tcp://127.0.0.1:5560, 34 ms old"),
        Fact("a_sensor/force", "34 ms old"),
    ]
    late = "expected at most 200 ms: see if its program still runs"
    assert [fact.attention for fact in robot.facts((1_000 + 201) * MS)] == [late, late]


def test_closing_the_robot_closes_the_sensor(sense: Sense) -> None:
    sensor = FixedSensor(force=reading(1, 2, 3))
    sense(sensor).close()
    assert sensor.is_closed
