"""Run a policy on a robot from the command line: watched and recorded."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from gatort.console.reporting import RunReporter
from gatort.policies.recorded import policy_record
from gatort.runtime.clock import wall_clock_ns
from gatort.runtime.errors import GatortError
from gatort.runtime.live_run import LiveRun, ignore_tick
from gatort.runtime.loop import TickRecord
from gatort.runtime.machine import this_machine
from gatort.runtime.realtime import apply
from gatort.runtime.recording.messages import RunRecord
from gatort.runtime.recording.recorder import Recorder

from .options import RunOptions
from .outputs import RUNS, make_runs
from .run_report import run_sentences
from .watching import FilmTrack, RunWatcher


def utc_name() -> str:
    """Return the present in UTC, to name a file that is made now."""
    now = datetime.fromtimestamp(wall_clock_ns() * 1e-9, UTC)
    return f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03}Z"


def new_file(seed: int) -> Path:
    """Return an unused path in RUNS for a run that begins now, named by UTC and seed."""
    return RUNS / f"{utc_name()}-seed{seed}.mcap"


def _robot_name(live: LiveRun, options: RunOptions) -> str:
    return f"{options.robot} (dry run)" if live.is_dry else options.robot


def run_title(live: LiveRun, options: RunOptions) -> str:
    """Return the bundle, the engine and the robot of a run."""
    name = live.policy.manifest.name if live.policy.manifest else live.policy.engine.name
    engine = options.engine if live.policy.manifest else name
    return ", ".join(dict.fromkeys((name, engine, _robot_name(live, options))))


def run_recorded(
    live: LiveRun,
    options: RunOptions,
    file: Path,
    console: Console,
    track: FilmTrack | None,
    *,
    viewer: bool = False,
    on_tick: Callable[[TickRecord], None] = ignore_tick,
    title: str | None = None,
    reporter: RunReporter | None = None,
) -> Recorder:
    """Run and record into a file. Return the recorder, which is closed.

    Args:
        live: run that has not begun.
        options: options of the run.
        file: file of the recording.
        console: console of the live table.
        track: track of a simulated robot's positions.
        viewer: show the positions in a window.
        on_tick: called in the slack after each tick with its record.
        title: heading of a live table that must not tell the policy. Default: bundle, engine and
            robot, and a table with durations and passes.
        reporter: tells the console in the browser.

    Raises:
        RecordingError: the file cannot be opened.
        ObservationError, RobotError, DeviceError: robot or GPU failed before the first tick.
    """

    def look(tick: TickRecord) -> None:
        watcher.look(tick)
        on_tick(tick)

    run = RunRecord.of(
        _robot_name(live, options), live.robot.interface, str(this_machine()), live.clock
    )
    policy = policy_record(live.policy, options, options.seed)
    heading = title or run_title(live, options)
    if file.parent == RUNS:
        make_runs()  # Another command may have removed the empty folder since the check.
    with Recorder(file, run, policy) as recorder:
        watcher = RunWatcher(
            live, recorder, heading, console, track, blind=title is not None, reporter=reporter
        )
        try:
            with ExitStack() as stack:
                if (takeover := live.loop.takeover) is not None:
                    stack.enter_context(takeover.device.listening())
                stack.enter_context(watcher.shown(viewer=viewer))
                scheduling = stack.enter_context(apply(options.realtime))
                live.scheduling = scheduling.name
                for refused in scheduling.refused:
                    console.print(refused)
                live.run(recorder, look)
        except GatortError as error:
            recorder.close(f"nothing ran: {error}")
            if file.is_file():  # Not where it is a device, which was there before.
                file.unlink()
            raise
        succeeded = live.robot.succeeded if live.has_task and not live.is_dry else None
        recorder.close("; ".join(run_sentences(live, options)), succeeded=succeeded)
    return recorder
