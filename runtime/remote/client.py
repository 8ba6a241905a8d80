"""A robot at the other end of a wire, as the loop sees it: it is asked, and only its newest answer counts.

Nothing can queue up behind a controller that stalls, every observation is as fresh as the link allows, and each
exchange measures the round trip and how far the two clocks are apart (NTP's four stamps, RFC 5905 section 8).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from math import ceil
from typing import TypeVar

import numpy as np
import zmq
from pydantic import ValidationError
from zmq.utils.monitor import recv_monitor_message

from gatort.runtime.clock import Clock
from gatort.runtime.errors import (
    ConfigError,
    ObservationError,
    RobotError,
    WireError,
)
from gatort.runtime.robot import Observation
from gatort.runtime.safety import (
    Command,
    State,
)
from gatort.runtime.spec import Interface
from gatort.runtime.telemetry import Percentiles

from . import wire
from .keys import (
    ControllerKeys,
    require_keys_beyond_loopback,
)
from .link import (
    COPIES,
    RETRY_NS,
)

CONNECT_NS = 2_000_000_000
"""How long a robot may take to let a controller in."""
CONSENT_NS = 500_000_000
"""How long it may take to answer that it is armed."""
STOP_NS = 100_000_000
"""How long to wait for the answer that it stops; its watchdog stops it in any case."""
EXCHANGES = 64
"""The clocks are compared by the shortest round trip among the last so many."""
ASK_AGAIN_NS = 20_000_000
KEPT_ROUND_TRIPS = 72_000
"""An hour at 20 Hz."""
_A = TypeVar("_A", bound=wire.Answer)


class RemoteRobot:
    """Implements `Robot` over TCP."""

    def __init__(self, endpoint: str, clock: Clock, keys: ControllerKeys | None = None) -> None:
        """Connect and get a session; the robot is disarmed.

        Args:
            endpoint: such as `tcp://127.0.0.1:5555`.
            clock: the controller's.
            keys: which robot to speak with, and as whom; without them only one on this machine.

        Raises:
            ConfigError: the address is none, or beyond this machine without keys.
            RobotError: there is no robot, it does not let this controller in, or it speaks another version.
        """
        require_keys_beyond_loopback(endpoint, keyed=keys is not None)
        self.endpoint = endpoint
        self.state = State.DISARMED
        """See `Robot.state`; as of the last answer."""
        self.successes = 0
        """How often the task was done since this session began."""
        self.dropped = 0
        """Commands that the robot did not apply since its process began."""
        self.retries = 0
        """Requests for an observation that were sent again."""
        self.outdated = 0
        """Answers that came too late or after a newer one, and were dropped."""
        self.malformed = 0
        """Frames that are no answer of the protocol."""
        self._clock = clock
        self._exchanges: deque[tuple[int, int]] = deque(maxlen=EXCHANGES)
        """Round trip and offset of each. ns"""
        self._round_trips_ns = np.zeros(KEPT_ROUND_TRIPS, np.int64)
        self._answered = self._requests = self._consents = 0
        self._newest = -1
        self._successes_before: int | None = None
        self._session = 0
        self._broken: str | None = None
        """What ended the connection."""
        self._endings = _endings(keys)
        self._context = wire.context()
        self._socket = wire.bounded_socket(self._context, zmq.DEALER, wire.LARGEST_ANSWER_BYTES)
        self._monitor = self._socket.get_monitor_socket(sum(self._endings))
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        if keys is not None:
            keys.apply(self._socket)
        try:
            try:
                self._socket.connect(endpoint)
            except zmq.ZMQError as error:
                raise ConfigError(
                    f"cannot connect to {endpoint}: {zmq.strerror(error.errno or 0)}"
                ) from error
            welcome = self._ask(wire.Hello(wire.VERSION), wire.Welcome, lambda _: True, CONNECT_NS)
            self.interface = _read_interface(welcome)
        except BaseException:
            self.close()
            raise
        self.name, self.simulated, self._session = welcome.name, welcome.simulated, welcome.session

    # -- Robot -------------------------------------------------------------------------------------------------------

    @property
    def succeeded(self) -> bool:
        """See `Robot.succeeded`."""
        return self.successes > 0

    def arm(self) -> None:
        """See `Robot.arm`."""
        self._consents += 1
        request = wire.Arm(self._session, self._consents)
        self._ask(request, wire.Armed, lambda armed: armed.sequence == request.sequence, CONSENT_NS)
        self.state = State.RUN

    def observe(self) -> Observation:
        """See `Robot.observe`: asked again every `RETRY_NS` until something new is there or would be too late."""
        deadline_ns = self._clock.now_ns() + self.interface.action_delay_ns
        first = self._requests + 1
        while (now_ns := self._clock.now_ns()) < deadline_ns:
            self._requests += 1
            self._send(wire.Observe(self._session, self._requests, now_ns))
            found = self._receive_newest(first, min(now_ns + RETRY_NS, deadline_ns))
            if found is not None:
                self.retries += self._requests - first
                return found
        self.retries += self._requests - first
        raise ObservationError(
            f"expected an answer from {self.endpoint} within {self.interface.action_delay_ms} ms, found none to "
            f"{self._requests - first + 1} requests"
        )

    def command(self, command: Command) -> None:
        """See `Robot.command`; sent `COPIES` times."""
        # With the same offset that brought the observation's stamp here, so that the delay stays exactly constant.
        message = wire.Command(
            self._session,
            command.sequence,
            command.observation_sequence,
            max(0, command.apply_at_ns + self.clock_offset_ns),
            command.valid_for_ns,
            command.values.tolist(),
        )
        for _ in range(COPIES):
            self._send(message)

    def stop(self) -> None:
        """See `Robot.stop`; where the robot does not answer, its watchdog stops it."""
        self._consents += 1
        request = wire.Stop(self._session, self._consents)
        try:
            self._ask(
                request, wire.Stopped, lambda stopped: stopped.sequence == request.sequence, STOP_NS
            )
        except RobotError:
            return
        self.state = State.SAFE

    def close(self) -> None:
        """See `Robot.close`. The robot stops an arm whose controller hangs up."""
        if self._socket.closed:
            return
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(0)
        self._context.term()

    # -- Clocks ------------------------------------------------------------------------------------------------------

    @property
    def clock_offset_ns(self) -> int:
        """What the robot's clock shows less what the controller's does, by the shortest of the last round trips."""
        return min(self._exchanges)[1] if self._exchanges else 0

    @property
    def round_trips(self) -> Percentiles:
        """Of the exchanges of the last hour, without the time that the robot took to answer."""
        return Percentiles.of_ns(self._round_trips_ns[: min(self._answered, KEPT_ROUND_TRIPS)])

    def _measure(self, answer: wire.Observation, arrived_ns: int) -> None:
        taken_ns = answer.answered_ns - answer.received_ns
        round_trip_ns = arrived_ns - answer.sent_ns - taken_ns
        if taken_ns < 0 or round_trip_ns < 0:
            return
        offset_ns = (answer.received_ns - answer.sent_ns + answer.answered_ns - arrived_ns) // 2
        self._exchanges.append((round_trip_ns, offset_ns))
        self._round_trips_ns[self._answered % KEPT_ROUND_TRIPS] = round_trip_ns
        self._answered += 1

    # -- Messages ----------------------------------------------------------------------------------------------------

    def _receive_newest(self, first: int, until_ns: int) -> Observation | None:
        """The newest answer to the request `first` or a later one, waited for until then."""
        newest = None
        while (answer := self._receive(0 if newest else until_ns)) is not None:
            if (
                not isinstance(answer, wire.Observation)
                or answer.request < first
                or answer.sequence <= self._newest
            ):
                self.outdated += 1
                continue
            newest, arrived_ns, self._newest = answer, self._clock.now_ns(), answer.sequence
            self._measure(answer, arrived_ns)
        return self._convert(newest, arrived_ns) if newest else None

    def _convert(self, answer: wire.Observation, arrived_ns: int) -> Observation | None:
        try:
            values = wire.unpack(self.interface, answer.values)
        except WireError:
            self.malformed += 1
            return None
        if self._successes_before is None:
            self._successes_before = answer.successes
        self.state, self.dropped = answer.state, answer.dropped
        self.successes = answer.successes - self._successes_before
        # The offset is an estimate, and nothing is read after it has arrived.
        stamp_ns = min(answer.stamp_ns - self.clock_offset_ns, arrived_ns)
        return Observation(answer.sequence, stamp_ns, values, np.array(answer.applied))

    def _ask(
        self, request: wire.Request, kind: type[_A], answers: Callable[[_A], bool], within_ns: int
    ) -> _A:
        """Ask, and again every `ASK_AGAIN_NS`, until the answer is there.

        Raises:
            RobotError: the robot refuses, hung up or did not answer in time.
        """
        deadline_ns = self._clock.now_ns() + within_ns
        while (now_ns := self._clock.now_ns()) < deadline_ns:
            self._send(request)
            while (answer := self._receive(min(now_ns + ASK_AGAIN_NS, deadline_ns))) is not None:
                if isinstance(answer, kind) and answers(answer):
                    return answer
        hint = ": is the address right, does `gatort robot` run there, does a firewall let the port through?"
        raise RobotError(
            f"{self.endpoint}: no answer to {type(request).__name__} within {within_ns * 1e-6:.0f} ms"
            f"{hint if isinstance(request, wire.Hello) else ''}"
        )

    def _send(self, request: wire.Request) -> None:
        with suppress(
            zmq.Again
        ):  # A full queue loses it, as a link may; the robot's watchdog sees what is missing.
            self._socket.send(wire.encode(request), zmq.NOBLOCK)

    def _receive(self, until_ns: int) -> wire.Answer | None:
        """The next answer, waited for until then.

        Raises:
            RobotError: the robot refuses or has hung up.
        """
        while True:
            self._watch_connection()  # First: what came before its end may still be waiting to be read.
            if (frame := self._next_frame()) is not None:
                answer = self._decode(frame)
                if isinstance(answer, wire.Refused):
                    raise RobotError(f"{self.endpoint} refuses: {answer.reason}")
                if answer is not None:
                    return answer
                continue
            if self._broken is not None:
                raise RobotError(f"{self.endpoint}: {self._broken}")
            left_ns = until_ns - self._clock.now_ns()
            if left_ns <= 0:
                return None
            self._poller.poll(ceil(left_ns * 1e-6))

    def _next_frame(self) -> bytes | None:
        try:
            frames = self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        return frames[0] if len(frames) == 1 else b""

    def _decode(self, frame: bytes) -> wire.Answer | None:
        try:
            answer = wire.decode_answer(frame)
        except WireError:
            self.malformed += 1
            return None
        if not isinstance(answer, wire.Welcome | wire.Refused) and answer.session != self._session:
            self.outdated += 1
            return None
        return answer

    def _watch_connection(self) -> None:
        with suppress(zmq.Again):
            while self._broken is None:
                event = recv_monitor_message(self._monitor, zmq.NOBLOCK)["event"]
                self._broken = self._endings[zmq.Event(event)]


def _read_interface(welcome: wire.Welcome) -> Interface:
    try:
        return Interface.model_validate_json(welcome.interface)
    except ValidationError as error:
        raise RobotError(
            f"{welcome.name}: expected the interface of a robot, found {error}"
        ) from error


def _endings(keys: ControllerKeys | None) -> dict[zmq.Event, str]:
    """What to say of each way in which a connection ends."""
    if keys is None:
        wrong_key = unknown_key = mismatch = (
            "the robot there speaks only with keys (--keys DIR), or is none"
        )
    else:
        # A robot without keys may hang up before this side has seen why.
        wrong_key = f"{keys.directory / 'robot.pub'} is not the key of the robot there, or that speaks without keys"
        unknown_key = f"the robot does not let in {keys.directory / 'controller.key'}: it needs its controller.pub"
        mismatch = "the robot speaks without keys: leave out --keys, or start it with --keys DIR"
    return {
        zmq.Event.CLOSED: "no robot listens there; `gatort robot` starts one",
        zmq.Event.HANDSHAKE_FAILED_NO_DETAIL: wrong_key,
        zmq.Event.HANDSHAKE_FAILED_AUTH: unknown_key,
        zmq.Event.HANDSHAKE_FAILED_PROTOCOL: mismatch,
        zmq.Event.DISCONNECTED: "the robot hung up; its process has ended or the network is broken",
    }
