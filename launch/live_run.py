"""A live run: one policy drives one robot on the wall clock."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console

from gatort.runtime.clock import Clock
from gatort.runtime.episode import Episode
from gatort.runtime.errors import DeviceError, RobotError
from gatort.runtime.loop import ControlLoop, Tick
from gatort.runtime.policy import Policy
from gatort.runtime.realtime import apply
from gatort.runtime.recording.recorder import Recorder, TickRecorder
from gatort.runtime.remote.client import RemoteRobot
from gatort.runtime.remote.keys import ControllerKeys
from gatort.runtime.safety import State
from gatort.runtime.spec import PolicySpec
from gatort.runtime.telemetry import TICK, Telemetry
from gatort.sim.make import simulated_robot
from gatort.sim.robot import StackingRobot

from .film_track import FilmTrack
from .live import PERIOD_NS, LiveTable, RunStatus
from .options import RunOptions

KEPT_TICKS = 72_000
"""One hour at 20 Hz. The picture of a longer run shows its last hour, the film its first."""


class LiveRun:
    """One policy driving one robot on the wall clock, and the outcome."""

    def __init__(self, policy: Policy, options: RunOptions, clock: Clock) -> None:
        """Make the simulated robot, or connect to the robot at an address.

        Raises:
            MissingDependency: the simulator is absent.
            RobotError: no robot answers, or it refuses this controller.
            SpecError: the robot's keys or actuators are not those of the policy.
            DemonstrationError: the prompt is not an episode of this policy's specification.
        """
        spec = policy.spec
        self.policy = policy
        self.options = options
        self.clock = clock
        self.robot = _robot(options, spec, clock)
        self.ticks = max(1, round(options.seconds * spec.control_hz))
        kept = min(self.ticks, KEPT_TICKS)
        self.telemetry = Telemetry(spec, kept, clock=clock, stepwise=policy.decoder.engine.stepwise)
        with ExitStack() as undo:
            undo.callback(self.robot.close)
            self.loop: ControlLoop = policy.control(
                self.robot, clock, telemetry=self.telemetry, collect_garbage=True
            )
            self.prompt = []
            if options.prompt is not None:
                episode = Episode.load(options.prompt, spec)
                self.prompt = list(episode.frames(last=spec.window_frames))
            self.loop.prime(self.prompt)
            undo.pop_all()

        self.stopped = False
        """True if the guard, the watchdog or a failure of the robot or the GPU ended the run."""
        self.interrupted = False
        """True if the operator ended the run."""
        self.failure: str | None = None
        """Sentence on the failure that ended the run."""
        self.state = State.DISARMED
        """State of guard or robot after the last tick, whichever is further from RUN."""
        self.track = None if isinstance(self.robot, RemoteRobot) else FilmTrack(self.robot, kept)
        """Positions for film and viewer; `None` for a robot at an address."""
        self._offered_ns = 0
        self._table: LiveTable | None = None
        self._recorder: TickRecorder | None = None

    def close(self) -> None:
        """Release the robot."""
        self.robot.close()

    @property
    def budget_ms(self) -> float:
        """Longest tick that is not a miss."""
        return self.telemetry.budget_ns * 1e-6

    @property
    def seconds(self) -> float:
        """Finished ticks as time on the robot's side, skipped deadlines not counted."""
        return self.telemetry.ticks / self.policy.spec.control_hz

    def run(self, console: Console, viewer: bool, recorder: Recorder) -> None:
        """Run until success, the end of the time, or a stop.

        Raises:
            ObservationError, RobotError, DeviceError: robot or GPU failed before the first tick.
        """
        self._recorder = TickRecorder(recorder, self.loop)
        self._recorder.prompt(self.clock.now_ns(), self.prompt)
        with ExitStack() as stack:
            if viewer and self.track is not None:
                stack.enter_context(self.track.window())
            stack.enter_context(interrupted_by_signals())
            self._table = stack.enter_context(LiveTable(console, self.budget_ms))
            for refused in stack.enter_context(apply(self.options.realtime)):
                console.print(refused)
            self._run_loop(recorder)
            self._table.offer(self._status())

    def _run_loop(self, recorder: Recorder) -> None:
        try:
            self.loop.run(self.ticks, self._look)
        except KeyboardInterrupt:
            self.interrupted = True
        except (RobotError, DeviceError) as error:
            if not self.telemetry.ticks:
                raise
            component = "robot" if isinstance(error, RobotError) else "engine"
            self.failure = f"the {component} failed ({error})"
            self.stopped = True
            recorder.fault(self.clock.now_ns(), component, str(error))

    def _look(self, tick: Tick) -> bool:
        """Record a tick in its slack and show the status four times a second; return true to
        end.
        """
        if self._recorder is not None:
            self._recorder(tick)
        if self.track is not None:
            self.track.keep()
        self.state = max(self.loop.guard.state, self.robot.state, key=list(State).index)
        self.stopped = self.loop.stopped

        now_ns = self.clock.now_ns()
        if self._table is not None and now_ns - self._offered_ns >= PERIOD_NS:
            self._offered_ns = now_ns
            self._table.offer(self._status())
        return self.robot.succeeded and self.options.until == "success"

    def _status(self) -> RunStatus:
        return RunStatus(
            elapsed_s=self.seconds,
            rate=self.telemetry.rate,
            tick=self.telemetry.percentiles(TICK),
            misses=self.telemetry.misses,
            state=self.state,
            succeeded=self.robot.succeeded,
        )


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP interrupt as Ctrl-C does, so that the arm is stopped first.

    SIGINT is set too: a script's background jobs begin with SIGINT ignored, and an operator's stop
    must never be ignored.
    """
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {each: signal.signal(each, signal.default_int_handler) for each in signals}
    try:
        yield
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)


def _robot(options: RunOptions, spec: PolicySpec, clock: Clock) -> StackingRobot | RemoteRobot:
    if options.simulator is not None:
        return simulated_robot(options.simulator, spec, clock, options.seed)
    keys = ControllerKeys.load(options.keys) if options.keys is not None else None
    with apply(options.realtime):  # The threads that carry the messages get the priority too.
        return RemoteRobot(options.robot, clock, keys)
