"""The robot's side of the wire: one thread that serves one controller at a time and never waits for
it.

Each turn brings the arm to the present, once a millisecond, and then takes a bounded number of
requests. The watchdog is the driver's own and stops an arm whose controller falls silent. Here the
end of the session's connection stops it as well.

    transport ──frames──▶ Sessions ──arm, command, stop──▶ driver ──success──▶ TrialKeeper
                                                          console ──success──▶ OperatorTrials
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from gatort.runtime.clock import Clock
from gatort.runtime.inner_loop import FADE_NS
from gatort.runtime.robots.driver import INNER_PERIOD_NS, Driver
from gatort.runtime.safety import AT_ROBOT, State

from . import wire
from .session import Sessions
from .transport import Connection, RobotTransport
from .trial_keeper import OperatorTrials, TrialKeeper

TURN_MS = 1
"""Longest time that a turn waits for messages."""
COUNTS_NS = 1_000_000_000
"""Shortest time between two reports of which only the counts of refused strangers are new."""
FAREWELL_NS = 200_000_000
"""Longest time that a failed robot waits for its controller to hang up."""


@dataclass(frozen=True, slots=True)
class RobotStatus:
    """The robot's side at one instant, with counters since its process began."""

    state: State
    """State of the watchdog."""
    reason: str | None = None
    """Clause that says why the arm was stopped since it was last armed."""
    controlled: bool = False
    """True if a controller has a session."""
    blocked: bool = False
    """True after a stop on the robot's own side. No controller may arm it then."""
    fault: str | None = None
    """Clause that says why the arm must be recovered before a controller may arm it."""
    successes: int = 0
    """Number of times that the task succeeded."""
    given_up: int = 0
    """Number of layouts that were replaced without success."""
    dropped: int = 0
    """Number of commands that the watchdog's rules kept from the arm."""
    drop_reasons: tuple[str, ...] = ()
    """Reasons for that, the commonest first."""
    malformed: int = 0
    """Number of messages that are not part of the protocol."""
    foreign: int = 0
    """Number of messages from outside the session, or over another connection than its own."""
    unknown_keys: int = 0
    """Number of handshakes with a key that the robot does not accept."""
    handshakes: int = 0
    """Number of handshakes that failed otherwise: no key, the robot's key wrong, another
    protocol."""
    flooded: int = 0
    """Number of messages that came faster than a connection may send."""

    @property
    def refusals(self) -> dict[str, str]:
        """Counts of refused commands, messages and handshakes by name, those at zero left out."""
        reasons = ", ".join(self.drop_reasons)
        counted: dict[str, int | str] = {
            "commands dropped": self.dropped and f"{self.dropped} ({reasons})",
            "malformed": self.malformed,
            "foreign": self.foreign,
            "too fast": self.flooded,
            "unknown keys": self.unknown_keys,
            "broken handshakes": self.handshakes,
        }
        return {name: str(count) for name, count in counted.items() if count}


class RobotServer:
    """Serves a driver until it is told to end."""

    def __init__(
        self,
        driver: Driver,
        clock: Clock,
        transport: RobotTransport,
        *,
        name: str,
        simulated: bool,
        trials: TrialKeeper | None = None,
        on_change: Callable[[RobotStatus], None] | None = None,
        on_turn: Callable[[RobotStatus], None] | None = None,
    ) -> None:
        """Take over a transport that listens. The arm stays at rest.

        Args:
            driver: the arm. The caller closes it.
            clock: the driver's clock.
            transport: carries the messages. `close` closes it.
            name: name of the robot, for the controller's messages.
            simulated: true if only a simulation moves.
            trials: counts a simulated arm's successes and lays its task out anew. When absent, the
                arm's operator reports successes.
            on_change: receives each change of state, and once a second the counts of failed
                handshakes if they are new. It must return at once.
            on_turn: receives the status of each turn, a thousand a second. It must return at once.
        """
        self._driver = driver
        self._clock = clock
        self._transport = transport
        self._sessions = Sessions(driver, clock, name=name, simulated=simulated)
        self._trials = trials if trials is not None else OperatorTrials(driver)
        self._on_change = on_change
        self._on_turn = on_turn
        self._stop_asked: str | None = None
        self._allow_asked = False
        self._end_asked = False
        self._shown = self._news(self.status)
        self._shown_counts = (0, 0)
        self._told_ns = 0

    @property
    def endpoint(self) -> str:
        """Address at which the robot listens."""
        return self._transport.endpoint

    @property
    def status(self) -> RobotStatus:
        """State and counters now."""
        refused = self._transport.refused
        dropped = self._driver.inner_loop.dropped
        return RobotStatus(
            state=self._driver.state,
            reason=self._driver.stop_reason,
            controlled=self._sessions.current is not None,
            blocked=self._sessions.blocked,
            fault=self._driver.fault,
            successes=self._trials.successes,
            given_up=self._trials.given_up,
            dropped=dropped.total(),
            drop_reasons=tuple(str(reason) for reason, count in dropped.most_common() if count),
            malformed=refused.malformed + self._sessions.malformed,
            foreign=self._sessions.foreign,
            unknown_keys=refused.unknown_keys,
            handshakes=refused.handshakes,
            flooded=refused.flooded,
        )

    # -- Requests of the robot's own side; safe inside a signal handler -------------------------

    def stop(self, by: str) -> None:
        """Stop the arm. Only `allow_arming` lets a controller arm it again.

        Args:
            by: key or signal that asks for it.
        """
        self._allow_asked = False  # An older permission must not undo this stop.
        self._stop_asked = by

    def allow_arming(self) -> None:
        """Take back a stop of the robot's own side, and recover an arm that has a fault.

        The arm stays at rest until a controller arms it.
        """
        self._allow_asked = True

    def report_success(self) -> str:
        """Take the operator's report that the task is done. Return a clause on whether it counts.

        A controller then sees `Robot.succeeded` until the arm is armed again.
        """
        return self._trials.report()

    def end(self) -> None:
        """Stop the arm, and leave `serve` once it has come to rest."""
        self._end_asked = True

    # -- Turns ---------------------------------------------------------------------------------

    def serve(self) -> None:
        """Take turns until `end`.

        Raises:
            RobotError: the arm failed. It was stopped and the controller told, as after any other
                error.
        """
        while not (self._end_asked and self._driver.state in (State.DISARMED, State.LATCHED)):
            self.turn()

    def turn(self) -> None:
        """Wait a millisecond for messages, bring the arm to the present, and answer them.

        Raises:
            RobotError: the arm failed. It was stopped and the controller told, as after any other
                error.
        """
        self._transport.wait(0 if self._driver.own_pace else TURN_MS)
        try:
            self._take_turn()
        except Exception as error:  # Whatever failed, the arm must not keep its last command.
            self._fail(str(error) or type(error).__name__)
            raise

    def close(self) -> None:
        """Stop listening. The arm is left as it is. A second call does nothing."""
        self._transport.close()

    def _take_turn(self) -> None:
        # The arm comes first: a stop or command acts from now on, not on steps that are overdue.
        self._driver.advance()
        self._obey_own_side()

        # Connections that ended come after the messages and before their answers: a descriptor that
        # a new connection has taken over must not be mistaken for the session's.
        arrived = self._transport.receive()
        self._watch_connections()
        for arrival in arrived:
            answer = self._sessions.answer(arrival)
            if answer is not None:
                self._send(arrival.connection, answer)

        self._trials.watch()
        self._answer_observe()
        self._tell_change()

    def _obey_own_side(self) -> None:
        if self._stop_asked is not None:
            self._sessions.blocked = True
            self._driver.stop(f"{AT_ROBOT} {self._stop_asked}")
            self._stop_asked = None
        if self._allow_asked:
            self._allow_asked = False
            self._driver.recover()
            self._sessions.blocked = False
        if self._end_asked:
            self._sessions.ending = True
            self._driver.stop("the robot's process was told to end")

    def _watch_connections(self) -> None:
        for descriptor in self._transport.ended():
            self._sessions.connection_ended(descriptor)

    def _answer_observe(self) -> None:
        answer = self._sessions.observation(self._trials.successes)
        if answer is not None and self._sessions.current is not None:
            self._send(self._sessions.current.connection, answer)

    def _send(self, connection: Connection, answer: wire.Answer) -> None:
        self._transport.send(connection, wire.encode(answer))

    def _tell_change(self) -> None:
        if self._on_change is None and self._on_turn is None:
            return
        status = self.status
        if self._on_turn is not None:
            self._on_turn(status)
        if self._on_change is None:
            return
        news, counts = self._news(status), (status.unknown_keys, status.handshakes)
        # Anybody can raise these counts, a thousand times a second.
        is_due = self._clock.now_ns() - self._told_ns >= COUNTS_NS
        if news != self._shown or (counts != self._shown_counts and is_due):
            self._shown, self._shown_counts = news, counts
            self._told_ns = self._clock.now_ns()
            self._on_change(status)

    @staticmethod
    def _news(status: RobotStatus) -> tuple[object, ...]:
        """Return the part of a status whose change is always worth a line."""
        return (
            status.state,
            status.controlled,
            status.blocked,
            status.fault,
            status.successes,
            status.given_up,
        )

    # -- Failure -------------------------------------------------------------------------------

    def _fail(self, reason: str) -> None:
        """Tell the controller the reason, fade the arm, and wait for the controller to hang up."""
        self._driver.stop(reason)
        try:
            if self._sessions.current is not None:
                refused = wire.Refused(reason[: wire.LONGEST_SENTENCE])
                self._send(self._sessions.current.connection, refused)
        finally:
            self._fade()

        # Closing with messages unread would reset the connection, and the reason would be lost.
        until_ns = self._clock.now_ns() + FAREWELL_NS
        while self._sessions.current is not None and self._clock.now_ns() < until_ns:
            self._transport.wait(TURN_MS)
            self._transport.receive()
            self._watch_connections()

    def _fade(self) -> None:
        """Advance the arm until it is latched, or until it fails at that as well."""
        until_ns = self._clock.now_ns() + 2 * FADE_NS
        with suppress(Exception):  # The first error is the one to report.
            while self._driver.state is State.SAFE and (now_ns := self._clock.now_ns()) < until_ns:
                if not self._driver.own_pace:
                    self._clock.sleep_until_ns(now_ns + INNER_PERIOD_NS)
                self._driver.advance()
