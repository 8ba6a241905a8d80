"""The ZAP handler of a robot: it decides which CURVE keys may connect (RFC 27).

CURVE alone accepts any key: it proves that a controller holds the secret key, not that it may drive
this robot.
"""

from __future__ import annotations

from contextlib import suppress

import zmq

from .keys import RobotKeys

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
"""Address at which libzmq asks the handler (RFC 27)."""
ZAP_DOMAIN = b"gatort"
"""ZAP domain of the robot's socket."""
REPLIES_PER_TURN = 32


class ZapHandler:
    """Answers libzmq's question about each connecting key, in the thread that serves the robot."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], keys: RobotKeys) -> None:
        """Listen for libzmq's questions. Make the handler before a socket of the context binds.

        Args:
            context: the context of the sockets to guard.
            keys: the robot's secret key and the controllers' public keys.
        """
        self.unknown = 0
        """Number of handshakes refused because of their key."""
        self.socket = context.socket(zmq.REP)
        self.socket.set(zmq.LINGER, 0)
        self.socket.bind(ZAP_ENDPOINT)
        self._keys = keys

    def guard(self, socket: zmq.Socket[bytes]) -> None:
        """Make a socket a CURVE server whose handshakes are decided here."""
        socket.curve_secretkey = self._keys.secret
        socket.curve_server = True
        socket.zap_domain = ZAP_DOMAIN
        socket.zap_enforce_domain = True

    def reply(self) -> None:
        """Answer the questions that wait, at most `REPLIES_PER_TURN`. Never wait."""
        with suppress(zmq.Again):
            for _ in range(REPLIES_PER_TURN):
                self._reply_to(self.socket.recv_multipart(zmq.NOBLOCK))

    def _reply_to(self, question: list[bytes]) -> None:
        version, request, domain, _, _, mechanism, *credentials = question
        curve = (domain, mechanism) == (ZAP_DOMAIN, b"CURVE")

        if curve and credentials and self._keys.controllers.issuperset(credentials):
            verdict = (b"200", b"OK")
        else:
            self.unknown += 1
            verdict = (b"400", b"unknown key")

        self.socket.send_multipart([version, request, *verdict, b"", b""])
