"""`gatort run`: one run in real time on the wall clock."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from cyclopts import Parameter
from numpy.typing import NDArray
from rich.console import Console

from gatort.launch.latency_picture import latency_picture
from gatort.launch.live import (
    PERIOD_NS,
    LiveTable,
    Status,
)
from gatort.launch.options import (
    RunOptions,
    resolve,
)
from gatort.launch.record import (
    RECORDINGS,
    begin_recording,
    new_file,
    recording_record,
    recording_sentence,
)
from gatort.launch.report import (
    latency_record,
    make_directory,
    percentile_record,
    percentile_table,
    require_writable,
    screen,
    write_json,
)
from gatort.policies.loading import load_policy
from gatort.runtime.clock import (
    Clock,
    MonotonicClock,
)
from gatort.runtime.decoding import Sampler
from gatort.runtime.episode import Episode
from gatort.runtime.errors import (
    ConfigError,
    DeviceError,
    GatortError,
    MissingDependency,
    RobotError,
)
from gatort.runtime.loop import (
    ControlLoop,
    TickRecord,
)
from gatort.runtime.machine import this_machine
from gatort.runtime.policy import Policy
from gatort.runtime.realtime import apply
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.recording.tick_recorder import TickRecorder
from gatort.runtime.remote.client import RemoteRobot
from gatort.runtime.remote.keys import ControllerKeys
from gatort.runtime.safety import (
    STOPPED,
    State,
)
from gatort.runtime.spec import PolicySpec
from gatort.runtime.telemetry import (
    TICK,
    Telemetry,
)
from gatort.sim.film import film, film_obstacle
from gatort.sim.make import simulated_robot
from gatort.sim.viewer import Viewer, require_screen

if TYPE_CHECKING:
    from gatort.sim.robot import StackingRobot

DEFAULT_PLOT = Path("runs", "latency.png")
INTERRUPTED = 130
KEPT_TICKS = 72_000
"""An hour at 20 Hz: of a longer run the last hour stands in the latency picture and the first hour is filmed."""


def run(
    *,
    options: Annotated[RunOptions | None, Parameter(name="*")] = None,
    profile: Path | None = None,
    arm: Annotated[bool, Parameter(negative="")] = False,
    viewer: Annotated[bool, Parameter(negative="")] = False,
    video: Path | None = None,
    plot: Path | None = None,
    json: Path | None = None,
    record: Path | None = None,
) -> int:
    """Drive the robot with a policy in real time, 20 ticks a second.

    A live table shows rate, latency, misses and state; the run ends with a summary and a latency picture. Ctrl-C, a
    signal to end and the loss of the console are the operator's stop. Exit status 1 when the guard, the robot's
    watchdog or a failure of the robot or the GPU stopped the run.

    Parameters
    ----------
    profile
        A launch profile: a TOML file, or the name of a shipped one; flags go before it.
    arm
        Consent to motion of a robot at an address; without it the operator is asked on the terminal.
    viewer
        Watch the run in a window; needs a screen.
    video
        Film the run into this .mp4; it is drawn after the run, never inside it.
    plot
        Where the latency picture goes; runs/latency.png when it is not given.
    json
        Write the summary to this file as well.
    record
        The run's recording, for `gatort info` and `gatort replay`; a new .mcap file in runs/ when it is not given.
    """
    options = resolve(RunOptions, options, profile)
    if plot is None or record is None:
        make_directory(RECORDINGS)
    file = record or new_file(options.seed)
    require_writable(video, plot or DEFAULT_PLOT, json, file)
    _require_sensible(options, arm, viewer, video)
    if viewer:
        require_screen()
    console = screen()
    if video is not None and (obstacle := film_obstacle(video)) is not None:
        console.print(f"no film: {obstacle}")
        video = None

    policy = load_policy(options, Sampler(options.temperature, options.seed))
    drive = Drive(policy, options)
    with closing(drive.robot):
        if options.simulator is None and not arm:
            _ask_consent(options.robot)
        with begin_recording(file, policy, options, drive.robot, drive.clock) as recorder:
            try:
                drive.run(console, viewer, recorder)
            except GatortError as error:
                recorder.close(f"nothing ran: {error}")
                raise
            recorder.close(drive.sentence)

        console.print(drive.sentence)
        console.print(recording_sentence(recorder))
        if isinstance(drive.robot, RemoteRobot):
            console.print(_wire_sentence(drive.robot))
        write_json(json, {**drive.record(), "recording": recording_record(recorder)})
        if drive.telemetry.ticks:
            console.print(percentile_table(drive.telemetry.summary(), drive.budget_ms))
            _draw(console, plot or DEFAULT_PLOT, drive)
        if video is not None and not isinstance(drive.robot, RemoteRobot) and len(drive.positions):
            film(video, drive.robot.layout, drive.positions, policy.spec.control_hz)
            console.print(f"film: {video}")
    return INTERRUPTED if drive.interrupted else int(drive.stopped)


def _require_sensible(options: RunOptions, arm: bool, viewer: bool, video: Path | None) -> None:
    robot = options.robot
    if options.simulator is not None:
        if options.keys is not None:
            raise ConfigError(
                f"--keys are for a robot at tcp://HOST:PORT: {robot} is simulated in this process"
            )
        return
    if viewer or video is not None:
        raise ConfigError(
            "--viewer and --video show a robot that is simulated in this process: leave out --robot tcp://"
        )
    if not arm and not (sys.stdin and sys.stdin.isatty()):
        raise ConfigError(
            f"--robot {robot} moves an arm: consent with --arm, or run it on a terminal to be asked"
        )


def _ask_consent(robot: str) -> None:
    answer = ""
    with suppress(EOFError):  # Ctrl-D is no consent either.
        answer = input(f"The arm at {robot} will move. Arm it? [y/N] ")
    if answer.strip().lower() not in ("y", "yes"):
        raise ConfigError(f"{robot} was not armed: expected y, and nothing else arms it")


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Let a request to end and the loss of the console interrupt as Ctrl-C does, so that the arm is stopped first.

    Ctrl-C itself too: a script's background jobs begin with SIGINT ignored, and an operator's stop is never ignored.
    """
    each_signal = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {each: signal.signal(each, signal.default_int_handler) for each in each_signal}
    try:
        yield
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)


def _robot(options: RunOptions, spec: PolicySpec, clock: Clock) -> StackingRobot | RemoteRobot:
    if options.simulator is None:
        keys = ControllerKeys.load(options.keys) if options.keys is not None else None
        with apply(options.realtime):  # The threads that carry the messages go in front too.
            return RemoteRobot(options.robot, clock, keys)
    return simulated_robot(options.simulator, spec, clock, options.seed)


class Drive:
    """One policy driving one robot on the wall clock, and what was seen of it."""

    def __init__(self, policy: Policy, options: RunOptions) -> None:
        """Lay out the trial, or connect to the robot.

        Raises:
            MissingDependency: the simulator is absent.
            RobotError: no robot is there, or it does not let this controller in.
            SpecError: the policy reads or commands something else than the robot has.
            DemonstrationError: the prompt is not an episode of this policy's specification.
        """
        spec = policy.spec
        self.policy, self.options = policy, options
        self.clock = MonotonicClock()
        self.robot = _robot(options, spec, self.clock)
        self.ticks = max(1, round(options.seconds * spec.control_hz))
        self.telemetry = Telemetry(
            spec, min(self.ticks, KEPT_TICKS), stepwise=policy.engine.stepwise
        )
        with ExitStack() as undo:
            undo.callback(self.robot.close)
            self.loop: ControlLoop = policy.control(
                self.robot, self.clock, telemetry=self.telemetry, collect_garbage=True
            )
            episode = Episode.load(options.prompt, spec) if options.prompt is not None else None
            self.prompt = (
                list(episode.frames(last=spec.window_frames)) if episode is not None else []
            )
            self.loop.prime(self.prompt)
            undo.pop_all()
        self.budget_ms = self.telemetry.budget_ns * 1e-6
        self.stopped = False
        """The guard, the watchdog or a failure of the robot or the GPU ended the run."""
        self.interrupted = False
        """The operator ended the run."""
        self.failure: str | None = None
        """What failed in the run, and its sentence."""
        self._looks = 0
        self._filmed = None if isinstance(self.robot, RemoteRobot) else self.robot
        rows, columns = (
            (len(self.telemetry.stamps), len(self._filmed.positions)) if self._filmed else (0, 0)
        )
        self._positions = np.zeros((rows, columns))  # (ticks, 30), for the film
        self._state = State.DISARMED
        self._offered_ns = 0
        self._live: LiveTable | None = None
        self._viewer: Viewer | None = None
        self._record: TickRecorder | None = None

    def run(self, console: Console, viewer: bool, recorder: Recorder) -> None:
        """Run until success, the time is up, or something stops it.

        Raises:
            ObservationError, RobotError, DeviceError: the robot or the GPU failed before the first tick.
        """
        self._record = TickRecorder(recorder, self.loop)
        self._record.prompt(self.clock.now_ns(), self.prompt)
        with ExitStack() as stack:
            self._viewer = (
                stack.enter_context(Viewer(self._filmed.layout))
                if viewer and self._filmed
                else None
            )
            stack.enter_context(_stopped_by_signals())
            self._live = stack.enter_context(LiveTable(console, self.budget_ms))
            for refused in stack.enter_context(apply(self.options.realtime)):
                console.print(refused)
            try:
                self.loop.run(self.ticks, self._look)
            except KeyboardInterrupt:
                self.interrupted = True
            except (RobotError, DeviceError) as error:
                if not self.telemetry.ticks:
                    raise
                component = "robot" if isinstance(error, RobotError) else "engine"
                self.failure, self.stopped = f"the {component} failed ({error})", True
                recorder.fault(self.clock.now_ns(), component, str(error))
            self._live.offer(self._status())

    def _look(self, tick: TickRecord) -> bool:
        """After each tick, in the slack: record it, keep what the film needs, show the status four times a second."""
        if self._record is not None:
            self._record(tick)
        if self._filmed is not None:
            self._keep(self._filmed.positions)
        self._state = max(self.loop.guard.state, self.robot.state, key=list(State).index)
        self.stopped = self.loop.stopped
        now_ns = self.clock.now_ns()
        if self._live is not None and now_ns - self._offered_ns >= PERIOD_NS:
            self._offered_ns = now_ns
            self._live.offer(self._status())
        return self.robot.succeeded and self.options.until == "success"

    def _keep(self, positions: NDArray[np.float64]) -> None:
        if self._looks < len(self._positions):
            self._positions[self._looks] = positions
            self._looks += 1
        if self._viewer is not None:
            self._viewer.offer(positions)

    def _status(self) -> Status:
        return Status(
            elapsed_s=self.seconds,
            rate=self.telemetry.rate,
            tick=self.telemetry.percentiles(TICK),
            misses=self.telemetry.misses,
            state=self._state,
            succeeded=self.robot.succeeded,
        )

    @property
    def seconds(self) -> float:
        """Ticks so far as time on the robot's side, skipped deadlines not counted."""
        return self.telemetry.ticks / self.policy.spec.control_hz

    @property
    def positions(self) -> NDArray[np.float64]:
        """Joint positions (N, 30) after each tick that was finished so far."""
        return self._positions[: self._looks]

    @property
    def sentence(self) -> str:
        """The run in one line."""
        outcome = "stacked" if self.robot.succeeded else "not stacked"
        if isinstance(self.robot, RemoteRobot) and self.robot.successes > 1:
            outcome = f"stacked {self.robot.successes} times"
        if self._ending is not None:
            outcome = f"{outcome}, {self._ending}"
        where = (
            self.options.robot
            if isinstance(self.robot, RemoteRobot)
            else f"seed {self.options.seed}"
        )
        return (
            f"{where}: {outcome} after {self.seconds:.1f} s; {self.telemetry.ticks} ticks at "
            f"{self.telemetry.rate.average_hz:.2f} Hz, {self.telemetry.misses} misses, {self.telemetry.refused} refused"
        )

    @property
    def _ending(self) -> str | None:
        """What ended the run, unless it ended by itself."""
        if self.failure is not None:
            return self.failure
        if self.interrupted:
            return "stopped by the operator"
        if not self.stopped:
            return None
        guard = self.loop.guard
        who = (
            "the guard"
            if guard.state in STOPPED
            else "the robot: its watchdog, or the operator beside it"
        )
        reasons = "".join(f"; {count}× {reason}" for reason, count in guard.refused.items())
        return f"stopped in {self._state} (by {who}{reasons})"

    def record(self) -> dict[str, Any]:
        """The run as JSON."""
        guard = self.loop.guard
        wire = {"wire": _wire_record(self.robot)} if isinstance(self.robot, RemoteRobot) else {}
        return {
            "bundle": self.policy.manifest.name if self.policy.manifest else None,
            "seed": self.options.seed,
            "succeeded": self.robot.succeeded,
            "stopped": self.stopped,
            "interrupted": self.interrupted,
            "ticks": self.telemetry.ticks,
            "seconds": self.seconds,
            "rate_hz": asdict(self.telemetry.rate),
            "budget_ms": self.budget_ms,
            "misses": self.telemetry.misses,
            "refused": {str(reason): count for reason, count in guard.refused.items()},
            "last_refusal": self.loop.refusal,
            "failure": self.failure,
            "limited": {str(reason): count for reason, count in guard.limited.items()},
            "latency_ms": latency_record(self.telemetry.summary()),
            **wire,
            "machine": asdict(this_machine()),
        }


def _wire_record(robot: RemoteRobot) -> dict[str, Any]:
    return {
        "robot": robot.name,
        "simulated": robot.simulated,
        "successes": robot.successes,
        "round_trip_ms": percentile_record(robot.round_trips),
        "clock_offset_ms": robot.clock_offset_ns * 1e-6,
        "retries": robot.retries,
        "outdated": robot.outdated,
        "malformed": robot.malformed,
        "dropped": robot.dropped,
    }


def _wire_sentence(robot: RemoteRobot) -> str:
    trips = robot.round_trips
    return (
        f"wire: round trip p50 {trips.p50_ms:.2f}, p99 {trips.p99_ms:.2f}, max {trips.max_ms:.2f} ms over "
        f"{trips.count} answers; {robot.retries} asked again, clock offset {robot.clock_offset_ns * 1e-6:+.3f} ms"
    )


def _draw(console: Console, path: Path, drive: Drive) -> None:
    """A picture is worth having, but its library is not worth a run."""
    measured = drive.telemetry
    try:
        latency_picture(
            path, drive.sentence, measured.stages, measured.stage_durations_ns(), drive.budget_ms
        )
    except MissingDependency as error:
        console.print(f"no picture: {error}")
    else:
        console.print(f"latency picture: {path}")
