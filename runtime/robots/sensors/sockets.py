"""Both ends of a sensor's stream: a publisher, and a subscription that keeps the newest values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import zmq

from gatort.runtime.clock import Clock
from gatort.runtime.errors import ConfigError, RobotError, WireError

from .readings import LARGEST_BYTES, SensorMessage, SensorReading, decode, encode, require_loopback

QUEUE_MESSAGES: Final = 64
"""Length of a queue; two seconds of a camera."""
FIRST_MESSAGE_S: Final = 5.0
"""Longest wait for the first message."""
AHEAD_NS: Final = 5_000_000
"""A stamp further ahead of this clock than this is from another clock."""
MOST_NAMES: Final = 256
"""Most names that are kept of one sensor."""


class SensorPublisher:
    """Publishes readings to everyone on this computer who subscribes."""

    def __init__(self, address: str) -> None:
        """Bind the address.

        Raises:
            ConfigError: it is not on loopback, or taken.
        """
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.set(zmq.SNDHWM, QUEUE_MESSAGES)
        self._socket.set(zmq.LINGER, 0)
        try:
            self._socket.bind(require_loopback(address))
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(
                f"cannot publish at {address}: {zmq.strerror(error.errno or 0)}: "
                "choose another port"
            ) from error

    @property
    def address(self) -> str:
        """Bound address."""
        return self._socket.get_string(zmq.LAST_ENDPOINT)

    def publish(self, stamp_ns: int, values: dict[str, list[float]]) -> None:
        """Send a message to every subscriber. A slow one loses messages."""
        self._socket.send(encode(stamp_ns, values), zmq.NOBLOCK)

    def close(self) -> None:
        """Release the address. A second call does nothing."""
        self._socket.close()
        self._context.term()


class Subscription:
    """The newest readings of one sensor. Implements `Sensor`."""

    def __init__(self, address: str, clock: Clock) -> None:
        """Subscribe. Readings come later; see `wait`.

        Args:
            address: address at which the sensor publishes, on loopback.
            clock: the computer's monotonic clock.

        Raises:
            ConfigError: the address is not valid, or not on loopback.
        """
        self.address = require_loopback(address)
        self.malformed = 0
        """Number of messages that were dropped."""
        self._clock = clock
        self._stamp_ns: int | None = None
        self._readings: dict[str, SensorReading] = {}
        self._last_error = ""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.set(zmq.MAXMSGSIZE, LARGEST_BYTES)
        self._socket.set(zmq.RCVHWM, QUEUE_MESSAGES)
        self._socket.set(zmq.LINGER, 0)
        self._socket.subscribe(b"")
        self._socket.connect(address)

    @property
    def stamp_ns(self) -> int | None:
        """See `Sensor.stamp_ns`."""
        return self._stamp_ns

    def wait(self, seconds: float = FIRST_MESSAGE_S) -> None:
        """Wait for the first message with values.

        Raises:
            RobotError: none came in time.
        """
        if not self.wait_until(bool, seconds):
            found = self._last_error or "nothing"
            raise RobotError(
                f"expected readings from the sensor at {self.address} within {seconds:g} s, "
                f"found {found}: start it first, for example `gatort poses`"
            )

    def wait_until(
        self, enough: Callable[[dict[str, SensorReading]], bool], seconds: float
    ) -> bool:
        """Wait until the readings are enough. Return false if they are not in time."""
        until_ns = self._clock.now_ns() + round(seconds * 1e9)
        while not enough(self.update()):
            left_ms = (until_ns - self._clock.now_ns()) // 1_000_000
            if left_ms <= 0:
                return False
            self._socket.poll(min(left_ms, 100))
        return True

    def update(self) -> dict[str, SensorReading]:
        """See `Sensor.update`."""
        for _ in range(QUEUE_MESSAGES):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            self._take(frames[0] if len(frames) == 1 else b"")
        return self._readings

    def _take(self, data: bytes) -> None:
        try:
            message = decode(data)
            self._require_present(message.stamp_ns)
            values = self._newer(message)
        except WireError as error:
            self.malformed += 1
            self._last_error = str(error)
            return
        self._stamp_ns = max(message.stamp_ns, self._stamp_ns or 0)
        for name, numbers in values.items():
            if name in self._readings or len(self._readings) < MOST_NAMES:
                self._readings[name] = SensorReading(
                    np.array(numbers, np.float64), message.stamp_ns
                )

    def _require_present(self, stamp_ns: int) -> None:
        ahead_ns = stamp_ns - self._clock.now_ns()
        if ahead_ns > AHEAD_NS:
            raise WireError(
                f"expected a stamp of this computer's monotonic clock, "
                f"found one {ahead_ns * 1e-9:.3g} s ahead"
            )

    def _newer(self, message: SensorMessage) -> dict[str, list[float]]:
        """Return the values of a message that are not older than those of the same names.

        A program with two cameras sends the older light of the slower one after the other's.

        Raises:
            WireError: all of them are older.
        """
        newer = {
            name: numbers
            for name, numbers in message.values.items()
            if name not in self._readings or message.stamp_ns >= self._readings[name].stamp_ns
        }
        if message.values and not newer:
            raise WireError("expected stamps that never go back, found one that does")
        return newer

    def close(self) -> None:
        """See `Sensor.close`."""
        self._socket.close()
        self._context.term()
