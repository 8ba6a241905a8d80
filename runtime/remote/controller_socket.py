"""The controller's end of the wire over ZeroMQ: a DEALER socket, and why its connection ended."""

from __future__ import annotations

from contextlib import suppress
from math import ceil

import zmq
from zmq.utils.monitor import recv_monitor_message

from gatort.runtime.errors import ConfigError

from . import wire
from .keys import ControllerKeys, require_keys_beyond_loopback
from .zmq_sockets import bounded_socket, context


class ControllerSocket:
    """Connects to one robot over TCP. Implements `ControllerTransport`."""

    def __init__(self, endpoint: str, keys: ControllerKeys | None = None) -> None:
        """Begin to connect.

        Args:
            endpoint: the robot's address, such as `tcp://127.0.0.1:5555`.
            keys: the controller's secret key and the robot's public key. Without keys the robot
                must be on this machine.

        Raises:
            ConfigError: the address is not valid, or it is beyond this machine and keys are
                missing.
        """
        require_keys_beyond_loopback(endpoint, keyed=keys is not None)
        self._reasons = _reasons(keys)
        self._broken: str | None = None
        self._context = context()
        self._socket = bounded_socket(self._context, zmq.DEALER, wire.LARGEST_ANSWER_BYTES)
        self._monitor = self._socket.get_monitor_socket(sum(self._reasons))
        if keys is not None:
            keys.apply(self._socket)

        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(
                f"cannot connect to {endpoint}: {zmq.strerror(error.errno or 0)}"
            ) from error

        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)

    def wait(self, longest_ns: int) -> None:
        """See `ControllerTransport.wait`."""
        self._poller.poll(ceil(longest_ns * 1e-6))

    def receive(self) -> bytes | None:
        """See `ControllerTransport.receive`.

        A message of several frames becomes an empty one, which is malformed.
        """
        try:
            frames = self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        return frames[0] if len(frames) == 1 else b""

    def broken(self) -> str | None:
        """See `ControllerTransport.broken`."""
        with suppress(zmq.Again):
            while self._broken is None:
                event = recv_monitor_message(self._monitor, zmq.NOBLOCK)["event"]
                self._broken = self._reasons[zmq.Event(event)]
        return self._broken

    def send(self, frame: bytes) -> None:
        """See `ControllerTransport.send`."""
        with suppress(zmq.Again):  # The robot's watchdog notices what a full queue loses.
            self._socket.send(frame, zmq.NOBLOCK)

    def close(self) -> None:
        """See `ControllerTransport.close`."""
        if self._socket.closed:
            return
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(0)
        self._context.term()


def _reasons(keys: ControllerKeys | None) -> dict[zmq.Event, str]:
    """Return the sentence for each way in which a connection ends."""
    if keys is None:
        wrong_key = (
            "the robot requires keys (use --keys DIR), or nothing that speaks gatort's protocol "
            "listens there"
        )
        unknown_key = wrong_key
        mismatch = wrong_key
    else:
        # A robot without keys may hang up before this side has seen why.
        wrong_key = (
            f"{keys.directory / 'robot.pub'} is not the key of the robot there, or that robot "
            "speaks without keys"
        )
        unknown_key = (
            f"the robot does not accept {keys.directory / 'controller.key'}: copy its "
            "controller.pub into the robot's key directory"
        )
        mismatch = "the robot speaks without keys: leave out --keys, or start it with --keys DIR"
    return {
        zmq.Event.CLOSED: "no robot listens there; start one with `gatort robot`",
        zmq.Event.HANDSHAKE_FAILED_NO_DETAIL: wrong_key,
        zmq.Event.HANDSHAKE_FAILED_AUTH: unknown_key,
        zmq.Event.HANDSHAKE_FAILED_PROTOCOL: mismatch,
        zmq.Event.DISCONNECTED: "the robot hung up; its process has ended or the network is broken",
    }
