"""A robot at the other end of a wire, as the loop sees it: it is asked, and only its newest answer
counts.

No message queues up behind a controller that stalls. Every observation is as fresh as the link
allows. Each exchange measures the round trip and how far the two clocks are apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeGuard, TypeVar

import numpy as np
from pydantic import ValidationError

from gatort.runtime.clock import Clock
from gatort.runtime.durations import Percentiles
from gatort.runtime.errors import ObservationError, RobotError, RobotRefusal, WireError
from gatort.runtime.facts import STATE
from gatort.runtime.invalid_values import first_error
from gatort.runtime.robot import Observation, Robot
from gatort.runtime.robots.wrapped import layers
from gatort.runtime.safety import STOPPED, Command, State
from gatort.runtime.spec import Interface
from gatort.runtime.wording import counted

from . import wire
from .clock_offset import ClockOffset
from .controller_socket import ControllerSocket
from .keys import ControllerKeys
from .link import COPIES, RETRY_NS
from .transport import ControllerTransport

CONNECT_NS = 2_000_000_000
"""Longest time that a robot may take to answer `Hello`."""
CONSENT_NS = 500_000_000
"""Longest time that a robot may take to answer `Arm`."""
STOP_NS = 100_000_000
"""Longest wait for the answer to `Stop`. Without an answer the robot's watchdog stops the arm."""
ASK_AGAIN_NS = 20_000_000
"""Time after which `Hello`, `Arm` and `Stop` are sent again."""
MOST_ANSWERS = 256
"""Most messages that a robot may send to one request.

A flood of them would take the processor from everything beside the controller."""
_A = TypeVar("_A", bound=wire.Answer)


class RemoteRobot:
    """Implements `Robot` over a wire."""

    def __init__(
        self,
        endpoint: str,
        clock: Clock,
        keys: ControllerKeys | None = None,
        transport: ControllerTransport | None = None,
    ) -> None:
        """Connect and get a session. The robot is disarmed.

        Args:
            endpoint: the robot's address, such as `tcp://127.0.0.1:5555`.
            clock: the controller's clock.
            keys: the controller's secret key and the robot's public key. Without keys the robot
                must be on this machine.
            transport: carries the frames. A socket that connects to `endpoint` when absent.

        Raises:
            ConfigError: the address is not valid, or it is beyond this machine and keys are
                missing.
            RobotRefusal: the robot does not accept this controller, or it speaks another version.
            RobotError: no robot answers.
        """
        self.endpoint = endpoint
        self.state = State.DISARMED
        """See `Robot.state`; as of the last answer."""
        self.stop_reason: str | None = None
        """See `Robot.stop_reason`."""
        self.successes = 0
        """Number of times that the task succeeded since the arm was last armed."""
        self.dropped = 0
        """Number of commands that the robot did not apply since its process began."""
        self.retries = 0
        """Number of requests for an observation that were sent again."""
        self.outdated = 0
        """Number of answers dropped because they came too late or after a newer one."""
        self.malformed = 0
        """Number of frames that hold no answer of the protocol."""
        self._clock = clock
        self._offset = ClockOffset()
        self._requests = 0
        self._answers = 0
        self._consents = 0
        self._newest = -1
        self._successes_seen: int | None = None
        self._successes_before = 0
        self._session = 0
        self._transport = transport if transport is not None else ControllerSocket(endpoint, keys)
        try:
            welcome = self._ask(wire.Hello(wire.VERSION), wire.Welcome, lambda _: True, CONNECT_NS)
            self.interface = _read_interface(welcome)
        except BaseException:
            self.close()
            raise
        self.name = welcome.name
        self.simulated = welcome.simulated
        self.facts = tuple(welcome.facts)
        """Facts about the arm for its operator, as of the session's beginning."""
        self._session = welcome.session

    # -- Robot ---------------------------------------------------------------------------------

    @property
    def succeeded(self) -> bool:
        """See `Robot.succeeded`."""
        return self.successes > 0

    def require_armable(self) -> None:
        """Check that the arm would take consent, as of the session's beginning.

        Raises:
            RobotError: it refuses. The sentence says why.
        """
        for fact in self.facts:
            if fact.name == STATE and fact.attention:
                raise RobotError(f"{self.endpoint} refuses: {fact.attention}")

    def arm(self) -> None:
        """See `Robot.arm`."""
        self._consents += 1
        request = wire.Arm(self._session, self._consents)
        self._ask(request, wire.Armed, lambda armed: armed.sequence == request.sequence, CONSENT_NS)
        if self.state in STOPPED:  # Consent that is repeated begins no new trial.
            self._successes_before = self._successes_seen or 0
            self.successes = 0
        self.state = State.RUN
        self.stop_reason = None

    def look(self) -> None:
        """See `Robot.look`. Pictures come over the wire with the joints."""

    def observe(self) -> Observation:
        """See `Robot.observe`.

        Ask again every `RETRY_NS` until an answer is there or the action delay is over.
        """
        deadline_ns = self._clock.now_ns() + self.interface.action_delay_ns
        first = self._requests + 1
        observation = None
        while observation is None and (now_ns := self._clock.now_ns()) < deadline_ns:
            self._requests += 1
            self._send(wire.Observe(self._session, self._requests, now_ns))
            retry_ns = min(now_ns + RETRY_NS, deadline_ns)
            observation = self._receive_newest(first, retry_ns)
            if observation is None:  # A malformed answer must not hasten the next request.
                self._clock.sleep_until_ns(retry_ns)

        self.retries += self._requests - first
        if observation is None:
            raise ObservationError(
                f"expected an answer from {self.endpoint} within "
                f"{self.interface.action_delay_ms} ms, "
                f"found none to {counted(self._requests - first + 1, 'request')}"
            )
        return observation

    def command(self, command: Command) -> None:
        """See `Robot.command`. The command is sent `COPIES` times."""
        # The same offset converted the observation's stamp, so the delay stays exactly constant.
        message = wire.WireCommand(
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
        """See `Robot.stop`. When the robot does not answer, its watchdog stops the arm."""
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
        self._transport.close()

    # -- Clocks --------------------------------------------------------------------------------

    @property
    def clock_offset_ns(self) -> int:
        """Time on the robot's clock minus time on the controller's. See `ClockOffset`."""
        return self._offset.ns

    @property
    def round_trips(self) -> Percentiles:
        """Round trips of the last hour, without the time that the robot took to answer."""
        return self._offset.round_trips

    # -- Messages ------------------------------------------------------------------------------

    def _receive_newest(self, first: int, until_ns: int) -> Observation | None:
        """Return the newest answer to request `first` or a later one.

        Return `None` if none comes until then.

        Raises:
            RobotError: the robot has failed or hung up.
        """
        newest: wire.WireObservation | None = None
        arrived_ns = 0
        while (answer := self._receive(0 if newest else until_ns)) is not None:
            if isinstance(answer, wire.Refused):
                raise RobotError(f"{self.endpoint}: {answer.reason}")
            if not self._is_new(answer, first):
                self.outdated += 1
                continue
            newest = answer
            arrived_ns = self._clock.now_ns()
            self._newest = answer.sequence
            self._offset.measure(answer.sent_ns, answer.received_ns, answer.answered_ns, arrived_ns)
        return self._convert(newest, arrived_ns) if newest else None

    def _is_new(self, answer: wire.Answer, first: int) -> TypeGuard[wire.WireObservation]:
        if not isinstance(answer, wire.WireObservation):
            return False
        return answer.request >= first and answer.sequence > self._newest

    def _convert(self, answer: wire.WireObservation, arrived_ns: int) -> Observation | None:
        if answer.successes < (self._successes_seen or 0):  # A count never falls.
            self.malformed += 1
            return None
        try:
            values = wire.unpack(self.interface, answer.values)
        except WireError:
            self.malformed += 1
            return None

        if self._successes_seen is None:
            self._successes_before = answer.successes
        self._successes_seen = answer.successes
        self.successes = answer.successes - self._successes_before
        self.state = answer.state
        self.stop_reason = answer.reason or None
        self.dropped = answer.dropped

        # The offset is an estimate, but nothing is read after its answer has arrived.
        stamp_ns = min(answer.stamp_ns - self.clock_offset_ns, arrived_ns)
        return Observation(answer.sequence, stamp_ns, values, np.array(answer.applied))

    def _ask(
        self, request: wire.Request, kind: type[_A], answers: Callable[[_A], bool], within_ns: int
    ) -> _A:
        """Send a request, and again every `ASK_AGAIN_NS`, until its answer is there.

        Raises:
            RobotRefusal: the robot refuses.
            RobotError: the robot hung up or did not answer in time.
        """
        deadline_ns = self._clock.now_ns() + within_ns
        while (now_ns := self._clock.now_ns()) < deadline_ns:
            self._send(request)
            while (answer := self._receive(min(now_ns + ASK_AGAIN_NS, deadline_ns))) is not None:
                if isinstance(answer, wire.Refused):
                    raise RobotRefusal(f"{self.endpoint} refuses: {answer.reason}")
                if isinstance(answer, kind) and answers(answer):
                    return answer

        hint = (
            ": check the address, whether `gatort robot` runs there, and the firewall"
            if isinstance(request, wire.Hello)
            else ""
        )
        raise RobotError(
            f"{self.endpoint}: no answer to {type(request).__name__} "
            f"within {within_ns * 1e-6:.0f} ms{hint}"
        )

    def _send(self, request: wire.Request) -> None:
        self._answers = 0
        self._transport.send(wire.encode(request))

    def _receive(self, until_ns: int) -> wire.Answer | None:
        """Return the next answer, or `None` if none comes by then.

        Raises:
            RobotError: the robot has hung up, or floods this controller.
        """
        while True:
            # Asked before the frame: one that came before the end may still wait to be read.
            broken = self._transport.broken()
            frame = self._transport.receive()
            if frame is not None:
                self._answers += 1
                if self._answers > MOST_ANSWERS:
                    raise RobotError(
                        f"{self.endpoint}: expected an answer to each request, found more than "
                        f"{MOST_ANSWERS} messages; something else than `gatort robot` runs there"
                    )
                answer = self._decode(frame)
                if answer is not None:
                    return answer
                continue

            if broken is not None:
                raise RobotError(f"{self.endpoint}: {broken}")
            left_ns = until_ns - self._clock.now_ns()
            if left_ns <= 0:
                return None
            self._transport.wait(left_ns)

    def _decode(self, frame: bytes) -> wire.Answer | None:
        """Return an answer of this session, or `None` and count the frame."""
        try:
            answer = wire.decode_answer(frame)
        except WireError:
            self.malformed += 1
            return None
        if not isinstance(answer, wire.Welcome | wire.Refused) and answer.session != self._session:
            self.outdated += 1
            return None
        return answer


def remote_of(robot: Robot) -> RemoteRobot | None:
    """Return the robot behind the wire, or `None` for an arm in this process."""
    return next((layer for layer in layers(robot) if isinstance(layer, RemoteRobot)), None)


def _read_interface(welcome: wire.Welcome) -> Interface:
    try:
        return Interface.model_validate_json(welcome.interface)
    except ValidationError as error:
        raise RobotError(
            f"{welcome.name}: the robot's interface is not valid: "
            f"{first_error(error, 'the interface')}"
        ) from error
