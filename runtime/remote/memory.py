"""A wire inside one thread, on a virtual clock: a robot and its controllers meet without a socket
or a second thread.

Time passes only while the robot waits, a millisecond at a time, and the robot takes a turn only
while a controller waits. So every message, turn and instant of a test is the same in each run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import count

from gatort.runtime.clock import VirtualClock

from .transport import Arrival, Connection, RefusalCounts

_NS_PER_MS = 1_000_000
_HUNG_UP = "the robot hung up"


class MemoryRobotTransport:
    """The robot's end in memory. Implements `RobotTransport`."""

    endpoint = "memory"

    def __init__(self, clock: VirtualClock) -> None:
        """Listen, on a clock that `wait` moves."""
        self.refused = RefusalCounts()
        """See `RobotTransport.refused`. Stays zero."""
        self.arriving: deque[Arrival] = deque()
        """Frames on their way to the robot. A test may remove, repeat or reorder them."""
        self.controllers: dict[Connection, MemoryControllerTransport] = {}
        """Controllers that are connected."""
        self.hung_up: list[int] = []
        """Descriptors of the connections that ended since the robot last asked."""
        self.closed = False
        """True once the robot has stopped listening."""
        self._clock = clock
        self._descriptors = count(1)

    def connect(self, turn: Callable[[], None]) -> MemoryControllerTransport:
        """Return a new controller's end.

        Args:
            turn: lets the robot take a turn; called while the controller waits.
        """
        number = next(self._descriptors)
        connection = Connection(str(number).encode(), number)
        controller = MemoryControllerTransport(self, connection, turn)
        self.controllers[connection] = controller
        return controller

    def wait(self, longest_ms: int) -> None:
        """Let the time pass, unless something has arrived."""
        if not self.arriving and not self.hung_up:
            self._clock.advance_ns(longest_ms * _NS_PER_MS)

    def receive(self) -> list[Arrival]:
        """See `RobotTransport.receive`."""
        arrived = list(self.arriving)
        self.arriving.clear()
        return arrived

    def ended(self) -> list[int]:
        """See `RobotTransport.ended`."""
        descriptors = self.hung_up
        self.hung_up = []
        return descriptors

    def send(self, connection: Connection, frame: bytes) -> None:
        """See `RobotTransport.send`."""
        controller = self.controllers.get(connection)
        if controller is not None:
            controller.arriving.append(frame)

    def close(self) -> None:
        """See `RobotTransport.close`."""
        self.closed = True
        self.controllers.clear()


class MemoryControllerTransport:
    """A controller's end in memory. Implements `ControllerTransport`."""

    def __init__(
        self, robot: MemoryRobotTransport, connection: Connection, turn: Callable[[], None]
    ) -> None:
        """Join the robot's end. `MemoryRobotTransport.connect` calls this."""
        self.arriving: deque[bytes] = deque()
        """Frames on their way to the controller. A test may remove, repeat or reorder them."""
        self.connection = connection
        """Connection by which the robot knows this end."""
        self._robot = robot
        self._turn = turn

    def wait(self, longest_ns: int) -> None:
        """Let the robot take one turn, unless an answer has arrived or `longest_ns` is 0."""
        if not self.arriving and longest_ns > 0:
            self._turn()

    def receive(self) -> bytes | None:
        """See `ControllerTransport.receive`."""
        return self.arriving.popleft() if self.arriving else None

    def broken(self) -> str | None:
        """See `ControllerTransport.broken`."""
        return _HUNG_UP if self._robot.closed else None

    def send(self, frame: bytes) -> None:
        """See `ControllerTransport.send`."""
        self._robot.arriving.append(Arrival(self.connection, frame))

    def close(self) -> None:
        """See `ControllerTransport.close`."""
        if self._robot.controllers.pop(self.connection, None) is not None:
            self._robot.hung_up.append(self.connection.descriptor)
