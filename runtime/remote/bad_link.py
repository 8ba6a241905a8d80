"""A robot's transport made worse on purpose: each frame is delayed, lost or overtaken as the
conditions say.

Only a simulated arm is ever put behind it. A real arm's frames go straight to the socket.
"""

from __future__ import annotations

from collections.abc import Sequence

from gatort.runtime.clock import Clock

from .link import DelayLine, LinkConditions
from .transport import Arrival, Connection, RefusalCounts, RobotTransport


class BadLink:
    """Puts a `DelayLine` into each direction of a transport. Implements `RobotTransport`."""

    def __init__(self, transport: RobotTransport, conditions: LinkConditions, clock: Clock) -> None:
        """Take over a transport. `close` closes it.

        Args:
            transport: the robot's end of the connections.
            conditions: delay, jitter, loss and reordering of each direction.
            clock: the clock by which frames are due.
        """
        self._transport = transport
        self._clock = clock
        self._arriving: DelayLine[Arrival] = DelayLine(conditions, "to_robot")
        self._leaving: DelayLine[tuple[Connection, bytes]] = DelayLine(conditions, "to_controller")

    @property
    def endpoint(self) -> str:
        """See `RobotTransport.endpoint`."""
        return self._transport.endpoint

    @property
    def refused(self) -> RefusalCounts:
        """See `RobotTransport.refused`."""
        return self._transport.refused

    def wait(self, longest_ms: int) -> None:
        """See `RobotTransport.wait`.

        A frame that becomes due does not end the wait. The server's turn waits 1 ms at most.
        """
        self._transport.wait(longest_ms)

    def receive(self) -> Sequence[Arrival]:
        """See `RobotTransport.receive`. Send the answers that are due as well."""
        now_ns = self._clock.now_ns()
        self._send_due(now_ns)
        for arrival in self._transport.receive():
            self._arriving.push(now_ns, arrival)
        return self._arriving.pop_due(now_ns)

    def ended(self) -> Sequence[int]:
        """See `RobotTransport.ended`. The end of a connection is not delayed."""
        return self._transport.ended()

    def send(self, connection: Connection, frame: bytes) -> None:
        """See `RobotTransport.send`."""
        now_ns = self._clock.now_ns()
        self._leaving.push(now_ns, (connection, frame))
        self._send_due(now_ns)

    def close(self) -> None:
        """See `RobotTransport.close`."""
        self._transport.close()

    def _send_due(self, now_ns: int) -> None:
        for connection, frame in self._leaving.pop_due(now_ns):
            self._transport.send(connection, frame)
