"""The robot's side of the wire: one thread that serves one controller at a time and never waits for it.

Each turn brings the arm to the present, once a millisecond, and then takes what has arrived, at most
`REQUESTS_PER_TURN` messages and `PARTS_PER_TURN` parts of them. The watchdog is the driver's own, and stops an arm
whose controller falls silent; here the end of the session's connection stops it as well.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import zmq
from zmq.utils.monitor import recv_monitor_message

from gatort.runtime.clock import Clock
from gatort.runtime.errors import (
    ConfigError,
    ObservationError,
    WireError,
)
from gatort.runtime.inner_loop import FADE_NS
from gatort.runtime.robots.driver import (
    INNER_PERIOD_NS,
    Driver,
)
from gatort.runtime.safety import (
    STOPPED,
    Command,
    State,
)
from gatort.runtime.spec import Interface

from . import wire
from .keys import (
    Gatekeeper,
    RobotKeys,
    require_keys_beyond_loopback,
)
from .link import (
    DelayLine,
    LinkConditions,
)

_InSession = wire.Observe | wire.Arm | wire.Command | wire.Stop

TURN_MS = 1
REQUESTS_PER_TURN = 32
"""A flood takes no more of a turn than this many decodings."""
PARTS_PER_TURN = 128
"""A message may have millions of parts, at 2 to 4 µs each; those that are left wait for the next turn."""
_PARTS = 2
"""Of a message: who sent it, which the socket adds, and its one frame."""
_BROKEN_HANDSHAKE = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
FAREWELL_NS = 200_000_000
"""How long a robot that failed waits for its controller to hang up."""
_LOCAL_STOP = "stopped on the robot's own side: only its console allows arming again"


@dataclass(frozen=True, slots=True)
class Status:
    """The robot's side at one instant, and what it has counted since it began."""

    state: State
    controlled: bool = False
    """Whether a controller has a session."""
    blocked: bool = False
    """Stopped on its own side: no controller may arm it."""
    successes: int = 0
    given_up: int = 0
    """Layouts that were laid out anew without success."""
    dropped: int = 0
    """Commands that the watchdog's rules kept from the arm."""
    malformed: int = 0
    """Messages that are none of the protocol."""
    foreign: int = 0
    """Messages that are not of the session, or not from its connection."""
    unknown_keys: int = 0
    """Handshakes with a key that is not let in."""
    handshakes: int = 0
    """Handshakes that broke off for another reason: no key, the wrong key of the robot, another protocol."""


@dataclass(slots=True)
class _Session:
    number: int
    connection: bytes
    """What the socket calls its connection."""
    descriptor: int
    """Of its connection, by which the end of the connection is known."""
    consent: int = 0
    """Highest sequence of the `Arm` and `Stop` that were answered."""
    refused: int = -1
    """The same of when an `Arm` was last refused: what came up to then never arms, however late a copy comes."""
    command: int = -1
    """Highest sequence of the commands that came."""


@dataclass(frozen=True, slots=True)
class _Arrival:
    connection: bytes
    descriptor: int
    frame: bytes


class RobotServer:
    """Serves a driver until it is told to end."""

    def __init__(
        self,
        driver: Driver,
        clock: Clock,
        endpoint: str,
        *,
        name: str,
        simulated: bool,
        keys: RobotKeys | None = None,
        conditions: LinkConditions | None = None,
        next_trial: Callable[[], None] | None = None,
        trial_ns: int | None = None,
        on_change: Callable[[Status], None] | None = None,
    ) -> None:
        """Bind; nothing moves.

        Args:
            driver: the arm; the caller closes it.
            clock: the driver's.
            endpoint: such as `tcp://127.0.0.1:5555`; port 0 takes a free one.
            name: of the robot, for the controller's messages.
            simulated: whether nothing but a simulation moves.
            keys: whom to let in; without them only this machine is listened to, and anyone on it.
            conditions: how each direction treats messages, for tests and trials of a bad link.
            next_trial: lays the task out anew when it is done.
            trial_ns: how long the arm may try, armed, until it is laid out anew without success; for ever when absent.
            on_change: sees each change of state and each handshake that failed; must return at once.

        Raises:
            ConfigError: the address cannot be bound, or is open to other machines without keys.
        """
        require_keys_beyond_loopback(endpoint, keyed=keys is not None)
        self._driver, self._clock = driver, clock
        self._context = wire.context()
        self._socket = wire.bounded_socket(self._context, zmq.ROUTER, wire.LARGEST_REQUEST_BYTES)
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED | _BROKEN_HANDSHAKE)
        self._gatekeeper = Gatekeeper(self._context, keys) if keys is not None else None
        if self._gatekeeper is not None:
            self._gatekeeper.guard(self._socket)
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(
                f"cannot listen on {endpoint}: {zmq.strerror(error.errno or 0)}"
            ) from error
        self.endpoint: str = self._socket.get_string(zmq.LAST_ENDPOINT).rstrip("\0")
        """Where it listens."""
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        if self._gatekeeper is not None:
            self._poller.register(self._gatekeeper.socket, zmq.POLLIN)
        self._name, self._simulated = name, simulated
        self._interface = driver.interface.model_dump_json(include=set(Interface.model_fields))
        self._arriving: DelayLine[_Arrival] = DelayLine(conditions or LinkConditions(), "to_robot")
        self._leaving: DelayLine[tuple[bytes, bytes]] = DelayLine(
            conditions or LinkConditions(), "to_controller"
        )
        self._next_trial, self._trial_ns, self._on_change = next_trial, trial_ns, on_change
        self._trial_began_ns = clock.now_ns()
        self._parts: list[zmq.Frame] = []
        """Of the message that is being read, no more than it takes to tell that there are too many."""
        self._session: _Session | None = None
        self._asked: tuple[wire.Observe, int] | None = None
        """The newest request for an observation, and when it was received."""
        self._succeeded = self._blocked = False
        self._stop_asked = self._allow_asked = self._end_asked = False
        self._successes = self._given_up = self._malformed = self._foreign = self._handshakes = 0
        self._shown = self._news

    @property
    def status(self) -> Status:
        """How it stands now."""
        return Status(
            state=self._driver.state,
            controlled=self._controlled,
            blocked=self._blocked,
            successes=self._successes,
            given_up=self._given_up,
            dropped=self._dropped,
            malformed=self._malformed,
            foreign=self._foreign,
            unknown_keys=self._unknown_keys,
            handshakes=self._handshakes,
        )

    @property
    def _news(self) -> tuple[object, ...]:
        """What is worth a line when it changes; the other counters may change every millisecond."""
        trials, refused = (self._successes, self._given_up), (self._unknown_keys, self._handshakes)
        return self._driver.state, self._controlled, self._blocked, *trials, *refused

    @property
    def _unknown_keys(self) -> int:
        return self._gatekeeper.unknown if self._gatekeeper is not None else 0

    @property
    def _controlled(self) -> bool:
        return self._session is not None

    @property
    def _dropped(self) -> int:
        return self._driver.inner_loop.dropped.total()

    # -- What the robot's own side asks for; safe inside a signal handler --------------------------------------------

    def stop(self) -> None:
        """Stop on the robot's own side: only `allow_arming` lets a controller arm again."""
        self._allow_asked = False  # Whatever was allowed before.
        self._stop_asked = True

    def allow_arming(self) -> None:
        """Take a local stop back; nothing moves before a controller arms."""
        self._allow_asked = True

    def end(self) -> None:
        """Stop, and leave `serve` when the arm has come to rest."""
        self._end_asked = True

    # -- Turns -------------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Take turns until `end`.

        Raises:
            RobotError: the arm failed; it was stopped and the controller told, as upon any other error.
        """
        while not (self._end_asked and self._driver.state in (State.DISARMED, State.LATCHED)):
            self.turn()

    def turn(self) -> None:
        """Wait a millisecond for messages, bring the arm to the present, and answer them.

        Raises:
            RobotError: the arm failed; it was stopped and the controller told, as upon any other error.
        """
        self._poller.poll(0 if self._driver.own_pace else TURN_MS)
        try:
            # First, so that a stop or a command acts from now on and not on steps that are still due.
            self._driver.advance()
            self._obey_own_side()
            arrived = self._receive()
            # After the messages: a connection that has ended cannot pass its number on to a later one unseen.
            self._watch_connections()
            for arrival in arrived:
                self._handle(arrival)
            self._watch_trial()
            self._answer_newest()
            self._flush()
            self._tell_change()
        except Exception as error:  # Whatever it is, an arm must not be left as it was driven last.
            self._fail(str(error) or type(error).__name__)
            raise

    def close(self) -> None:
        """Stop listening; the arm is left as it is. A second call does nothing."""
        if self._socket.closed:
            return
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close()
        if self._gatekeeper is not None:
            self._gatekeeper.socket.close()
        self._context.term()

    def _obey_own_side(self) -> None:
        if self._stop_asked:
            self._stop_asked, self._blocked = False, True
            self._driver.stop()
        if self._allow_asked:
            self._allow_asked = self._blocked = False
        if self._end_asked:
            self._driver.stop()

    def _watch_connections(self) -> None:
        if self._gatekeeper is not None:
            self._gatekeeper.answer()
        with suppress(zmq.Again):
            while True:
                seen = recv_monitor_message(self._monitor, zmq.NOBLOCK)
                if seen["event"] & _BROKEN_HANDSHAKE:
                    self._handshakes += 1
                elif self._session is not None and seen["value"] == self._session.descriptor:
                    self._end_session()

    def _tell_change(self) -> None:
        if self._on_change is not None and self._shown != self._news:
            self._shown = self._news
            self._on_change(self.status)

    def _watch_trial(self) -> None:
        now_ns = self._clock.now_ns()
        if self._driver.state in STOPPED:
            self._trial_began_ns = now_ns
        succeeded = self._driver.succeeded
        done = succeeded and not self._succeeded
        self._succeeded = succeeded
        self._successes += done
        given_up = self._trial_ns is not None and now_ns - self._trial_began_ns > self._trial_ns
        if self._next_trial is not None and (done or given_up):
            self._next_trial()
            self._given_up += given_up
            self._trial_began_ns = now_ns

    def _fail(self, reason: str) -> None:
        """Tell the controller why, fade the arm, and wait for the controller to hang up."""
        self._driver.stop()
        try:
            if self._session is not None:
                self._send(self._session.connection, wire.Refused(reason[: wire.LONGEST_SENTENCE]))
            self._flush()
        finally:
            self._fade()
        # To hang up with messages unread would reset the connection, and the reason with it.
        until_ns = self._clock.now_ns() + FAREWELL_NS
        while self._controlled and self._clock.now_ns() < until_ns:
            self._poller.poll(TURN_MS)
            self._flush()
            self._receive()
            self._watch_connections()

    def _fade(self) -> None:
        """Advance the arm until it is latched, or fails at that as well."""
        until_ns = self._clock.now_ns() + 2 * FADE_NS
        with suppress(Exception):  # The first error is the one to tell of.
            while self._driver.state is State.SAFE and (now_ns := self._clock.now_ns()) < until_ns:
                if not self._driver.own_pace:
                    self._clock.sleep_until_ns(now_ns + INNER_PERIOD_NS)
                self._driver.advance()

    # -- Messages in -------------------------------------------------------------------------------------------------

    def _receive(self) -> list[_Arrival]:
        """What has arrived; a message that is not whole yet is read on in the next turn."""
        messages = 0
        with suppress(zmq.Again):
            for _ in range(PARTS_PER_TURN):
                messages += self._take_part(self._socket.recv(zmq.NOBLOCK, copy=False))
                if messages == REQUESTS_PER_TURN:
                    break
        return self._arriving.pop_due(self._clock.now_ns())

    def _take_part(self, part: zmq.Frame) -> bool:
        """Whether it was the last of its message."""
        if len(self._parts) <= _PARTS:
            self._parts.append(part)
        if part.more:
            return False
        parts, self._parts = self._parts, []
        if len(parts) == _PARTS:
            connection, frame = parts
            arrival = _Arrival(connection.bytes, int(frame.get(zmq.SRCFD)), frame.bytes)
            self._arriving.push(self._clock.now_ns(), arrival)
        else:
            self._malformed += 1
        return True

    def _handle(self, arrival: _Arrival) -> None:
        try:
            request = wire.decode_request(arrival.frame)
        except WireError:
            self._malformed += 1
            return
        if isinstance(request, wire.Hello):
            self._greet(request, arrival)
        elif (session := self._session_of(request, arrival)) is None:
            self._foreign += 1
        else:
            self._follow(session, request)

    def _session_of(self, request: _InSession, arrival: _Arrival) -> _Session | None:
        """The session, when this message is of it and came over its connection."""
        session = self._session
        if session is None or (request.session, arrival.connection) != (
            session.number,
            session.connection,
        ):
            return None
        return session

    def _greet(self, hello: wire.Hello, arrival: _Arrival) -> None:
        session = self._session
        if hello.version != wire.VERSION:
            reason = (
                f"protocol version: the robot speaks {wire.VERSION}, the controller {hello.version}"
            )
            self._send(arrival.connection, wire.Refused(reason))
            return
        if session is None or session.connection != arrival.connection:
            if session is not None and self._driver.state not in STOPPED:
                self._send(
                    arrival.connection,
                    wire.Refused(f"{self._name} is taken: another controller has armed it"),
                )
                return
            self._end_session()
            session = self._session = _Session(
                secrets.randbits(63), arrival.connection, arrival.descriptor
            )
        self._send(
            arrival.connection,
            wire.Welcome(
                wire.VERSION, session.number, self._name, self._simulated, self._interface
            ),
        )

    def _end_session(self) -> None:
        self._driver.stop()
        self._session = self._asked = None

    def _follow(self, session: _Session, request: _InSession) -> None:
        match request:
            case wire.Observe():
                self._asked = request, self._clock.now_ns()
            case wire.Command():
                self._command(session, request)
            case wire.Arm():
                self._arm(session, request)
            case wire.Stop():
                session.consent = max(session.consent, request.sequence)
                self._driver.stop()
                self._send(session.connection, wire.Stopped(session.number, request.sequence))

    def _command(self, session: _Session, command: wire.Command) -> None:
        if command.sequence == session.command:  # The second copy, which is no fault.
            return
        session.command = max(session.command, command.sequence)
        self._driver.command(
            Command(
                command.sequence,
                command.observation_sequence,
                command.apply_at_ns,
                command.valid_for_ns,
                np.array(command.values),
            )
        )

    def _arm(self, session: _Session, request: wire.Arm) -> None:
        if self._blocked or self._end_asked:
            session.consent = session.refused = max(session.consent, request.sequence)
        if request.sequence <= session.refused:
            self._send(session.connection, wire.Refused(_LOCAL_STOP))
            return
        if (
            request.sequence > session.consent
        ):  # Consent that is repeated must not re-arm what has stopped since.
            self._driver.arm()
            if (
                self._driver.state is State.SAFE
            ):  # Without an answer: it is asked again, and by then the arm has faded.
                return
            session.consent, session.command = request.sequence, -1
        self._send(session.connection, wire.Armed(session.number, request.sequence))

    # -- Messages out ------------------------------------------------------------------------------------------------

    def _answer_newest(self) -> None:
        if self._asked is None or self._session is None:
            return
        (request, received_ns), self._asked = self._asked, None
        try:
            observation = self._driver.observe()
        except (
            ObservationError
        ):  # The controller asks again, and refuses the tick when nothing comes.
            return
        answer = wire.Observation(
            session=self._session.number,
            request=request.sequence,
            sent_ns=request.sent_ns,
            received_ns=received_ns,
            sequence=observation.sequence,
            stamp_ns=observation.stamp_ns,
            answered_ns=self._clock.now_ns(),
            state=self._driver.state,
            successes=self._successes,
            dropped=self._dropped,
            applied=observation.applied.tolist(),
            values=wire.pack(observation.values),
        )
        self._send(self._session.connection, answer)

    def _send(self, connection: bytes, answer: wire.Answer) -> None:
        self._leaving.push(self._clock.now_ns(), (connection, wire.encode(answer)))

    def _flush(self) -> None:
        for message in self._leaving.pop_due(self._clock.now_ns()):
            self._socket.send_multipart(
                message, zmq.NOBLOCK
            )  # A connection that is gone or full loses it.
