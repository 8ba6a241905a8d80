"""Any robot with keys that sensors measure: joints from the robot, the other keys from sensors.

As with cameras, the stamp of an observation stays the robot's own, because a command takes effect a
constant time after it. A reading has an age limit of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from numpy.typing import NDArray

from gatort.runtime.clock import Clock
from gatort.runtime.errors import ObservationError, SpecError
from gatort.runtime.facts import Fact
from gatort.runtime.robot import Observation, Robot
from gatort.runtime.robots.wrapped import WrappedRobot
from gatort.runtime.spec import Interface, ObservationKey

from .readings import Sensor, SensorReading

AGE_LIMIT_MS: Final = 200.0
"""Oldest reading that is taken: 60 ms of a camera, two frames at 30 Hz, detection and jitter."""


class MeasuredKeys(Protocol):
    """Observation keys, and where their values come from."""

    @property
    def keys(self) -> Sequence[ObservationKey]:
        """Keys, as the policy expects them."""
        ...

    def read(self, seen: Observation) -> Sequence[NDArray[Any]]:
        """Return a value for each key, beside a robot's observation of this instant.

        Raises:
            ObservationError: a value is missing or too old.
        """
        ...

    def facts(self, now_ns: int) -> Sequence[Fact]:
        """Return rows of the checklist: the sensor's age, and that of its readings."""
        ...

    def close(self) -> None:
        """Release the sensor. A second call does nothing."""
        ...


class SensorRobot(WrappedRobot):
    """A robot whose observations have measured keys beside its own."""

    def __init__(self, robot: Robot, measured: MeasuredKeys) -> None:
        """Take over a robot and measured keys. `close` closes both."""
        super().__init__(robot)
        base = robot.interface
        self.measured = measured
        """Keys that are measured, and where their values come from."""
        self._interface = Interface(
            observations=(*base.observations, *measured.keys),
            actuators=base.actuators,
            control_hz=base.control_hz,
            action_delay_ms=base.action_delay_ms,
        )
        keys = [key.name for key in (*base.observations, *measured.keys)]
        self._order = [keys.index(key.name) for key in self._interface.observations]

    @property
    def interface(self) -> Interface:
        """Interface with the keys of robot and sensor."""
        return self._interface

    def observe(self) -> Observation:
        """See `Robot.observe`.

        Raises:
            ObservationError: the robot has nothing fresh, or a reading is missing or too old.
            RobotError: the robot no longer answers.
        """
        seen = self.robot.observe()
        values = (*seen.values, *self.measured.read(seen))
        return replace(seen, values=tuple(values[index] for index in self._order))

    def facts(self, now_ns: int) -> Sequence[Fact]:
        """See `MeasuredKeys.facts`."""
        return self.measured.facts(now_ns)

    def close(self) -> None:
        """See `Robot.close`."""
        try:
            super().close()
        finally:
            self.measured.close()


class PublishedKeys:
    """Keys that a sensor publishes by their own names. Implements `MeasuredKeys`."""

    def __init__(self, sensor: Sensor, keys: Sequence[ObservationKey], clock: Clock) -> None:
        """Read the keys from a sensor that has published each of them.

        Raises:
            SpecError: a key has another number of values.
        """
        self.keys = tuple(keys)
        self._sensor = sensor
        self._clock = clock
        for key in self.keys:
            _require_shape(key, sensor.update()[key.name])

    def read(self, seen: Observation) -> Sequence[NDArray[Any]]:  # noqa: ARG002
        """See `MeasuredKeys.read`."""
        readings = self._sensor.update()
        return [self._value(key, readings[key.name]) for key in self.keys]

    def _value(self, key: ObservationKey, reading: SensorReading) -> NDArray[Any]:
        age_ms = (self._clock.now_ns() - reading.stamp_ns) * 1e-6
        if age_ms > AGE_LIMIT_MS:
            raise ObservationError(
                f"{key.name}: expected a reading of the last {AGE_LIMIT_MS:g} ms, "
                f"found one {age_ms:.0f} ms old"
            )
        if reading.value.size != key.size:
            raise ObservationError(
                f"{key.name}: expected {key.size} values, found {reading.value.size}"
            )
        return reading.value.reshape(key.shape).astype(key.dtype)

    def facts(self, now_ns: int) -> Sequence[Fact]:
        """See `MeasuredKeys.facts`."""
        readings = self._sensor.update()
        ages = ((key.name, _age_ms(readings[key.name].stamp_ns, now_ns)) for key in self.keys)
        return [
            sensor_fact(self._sensor, now_ns),
            *(Fact(name, f"{age_ms:.0f} ms old", too_old(age_ms)) for name, age_ms in ages),
        ]

    def close(self) -> None:
        """See `MeasuredKeys.close`."""
        self._sensor.close()


def sensor_fact(sensor: Sensor, now_ns: int) -> Fact:
    """Return the address of a sensor and the age of its newest message."""
    if sensor.stamp_ns is None:
        return Fact("sensor", sensor.address, "it has published nothing: see if it runs")
    age_ms = _age_ms(sensor.stamp_ns, now_ns)
    return Fact("sensor", f"{sensor.address}, {age_ms:.0f} ms old", too_old(age_ms))


def too_old(age_ms: float) -> str:
    """Return why a reading is refused for its age; empty if it is not."""
    if age_ms <= AGE_LIMIT_MS:
        return ""
    return f"expected at most {AGE_LIMIT_MS:g} ms: see if its program still runs"


def _age_ms(stamp_ns: int, now_ns: int) -> float:
    return max(now_ns - stamp_ns, 0) * 1e-6


def _require_shape(key: ObservationKey, reading: SensorReading) -> None:
    if reading.value.size != key.size:
        raise SpecError(
            f"{key.name}: the policy reads {key.size} values, the sensor publishes "
            f"{reading.value.size}"
        )
