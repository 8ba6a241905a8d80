"""The robot's end of the wire over ZeroMQ: every queue, size and turn is bounded."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import zmq
from zmq.utils.monitor import recv_monitor_message

from gatort.runtime.errors import ConfigError

from . import wire
from .keys import RobotKeys, require_keys_beyond_loopback
from .transport import Arrival, Connection, RefusalCounts
from .zap import ZapHandler
from .zmq_sockets import bounded_socket, context

REQUESTS_PER_TURN = 32
"""Most messages that one turn reads."""
PARTS_PER_TURN = 128
"""Most message parts that one turn reads, at 2 to 4 µs each. A message may have millions of
them."""

_PARTS = 2
"""Parts of a message as the ROUTER hands it over: the routing id and one frame."""
_BROKEN_HANDSHAKE = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL


class PartReader:
    """Joins message parts into arrivals, a bounded number in each turn.

    A message that has not arrived whole is read on in the next turn, so that no message holds the
    arm up.
    """

    def __init__(self) -> None:
        self.malformed = 0
        """Number of messages that were not exactly one frame."""
        self._parts: list[zmq.Frame] = []
        """First parts of the message being read: no more than it takes to see that there are too
        many."""

    def read(self, receive: Callable[[], zmq.Frame]) -> list[Arrival]:
        """Return at most `REQUESTS_PER_TURN` messages, from at most `PARTS_PER_TURN` parts.

        Args:
            receive: returns the next part, or raises `zmq.Again` when none waits.
        """
        arrivals: list[Arrival] = []
        messages = 0
        with suppress(zmq.Again):
            for _ in range(PARTS_PER_TURN):
                part = receive()
                self._keep(part)
                if part.more:
                    continue

                messages += 1
                arrivals += self._finish()
                if messages == REQUESTS_PER_TURN:
                    break
        return arrivals

    def _keep(self, part: zmq.Frame) -> None:
        if len(self._parts) <= _PARTS:
            self._parts.append(part)

    def _finish(self) -> list[Arrival]:
        """Return the message that has arrived whole, or nothing and count it."""
        parts = self._parts
        self._parts = []
        if len(parts) != _PARTS:
            self.malformed += 1
            return []
        routing_id, frame = parts
        connection = Connection(routing_id.bytes, int(frame.get(zmq.SRCFD)))
        return [Arrival(connection, frame.bytes)]


class RobotSocket:
    """Listens for controllers over TCP. Implements `RobotTransport`."""

    def __init__(self, endpoint: str, keys: RobotKeys | None = None) -> None:
        """Bind the address.

        Args:
            endpoint: an address such as `tcp://127.0.0.1:5555`. Port 0 takes a free port.
            keys: the robot's secret key and the controllers that it accepts. Without keys the robot
                listens on this machine only, and accepts everyone on it.

        Raises:
            ConfigError: the address cannot be bound, or other machines could reach it without keys.
        """
        require_keys_beyond_loopback(endpoint, keyed=keys is not None)
        self._context = context()
        self._socket = bounded_socket(self._context, zmq.ROUTER, wire.LARGEST_REQUEST_BYTES)
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED | _BROKEN_HANDSHAKE)
        self._zap = ZapHandler(self._context, keys) if keys is not None else None
        if self._zap is not None:
            self._zap.guard(self._socket)
        self._reader = PartReader()
        self._handshakes = 0
        self._bind(endpoint)
        self.poller = self._make_poller()
        """Everything that ends `wait`. More may be registered."""

    def _bind(self, endpoint: str) -> None:
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(
                f"cannot listen on {endpoint}: {zmq.strerror(error.errno or 0)}"
            ) from error
        self._endpoint = self._socket.get_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def _make_poller(self) -> zmq.Poller:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        if self._zap is not None:
            poller.register(self._zap.socket, zmq.POLLIN)
        return poller

    @property
    def endpoint(self) -> str:
        """See `RobotTransport.endpoint`."""
        return self._endpoint

    @property
    def refused(self) -> RefusalCounts:
        """See `RobotTransport.refused`."""
        unknown_keys = self._zap.unknown if self._zap is not None else 0
        return RefusalCounts(self._reader.malformed, unknown_keys, self._handshakes)

    def wait(self, longest_ms: int) -> None:
        """See `RobotTransport.wait`."""
        self.poller.poll(longest_ms)

    def receive(self) -> list[Arrival]:
        """See `RobotTransport.receive`, with the bounds of `PartReader.read`."""
        return self._reader.read(lambda: self._socket.recv(zmq.NOBLOCK, copy=False))

    def ended(self) -> list[int]:
        """See `RobotTransport.ended`. Answer libzmq's questions about keys as well."""
        if self._zap is not None:
            self._zap.reply()

        descriptors = []
        with suppress(zmq.Again):
            while True:
                event = recv_monitor_message(self._monitor, zmq.NOBLOCK)
                if event["event"] & _BROKEN_HANDSHAKE:
                    self._handshakes += 1
                else:
                    descriptors.append(event["value"])
        return descriptors

    def send(self, connection: Connection, frame: bytes) -> None:
        """See `RobotTransport.send`."""
        self._socket.send_multipart((connection.routing_id, frame), zmq.NOBLOCK)

    def close(self) -> None:
        """See `RobotTransport.close`."""
        if self._socket.closed:
            return
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close()
        if self._zap is not None:
            self._zap.socket.close()
        self._context.term()
