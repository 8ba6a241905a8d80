"""`gatort run`: one run in real time on the wall clock."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter
from numpy.typing import NDArray
from rich.console import Console

from gatort.runtime.clock import MonotonicClock
from gatort.runtime.decoding import Sampler
from gatort.runtime.episode import Episode
from gatort.runtime.errors import DeviceError, MissingDependency, RobotError
from gatort.runtime.loop import ControlLoop, Tick
from gatort.runtime.policy import Policy
from gatort.runtime.realtime import apply
from gatort.runtime.safety import State
from gatort.runtime.telemetry import TICK, Telemetry

from .engines import load_policy
from .latency_picture import latency_picture
from .live import PERIOD_NS, LiveTable, Status
from .machine import this_machine
from .options import RunOptions, resolve
from .pictures import film, film_obstacle
from .report import latency_record, percentile_table, require_writable, screen, write_json
from .robots import simulated_robot
from .viewer import Viewer, require_screen

DEFAULT_PLOT = Path("runs", "latency.png")
INTERRUPTED = 130
KEPT_TICKS = 72_000
"""An hour at 20 Hz: of a longer run the last hour stands in the latency picture and the first hour is filmed."""


def run(
    *,
    options: Annotated[RunOptions | None, Parameter(name="*")] = None,
    profile: Path | None = None,
    viewer: Annotated[bool, Parameter(negative="")] = False,
    video: Path | None = None,
    plot: Path | None = None,
    json: Path | None = None,
) -> int:
    """Drive the robot with a policy in real time, 20 ticks a second.

    A live table shows rate, latency, misses and state; the run ends with a summary and a latency picture. Ctrl-C is the
    operator's stop. Exit status 1 when the guard, the robot's watchdog or a failure of the robot stopped the run.

    Parameters
    ----------
    profile
        A launch profile: a TOML file, or the name of a shipped one; flags go before it.
    viewer
        Watch the run in a window; needs a screen.
    video
        Film the run into this .mp4; it is drawn after the run, never inside it.
    plot
        Where the latency picture goes; runs/latency.png when it is not given.
    json
        Write the summary to this file as well.
    """
    options = resolve(RunOptions, options, profile)
    if plot is None:
        DEFAULT_PLOT.parent.mkdir(exist_ok=True)
    require_writable(video, plot, json)
    if viewer:
        require_screen()
    console = screen()
    if video is not None and (obstacle := film_obstacle(video)) is not None:
        console.print(f"no film: {obstacle}")
        video = None

    policy = load_policy(options, Sampler(options.temperature, options.seed))
    drive = Drive(policy, options)
    interrupted = drive.run(console, viewer)

    console.print(drive.sentence)
    write_json(json, drive.record())
    if drive.telemetry.ticks:
        console.print(percentile_table(drive.telemetry.summary(), drive.budget_ms))
        _draw(console, plot or DEFAULT_PLOT, drive)
    if video is not None and len(drive.positions):
        film(video, drive.robot.layout, drive.positions, policy.spec.control_hz)
        console.print(f"film: {video}")
    drive.robot.close()
    return INTERRUPTED if interrupted else int(drive.stopped)


class Drive:
    """One policy driving one simulated robot on the wall clock, and what was seen of it."""

    def __init__(self, policy: Policy, options: RunOptions) -> None:
        """Lay out the trial.

        Raises:
            MissingDependency: the simulator is absent.
            SpecError: the policy reads or commands something else than the robot has.
            DemonstrationError: the prompt is not an episode of this policy's specification.
        """
        spec = policy.spec
        self.policy, self.options = policy, options
        self.clock = MonotonicClock()
        self.robot = simulated_robot(options.robot, spec, self.clock, options.seed)
        self.ticks = max(1, round(options.seconds * spec.control_hz))
        self.telemetry = Telemetry(spec, min(self.ticks, KEPT_TICKS), stepwise=policy.decoder.engine.stepwise)
        self.loop: ControlLoop = policy.control(self.robot, self.clock, telemetry=self.telemetry, collect_garbage=True)
        if options.prompt is not None:
            self.loop.prime(Episode.load(options.prompt, spec).frames(last=spec.window_frames))
        self.budget_ms = self.telemetry.budget_ns * 1e-6
        self.stopped = False
        """The guard, the watchdog or a failure of the robot ended the run."""
        self.failure: str | None = None
        """The sentence with which the robot failed."""
        self._looks = 0
        self._positions = np.zeros((len(self.telemetry.stamps), len(self.robot.positions)))  # (ticks, 30) for film
        self._state = State.DISARMED
        self._offered_ns = 0
        self._live: LiveTable | None = None
        self._viewer: Viewer | None = None

    def run(self, console: Console, viewer: bool) -> bool:
        """Run until success, the time is up, or something stops it; true when the operator did.

        Raises:
            RobotError, DeviceError: the robot or the GPU failed before the first tick.
        """
        with ExitStack() as stack:
            self._viewer = stack.enter_context(Viewer(self.robot.layout)) if viewer else None
            self._live = stack.enter_context(LiveTable(console, self.budget_ms))
            for refused in stack.enter_context(apply(self.options.realtime)):
                console.print(refused)
            try:
                self.loop.run(self.ticks, self._look)
            except KeyboardInterrupt:
                return True
            except (RobotError, DeviceError) as error:
                if not self.telemetry.ticks:
                    raise
                self.failure, self.stopped = str(error), True
            finally:
                self._live.offer(self._status())
        return False

    def _look(self, _: Tick) -> bool:
        """After each tick, in the slack: keep what the film needs and, at most four times a second, show the status."""
        if self._looks < len(self._positions):
            self._positions[self._looks] = self.robot.positions
            self._looks += 1
        self._state = max(self.loop.guard.state, self.robot.state, key=list(State).index)
        self.stopped = self.loop.stopped
        if self._viewer is not None:
            self._viewer.offer(self.robot.positions)
        now_ns = self.clock.now_ns()
        if self._live is not None and now_ns - self._offered_ns >= PERIOD_NS:
            self._offered_ns = now_ns
            self._live.offer(self._status())
        return self.robot.succeeded

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
        reasons = ", ".join(f"{count}× {reason}" for reason, count in self.loop.guard.refused.items())
        stopped = f"stopped in {self._state} ({reasons or 'by the watchdog'})"
        outcome = "stacked" if self.robot.succeeded else stopped if self.stopped else "not stacked"
        if self.failure is not None:
            outcome = f"the robot failed ({self.failure})"
        return (
            f"seed {self.options.seed}: {outcome} after {self.seconds:.1f} s; {self.telemetry.ticks} ticks at "
            f"{self.telemetry.rate.average_hz:.2f} Hz, {self.telemetry.misses} misses, {self.telemetry.refused} refused"
        )

    def record(self) -> dict[str, Any]:
        """The run as JSON."""
        guard = self.loop.guard
        return {
            "bundle": self.policy.manifest.name if self.policy.manifest else None,
            "seed": self.options.seed,
            "succeeded": self.robot.succeeded,
            "stopped": self.stopped,
            "ticks": self.telemetry.ticks,
            "seconds": self.seconds,
            "rate_hz": asdict(self.telemetry.rate),
            "budget_ms": self.budget_ms,
            "misses": self.telemetry.misses,
            "refused": {str(reason): count for reason, count in guard.refused.items()},
            "last_refusal": self.loop.refusal,
            "robot_failure": self.failure,
            "limited": {str(reason): count for reason, count in guard.limited.items()},
            "latency_ms": latency_record(self.telemetry.summary()),
            "machine": asdict(this_machine()),
        }


def _draw(console: Console, path: Path, drive: Drive) -> None:
    """A picture is worth having, but its library is not worth a run."""
    measured = drive.telemetry
    try:
        latency_picture(path, drive.sentence, measured.stages, measured.stage_durations_ns(), drive.budget_ms)
    except MissingDependency as error:
        console.print(f"no picture: {error}")
    else:
        console.print(f"latency picture: {path}")
