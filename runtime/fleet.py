"""Several robots driven by one process with one set of weights.

    Member: a thread, a context, a guard and a pace ──▶ its robot, over the wire
      └── ticks ──▶ Turns ──▶ engines over the same weights, each with its own cache

A member does for its robot all that `gatort run` does for one. It shares only the turns on the
engine with the others: a robot that joins, leaves, stalls or lies changes nothing else for them.
Members begin their ticks evenly over the period, so that their turns seldom meet.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from threading import Event, Thread

from .clock import Clock, MonotonicClock
from .durations import Percentiles
from .engines.turns import TurnEngine
from .errors import (
    DeviceError,
    GatortError,
    ObservationError,
    RecordingError,
    RobotError,
    RobotRefusal,
)
from .loop import ControlLoop, TickRecord
from .policy import Policy
from .realtime import RealtimeConfig, schedule
from .recording.recorder import Recorder
from .recording.tick_recorder import TickRecorder
from .remote.client import RemoteRobot
from .robot import Observation, Robot
from .robots.wrapped import WrappedRobot
from .safety import State
from .spec import select_keys
from .telemetry import TICK, Telemetry

RETRY_S = 1.0
"""Time between two attempts to connect, and between two looks at a robot that waits for consent."""
LEAVE_NS = 15_000_000_000
"""Longest time that all members may take at the end to stop their robots and close recordings."""
SWITCH_S = 0.0005
"""Longest time for which a thread keeps Python's lock while another one wants it.

Python's own 5 ms would delay a tick by as much."""
MOST_TICKS = sys.maxsize


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """A member at one instant, with counts since the fleet's beginning."""

    endpoint: str
    """Address of the robot."""
    name: str
    """Name that the robot gave; empty before it first answered."""
    state: State | None
    """State of guard or robot, whichever is further from RUN; `None` if the robot is away."""
    consent: bool
    """True if the robot will be armed as soon as it answers."""
    driven: bool
    """True while the robot gets commands."""
    reason: str | None
    """Why the robot was stopped since it was last armed, and why it cannot be reached."""
    ticks: int
    """Number of ticks, refused ones included."""
    refused: int
    """Number of ticks that sent no command."""
    misses: int
    """Number of ticks over the budget and of skipped deadlines."""
    tick: Percentiles
    """Durations of the ticks."""
    successes: int
    """Number of times that the task succeeded since the robot was last armed."""
    recordings: tuple[Recorder, ...]
    """Recordings of the robot's runs, the oldest first. The newest may still be open."""


class DueRobot(WrappedRobot):
    """A robot that tells the engine when the action on its newest observation is due."""

    def __init__(self, robot: Robot, engine: TurnEngine) -> None:
        super().__init__(robot)
        self._engine = engine
        self._delay_ns = robot.interface.action_delay_ns

    def observe(self) -> Observation:
        """See `Robot.observe`."""
        observation = self.robot.observe()
        self._engine.due_ns = observation.stamp_ns + self._delay_ns
        return observation


class Member:
    """One robot of a fleet, and the thread that drives it."""

    def __init__(
        self,
        endpoint: str,
        policy: Policy,
        engine: TurnEngine,
        connect: Callable[[], RemoteRobot],
        clock: Clock,
        *,
        phase_ns: int = 0,
        consent: bool = False,
        record: Callable[[RemoteRobot], Recorder] | None = None,
        on_tick: Callable[[TickRecord], None] | None = None,
    ) -> None:
        """Prepare; `start` begins to connect.

        Args:
            endpoint: address of the robot.
            policy: policy with a context of its own.
            engine: engine of the policy.
            connect: connects to the robot.
            clock: clock of the loop.
            phase_ns: ticks begin about this long after whole periods of the clock.
            consent: arm the robot as soon as it answers.
            record: makes the recording of a run, from the robot being armed to its stop.
            on_tick: called in the slack after each tick with its record.
        """
        self.endpoint = endpoint
        self.policy = policy
        self._engine = engine
        self.telemetry = Telemetry(policy.spec, clock=clock, stepwise=policy.engine.stepwise)
        self.fault: Exception | None = None
        """Error of gatort itself that ended the thread."""
        self._connect = connect
        self._clock = clock
        self._phase_ns = phase_ns
        self._record = record
        self._on_tick = on_tick
        self._ended = Event()
        self._consent = Event()
        if consent:
            self._consent.set()
        self._loop: ControlLoop | None = None
        self._robot: RemoteRobot | None = None
        self._name = ""
        self._recorders: list[Recorder] = []
        self._stopped: str | None = None
        self._absent: str | None = None
        self._thread = Thread(target=self._serve, name=f"robot {endpoint}", daemon=True)

    def start(self) -> None:
        """Begin to connect, again and again until the robot answers."""
        self._thread.start()

    def arm(self) -> None:
        """Take the operator's consent to arm a robot that answers.

        Consent for a robot that is away or driven is dropped. It must not arm the robot later, when
        nobody stands beside it, nor after a stop that its operator has not seen.
        """
        if self._robot is not None and self._absent is None:
            self._consent.set()

    def end(self) -> None:
        """Stop the robot and end the thread, without waiting for it."""
        self._ended.set()
        self._consent.set()  # Wakes the thread that waits for it.

    def join(self, longest_s: float) -> None:
        """Wait until the thread has ended, or for `longest_s`. Return at once if it never began."""
        if self._thread.ident is not None:
            self._thread.join(longest_s)

    @property
    def status(self) -> MemberStatus:
        """The member now; safe in any thread."""
        loop, robot = self._loop, self._robot
        state = robot.state if robot is not None and self._absent is None else None
        return MemberStatus(
            endpoint=self.endpoint,
            name=self._name,
            state=loop.state if loop is not None else state,
            consent=self._consent.is_set() and not self._ended.is_set(),
            driven=loop is not None,
            reason="; ".join(filter(None, dict.fromkeys((self._stopped, self._absent)))) or None,
            ticks=self.telemetry.ticks,
            refused=self.telemetry.refused,
            misses=self.telemetry.misses,
            tick=self.telemetry.percentiles(TICK),
            successes=robot.successes if robot is not None else 0,
            recordings=tuple(self._recorders),
        )

    def _serve(self) -> None:
        with schedule(RealtimeConfig()):
            while not self._ended.is_set():
                try:
                    with closing(self._connect()) as robot:
                        self._attend(robot)
                except GatortError as error:
                    self._absent = str(error)
                    if isinstance(error, RobotRefusal):
                        # Another controller may drive the robot: after its stop nobody consented.
                        self._stopped = str(error)
                        self._consent.clear()
                except Exception as error:  # noqa: BLE001  # The other robots must go on.
                    self._absent = f"internal error: {type(error).__name__}: {error}"
                    self.fault = error
                    # Its end would take the better nice value from the other members' threads.
                    self._ended.wait()
                finally:
                    self._robot = None
                self._ended.wait(RETRY_S)

    def _attend(self, robot: RemoteRobot) -> None:
        """Drive a connected robot each time that its operator consents, until the end."""
        self._robot, self._name = robot, robot.name
        due = DueRobot(robot, self._engine)
        select_keys(self.policy.spec, robot.interface)  # Told before anybody consents.
        while self._has_consent(robot):
            self._consent.clear()
            self._stopped = None
            try:
                self._run(robot, due)
            except (ObservationError, RecordingError) as error:  # It was not armed.
                self._stopped = str(error)

    def _run(self, robot: RemoteRobot, due: DueRobot) -> None:
        """Drive the robot once, from being armed to its stop or the end.

        Raises:
            ObservationError, RecordingError: the robot was not armed.
            RobotError, DeviceError: the robot or the engine failed.
        """
        self.policy.reset()
        loop = self.policy.control(due, self._clock, telemetry=self.telemetry)
        with self._recorded(robot, loop) as record:
            self._wait_for_phase()
            if not self._ended.is_set():
                self._drive(loop, record)

    def _has_consent(self, robot: RemoteRobot) -> bool:
        """Wait for consent. Return false at the end.

        Raises:
            RobotError: the robot has left meanwhile.
        """
        while not self._ended.is_set():
            try:
                robot.observe()
            except ObservationError as error:
                self._absent = str(error)
                self._ended.wait(RETRY_S)
                continue
            self._absent = None
            if self._consent.wait(RETRY_S):
                break
        return not self._ended.is_set()

    def _wait_for_phase(self) -> None:
        period_ns = self.policy.spec.period_ns
        now_ns = self._clock.now_ns()
        self._clock.sleep_until_ns(now_ns + (self._phase_ns - now_ns) % period_ns)

    @contextmanager
    def _recorded(self, robot: RemoteRobot, loop: ControlLoop) -> Iterator[TickRecorder | None]:
        """Yield the recorder of a run's ticks, if one is wanted, and close it with its outcome."""
        if self._record is None:
            yield None
            return
        with self._record(robot) as recorder:
            self._recorders.append(recorder)
            try:
                yield TickRecorder(recorder, loop)
            except (ObservationError, RobotError, DeviceError) as error:
                component = "engine" if isinstance(error, DeviceError) else "robot"
                recorder.fault(self._clock.now_ns(), component, str(error))
                recorder.close(str(error))
                raise
            recorder.close(self._stopped or "ended by the operator")

    def _drive(self, loop: ControlLoop, record: TickRecorder | None) -> None:
        """Run until the robot stops or the end comes."""

        def look(tick: TickRecord) -> bool:
            if record is not None:
                record(tick)
            if self._on_tick is not None:
                self._on_tick(tick)
            self._stopped = loop.stop_sentence
            return self._ended.is_set()

        self._loop = loop
        try:
            loop.run(MOST_TICKS, look)
        except (RobotError, DeviceError) as error:
            self._stopped = str(error)
            raise
        finally:
            self._consent.clear()  # The operator has not seen the stop yet.
            self._loop = None


class Fleet:
    """Members that are driven until the end of the context."""

    def __init__(self, members: Sequence[Member]) -> None:
        """Take the members over."""
        self.members = tuple(members)

    @property
    def statuses(self) -> list[MemberStatus]:
        """Status of each member now."""
        return [member.status for member in self.members]

    @contextmanager
    def driven(self) -> Iterator[None]:
        """Drive the robots until the end of the context. Then stop them.

        Raises:
            Exception: a member's thread ended by an error of gatort itself.
        """
        with ExitStack() as undo:
            undo.callback(sys.setswitchinterval, sys.getswitchinterval())
            sys.setswitchinterval(SWITCH_S)
            # A collection stops every thread, so it must not walk the objects made before.
            gc.collect()
            gc.freeze()
            undo.callback(gc.unfreeze)
            undo.callback(self._end)
            for member in self.members:
                member.start()
            yield
        for member in self.members:
            if member.fault is not None:
                raise member.fault

    def _end(self) -> None:
        for member in self.members:
            member.end()
        clock = MonotonicClock()
        until_ns = clock.now_ns() + LEAVE_NS
        for member in self.members:
            member.join(max(0, until_ns - clock.now_ns()) * 1e-9)
