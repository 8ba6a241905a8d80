"""Sessions on the robot's side: who drives the arm, and which of their requests count.

One controller has the session at a time, and only over its own connection. Consent counts once: a
repeated or late copy of an `Arm` never moves an arm that has stopped since. No socket is known
here, and no clock but the injected one.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import numpy as np

from gatort.runtime.clock import Clock
from gatort.runtime.errors import ObservationError, WireError
from gatort.runtime.facts import STATE, Fact, bounded
from gatort.runtime.robots.driver import Driver
from gatort.runtime.safety import STOPPED, Command, State
from gatort.runtime.spec import Interface

from . import wire
from .transport import Arrival, Connection

_InSession = wire.Observe | wire.Arm | wire.WireCommand | wire.Stop

KEPT_NS = 2_000_000_000
"""A session keeps the arm for this long after its controller last asked for anything. Greetings do
not count, so that nobody keeps others away by greeting alone."""
LOCAL_STOP = "stopped on the robot's own side: only its console allows arming again (a, then Enter)"
RECOVERY = "the robot's console recovers it and allows arming again"


@dataclass(slots=True)
class Session:
    """One controller's session."""

    number: int
    """Random number that each message of the session carries."""
    facts: tuple[Fact, ...]
    """Facts about the arm when the session began."""
    connection: Connection
    """Connection over which the session began. Messages over another one are refused."""
    asked_ns: int
    """Instant of the newest request, at first that of the greeting."""
    consent: int = 0
    """Highest sequence of the `Arm` and `Stop` requests answered so far."""
    refused: int = -1
    """Highest sequence seen when `Arm` was last refused. Later copies of older requests never
    arm."""
    command: int = -1
    """Highest sequence of the commands received since the last consent."""


class Sessions:
    """Gives out sessions and answers their requests for one arm."""

    def __init__(self, driver: Driver, clock: Clock, *, name: str, simulated: bool) -> None:
        """Begin without a session.

        Args:
            driver: the arm.
            clock: the arm's clock.
            name: name of the robot, for the controller's messages.
            simulated: true if only a simulation moves.
        """
        self.current: Session | None = None
        """Session of the controller that drives the arm, or `None`."""
        self.blocked = False
        """True after a stop on the robot's own side. `Arm` is then refused."""
        self.ending = False
        """True once the robot's process is to end. `Arm` is then refused."""
        self.malformed = 0
        """Number of frames that hold no request of the protocol."""
        self.foreign = 0
        """Number of requests from outside the session, or over another connection than its own."""
        self._driver = driver
        self._clock = clock
        self._name = name
        self._simulated = simulated
        self._interface = driver.interface.model_dump_json(include=set(Interface.model_fields))
        self._asked: tuple[wire.Observe, int] | None = None
        """Newest request for an observation, and when it was received, in ns."""

    # -- Requests ------------------------------------------------------------------------------

    def answer(self, arrival: Arrival) -> wire.Answer | None:
        """Carry out a frame's request and return the answer to its sender, or `None` for no answer.

        Observations are answered by `observation`, once a turn.

        Raises:
            RobotError: the arm failed.
        """
        try:
            request = wire.decode_request(arrival.frame)
        except WireError:
            self.malformed += 1
            return None

        if isinstance(request, wire.Hello):
            return self._greet(request, arrival.connection)
        session = self._session_of(request, arrival.connection)
        if session is None:
            self.foreign += 1
            return None
        return self._follow(session, request)

    def observation(self, successes: int) -> wire.WireObservation | None:
        """Read the sensors for the newest request that waits. Return `None` without one, or when a
        sensor fails.

        The controller asks again, and gives up the tick when no answer comes in time.

        Args:
            successes: number of times that the task has succeeded.

        Raises:
            RobotError: the arm failed.
        """
        if self._asked is None or self.current is None:
            return None
        request, received_ns = self._asked
        self._asked = None

        try:
            observation = self._driver.observe()
        except ObservationError:
            return None
        return wire.WireObservation(
            session=self.current.number,
            request=request.sequence,
            sent_ns=request.sent_ns,
            received_ns=received_ns,
            sequence=observation.sequence,
            stamp_ns=observation.stamp_ns,
            answered_ns=self._clock.now_ns(),
            state=self._driver.state,
            reason=(self._driver.stop_reason or "")[: wire.LONGEST_SENTENCE],
            successes=successes,
            dropped=self._driver.inner_loop.dropped.total(),
            applied=observation.applied.tolist(),
            values=wire.pack(observation.values),
        )

    # -- Begin and end -------------------------------------------------------------------------

    def connection_ended(self, descriptor: int) -> None:
        """Stop the arm if the connection that ended was the session's."""
        if self.current is not None and self.current.connection.descriptor == descriptor:
            self._end("its controller hung up")

    def _end(self, reason: str) -> None:
        self._driver.stop(reason)
        self.current = None
        self._asked = None

    def _session_of(self, request: _InSession, connection: Connection) -> Session | None:
        """Return the session if the request belongs to it and came over its connection."""
        session = self.current
        if session is None or request.session != session.number:
            return None
        return session if connection == session.connection else None

    def _greet(self, hello: wire.Hello, connection: Connection) -> wire.Welcome | wire.Refused:
        """Return the connection's session, or a new one unless another controller has armed."""
        if hello.version != wire.VERSION:
            return wire.Refused(
                f"protocol version: the robot speaks {wire.VERSION}, the controller {hello.version}"
            )

        session = self.current
        now_ns = self._clock.now_ns()
        if session is None or session.connection != connection:
            if session is not None and self._driver.state not in STOPPED:
                return wire.Refused(
                    f"{self._name} is taken: another controller has armed it; "
                    "end that run, or stop the arm at its console, and start again"
                )
            if session is not None and now_ns - session.asked_ns < KEPT_NS:
                return wire.Refused(
                    f"{self._name} is taken: another controller is connected; end that one, or "
                    f"start again {KEPT_NS * 1e-9:g} s after its last request"
                )
            self._end("another controller took over")
            session = Session(secrets.randbits(63), self._facts(), connection, now_ns)
            self.current = session

        return wire.Welcome(
            wire.VERSION,
            session.number,
            self._name,
            self._simulated,
            self._interface,
            bounded(session.facts),
        )

    def _facts(self) -> tuple[Fact, ...]:
        """Return the state of the arm and the driver's own facts."""
        driver = self._driver
        obstacle = self._refusal().reason if self.blocked or driver.fault is not None else ""
        reason = f" ({driver.stop_reason})" if driver.stop_reason is not None else ""
        may_arm = driver.state is State.LATCHED and not obstacle
        note = "; it may be armed again" if may_arm else ""
        return (Fact(STATE, f"{driver.state}{reason}{note}", obstacle), *driver.facts)

    # -- Requests of the session ---------------------------------------------------------------

    def _follow(self, session: Session, request: _InSession) -> wire.Answer | None:
        session.asked_ns = self._clock.now_ns()
        match request:
            case wire.Observe():
                self._asked = (request, self._clock.now_ns())
                return None
            case wire.WireCommand():
                self._command(session, request)
                return None
            case wire.Arm():
                return self._arm(session, request)
            case wire.Stop():
                session.consent = max(session.consent, request.sequence)
                self._driver.stop()
                return wire.Stopped(session.number, request.sequence)

    def _command(self, session: Session, command: wire.WireCommand) -> None:
        if command.sequence == session.command:
            return  # The second copy of a command is no fault, so it is not counted.
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

    def _arm(self, session: Session, request: wire.Arm) -> wire.Armed | wire.Refused | None:
        if self.blocked or self.ending or self._driver.fault is not None:
            self._refuse_consent(session, request)
        if request.sequence <= session.refused:
            return self._refusal()

        # Repeated consent must not re-arm an arm that has stopped since.
        if request.sequence > session.consent:
            self._driver.arm()
            if self._driver.fault is not None:  # The arm itself refused.
                self._refuse_consent(session, request)
                return self._refusal()
            if self._driver.state is State.SAFE:
                return None  # The controller asks again, and by then the arm has faded.
            session.consent = request.sequence
            session.command = -1
        return wire.Armed(session.number, request.sequence)

    def _refuse_consent(self, session: Session, request: wire.Arm) -> None:
        """Take note that no copy of this consent may arm the arm, however late it comes."""
        session.consent = max(session.consent, request.sequence)
        session.refused = session.consent

    def _refusal(self) -> wire.Refused:
        fault = self._driver.fault
        sentence = LOCAL_STOP if fault is None else f"{fault}: {RECOVERY}"
        return wire.Refused(sentence[: wire.LONGEST_SENTENCE])
