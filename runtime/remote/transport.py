"""Contracts of the carrier between the two ends of a wire.

The carrier is sockets, a simulated bad link, or memory.

`RobotTransport` is the robot's end and `ControllerTransport` the controller's. ZeroMQ implements
them in `robot_socket.py` and `controller_socket.py`; `memory.py` joins both in one thread, for
tests on a virtual clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Connection:
    """One controller's connection, as the robot's transport knows it."""

    routing_id: bytes
    """Address of the connection for answers."""
    descriptor: int
    """File descriptor of the connection. The transport reports its end by this number."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One frame that arrived, and the connection that it came over."""

    connection: Connection
    frame: bytes


@dataclass(slots=True)
class RefusalCounts:
    """Counts of the messages and handshakes that a transport turned away since it was made."""

    malformed: int = 0
    """Number of messages that were not exactly one frame."""
    unknown_keys: int = 0
    """Number of handshakes with a key that the robot does not accept."""
    handshakes: int = 0
    """Number of handshakes that failed otherwise: no key, the robot's key wrong, another
    protocol."""
    flooded: int = 0
    """Number of frames that came faster than a connection may send."""

    def __add__(self, other: RefusalCounts) -> RefusalCounts:
        """Return the sums of two counts."""
        return RefusalCounts(
            self.malformed + other.malformed,
            self.unknown_keys + other.unknown_keys,
            self.handshakes + other.handshakes,
            self.flooded + other.flooded,
        )


class RobotTransport(Protocol):
    """The robot's end of its controllers' connections. Only `wait` waits."""

    @property
    def endpoint(self) -> str:
        """Address at which the robot listens."""
        ...

    @property
    def refused(self) -> RefusalCounts:
        """Counts of messages and handshakes that were turned away."""
        ...

    def wait(self, longest_ms: int) -> None:
        """Return when something may have arrived, or after `longest_ms`."""
        ...

    def receive(self) -> Sequence[Arrival]:
        """Return the frames that arrived since the last call.

        A call returns a limited number of frames. The others wait for the next call.
        """
        ...

    def ended(self) -> Sequence[int]:
        """Return the descriptors of connections that ended since the last call."""
        ...

    def send(self, connection: Connection, frame: bytes) -> None:
        """Send a frame. A connection that has ended or is full loses it."""
        ...

    def close(self) -> None:
        """Stop listening. A second call does nothing."""
        ...


class ControllerTransport(Protocol):
    """The controller's end of its one connection. Only `wait` waits."""

    def wait(self, longest_ns: int) -> None:
        """Return when something may have arrived, or after `longest_ns`."""
        ...

    def receive(self) -> bytes | None:
        """Return the next frame that arrived, or `None`."""
        ...

    def broken(self) -> str | None:
        """Return why the connection ended, or `None` while it stands.

        Frames from before the end still arrive.
        """
        ...

    def send(self, frame: bytes) -> None:
        """Send a frame. A full queue loses it."""
        ...

    def close(self) -> None:
        """End the connection. A second call does nothing."""
        ...
