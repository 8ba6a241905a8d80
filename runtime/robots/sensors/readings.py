"""Readings of a sensor: named values with the instant at which they were measured.

A sensor is any program of this computer that publishes JSON over a ZeroMQ PUB socket:

    {"stamp_ns": 81230455000000, "values": {"pose/red": [0.45, 0.1, 0.025, 1, 0, 0, 0]}}

`stamp_ns` is the instant of the measurement on the computer's monotonic clock (CLOCK_MONOTONIC).
A message may leave values out that were not measured. A message without values still says that the
sensor lives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Final, Protocol
from urllib.parse import urlsplit

import msgspec
import numpy as np
from numpy.typing import NDArray

from gatort.runtime.errors import ConfigError, WireError

LARGEST_BYTES: Final = 65_536
"""Longest message."""
MOST_VALUES: Final = 64
"""Most named values of a message."""
POSE: Final = "pose/"
"""Beginning of the name of a body's pose in W: x, y, z in m, then its quaternion, w first."""
EDGE: Final = "edge/"
"""Beginning of the name of a cube's edge in m."""

_LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
_Numbers = Annotated[list[float], msgspec.Meta(max_length=4096)]


class SensorMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One message of a sensor."""

    stamp_ns: int
    """Instant of the measurement on the computer's monotonic clock."""
    values: Annotated[dict[_Name, _Numbers], msgspec.Meta(max_length=MOST_VALUES)]
    """Measured values by name."""


@dataclass(frozen=True, slots=True)
class SensorReading:
    """Newest value of one name."""

    value: NDArray[np.float64]
    """The numbers, one after the other."""
    stamp_ns: int
    """Instant of its measurement."""


class Sensor(Protocol):
    """A running sensor. `update` never waits."""

    @property
    def address(self) -> str:
        """Address at which it publishes, for its operator."""
        ...

    @property
    def stamp_ns(self) -> int | None:
        """Stamp of the newest message; `None` before the first."""
        ...

    def update(self) -> dict[str, SensorReading]:
        """Return the newest reading of each name, oldest ones included."""
        ...

    def close(self) -> None:
        """Release the sensor. A second call does nothing."""
        ...


_DECODER: Final = msgspec.json.Decoder(SensorMessage)


def decode(data: bytes) -> SensorMessage:
    """Parse a message.

    Raises:
        WireError: it is too long, no such JSON, or has a number that is not finite.
    """
    if len(data) > LARGEST_BYTES:
        raise WireError(f"expected at most {LARGEST_BYTES} bytes, found {len(data)}")
    try:
        message = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f'expected {{"stamp_ns": …, "values": {{…}}}}, found {error}') from error
    for name, numbers in message.values.items():
        if not all(map(math.isfinite, numbers)):
            raise WireError(f"{name}: expected finite numbers, found {numbers}")
    return message


def encode(stamp_ns: int, values: dict[str, list[float]]) -> bytes:
    """Return a message as JSON."""
    return msgspec.json.encode(SensorMessage(stamp_ns, values))


def require_loopback(address: str) -> str:
    """Return the address of a sensor, if it is on this computer.

    Raises:
        ConfigError: it is no tcp://HOST:PORT on loopback.
    """
    url = urlsplit(address)
    try:
        is_valid = url.scheme == "tcp" and url.port is not None and not url.path
    except ValueError:
        is_valid = False
    if not is_valid or url.netloc.rpartition(":")[0] not in _LOOPBACK:
        raise ConfigError(
            "expected a sensor on this computer, such as tcp://127.0.0.1:5560, because its stamps "
            f"are of this computer's clock and its stream is not encrypted; found {address}"
        )
    return address
