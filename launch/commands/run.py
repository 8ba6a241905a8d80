"""`gatort run`: one run in real time on the wall clock."""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from signal import SIGINT
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from gatort.console.beside_run import consent_told, console_beside, console_record
from gatort.console.flags import RunConsoleFlags
from gatort.launch.consent import require_consent, show_checklist
from gatort.launch.driving import live_run, policy_and_robot
from gatort.launch.dry_run_report import dry_run_record, dry_run_sentence, dry_run_table
from gatort.launch.options import RunOptions, config_text, refuse_unused_by_engine, resolve
from gatort.launch.outputs import RUNS, make_runs, require_writable, spared
from gatort.launch.recorded_run import new_file, run_recorded, run_title
from gatort.launch.refusals import refuse_fields, refuse_ignored
from gatort.launch.report import (
    draw_latency,
    passes_sentences,
    percentile_table,
    screen,
    write_json,
)
from gatort.launch.run_report import (
    limits_of,
    recording_sentence,
    robot_sentences,
    run_record,
    run_sentence,
    run_sentences,
)
from gatort.launch.slow_tick_table import slow_tick_table
from gatort.launch.watching import FilmTrack
from gatort.policies.loading import SHIPPED_CAMERA_BUNDLE, quickest_cpu_engine
from gatort.runtime.clock import MonotonicClock
from gatort.runtime.errors import ConfigError
from gatort.runtime.exit_status import ExitStatus, ended_by, verdict
from gatort.runtime.live_run import LiveRun, ignore_tick
from gatort.runtime.loop import TickRecord
from gatort.runtime.remote.client import remote_of
from gatort.runtime.robot import Robot
from gatort.sim.film import film_obstacle
from gatort.sim.graphics import INSTALL_HINT, choose_gl
from gatort.sim.make import make_predictor
from gatort.sim.prediction import Predictor
from gatort.sim.robot import SimulatedRobot
from gatort.sim.viewer import require_screen
from gatort.sim.way_home import WayHome, check_way_home

DEFAULT_PLOT = RUNS / "latency.png"


def run(
    *,
    options: Annotated[RunOptions | None, Parameter(name="*")] = None,
    profile: Path | None = None,
    print_config: Annotated[bool, Parameter(negative="")] = False,
    arm: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    viewer: Annotated[bool, Parameter(negative="")] = False,
    browser: Annotated[RunConsoleFlags | None, Parameter(name="*")] = None,
    video: Path | None = None,
    plot: Path | None = None,
    json: Path | None = None,
    record: Path | None = None,
) -> int:
    """Drive the robot with a policy in real time, 20 ticks a second.

    In MuJoCo the policy with cameras runs, on the native engine. With --bundle, --task, --prompt or
    another robot, the defaults below hold. A live table shows rate, latency, misses and state.
    The run ends with a summary and a latency picture. Ctrl-C, SIGTERM and the loss of the
    console (SIGHUP) are the operator's stop. Exit status 1 when the guard, the robot's watchdog
    or a failure of the robot or the GPU stopped the run. It is also 1 when a dry run would have
    broken a limit, or when an obstacle is on its way home.

    Parameters
    ----------
    profile
        Launch profile: a TOML file, or the name of a shipped one. A flag overrides the file.
    print_config
        Print the effective configuration as a launch profile, and end.
    arm
        Consent to motion of a robot at an address. Without this flag the terminal asks.
    dry_run
        Do everything but arm and command the robot. MuJoCo predicts where each command would lead.
    viewer
        Show the run in a window; needs a screen.
    video
        Film the run into this .mp4 file, with the policy's camera pictures in a corner. The film is
        drawn after the run, never during it.
    plot
        File of the latency picture; runs/latency.png by default.
    json
        Write the summary to this file as well.
    record
        File of the recording (.mcap), for `gatort info` and `gatort replay`; a new file in runs/ by
        default.
    """
    console = screen(json)
    _require_used(options, resolve(RunOptions, options, profile), arm)
    typed = options
    options = _with_policy(resolve(RunOptions, options, profile), screen(stderr=True))
    refuse_unused_by_engine(typed, options.engine)
    beside = browser or RunConsoleFlags()
    has_console = beside.address is not None
    if print_config:
        outputs = {"video": video, "plot": plot, "json": json, "record": record}
        asked = {"viewer": viewer, "console": has_console, **outputs}
        refuse_ignored("with --print-config", arm=arm, dry_run=dry_run, **asked)
        print(config_text(options), end="")
        return ExitStatus.DONE
    if plot is None or record is None:
        make_runs()
    plot = plot or DEFAULT_PLOT
    record = record or new_file(options.seed)
    require_writable(video=video, plot=plot, json=json, record=record)
    _check(options, arm, dry_run, viewer, video)
    video = _possible_film(console, video)

    clock = MonotonicClock()
    with policy_and_robot(options, clock, dry_run) as (policy, robot), ExitStack() as stack:
        predictor = stack.enter_context(closing(_predictor(robot))) if dry_run else None
        live = live_run(policy, robot, clock, options)
        track = None
        if isinstance(robot, SimulatedRobot):
            track = FilmTrack(robot, live.ticks, filmed=video is not None)
        way = check_way_home(robot, limits_of(robot)) if options.demo == "home" else None
        title = run_title(live, options)
        say = partial(console.print, soft_wrap=True)
        reporter = stack.enter_context(console_beside(live, title, beside, say))
        facts = show_checklist(console, live, record, way)
        with consent_told(reporter, live, facts, by_flag=arm):
            if not dry_run:
                _ask_for_consent(robot, way, is_given=arm)
        on_tick = ignore_tick if predictor is None else partial(_predict, predictor)
        recorder = run_recorded(
            live,
            options,
            record,
            console,
            track,
            viewer=viewer,
            on_tick=on_tick,
            reporter=reporter,
        )

        for sentence in run_sentences(live, options):
            console.print(sentence)
        console.print(recording_sentence(recorder))
        for sentence in robot_sentences(robot):
            console.print(sentence)
        forecast = predictor.forecast if predictor is not None else None
        if forecast is not None:
            console.print(dry_run_table(forecast))
            console.print(dry_run_sentence(forecast))
        report = run_record(live, options, recorder) | console_record(reporter)
        dry = {"dry_run": dry_run_record(forecast)} if forecast is not None else {}
        write_json(json, "run", report | dry)
        _draw_latency(console, live, options, plot)
        if video is not None and track is not None and len(track.positions):
            with spared("film"):
                track.draw(video, policy.spec.control_hz)
                console.print(f"film: {video}")
    if live.interrupted:
        return ended_by(SIGINT)
    is_broken = (forecast is not None and forecast.broken > 0) or (
        way is not None and way.is_blocked
    )
    return verdict(not live.stopped and not is_broken)


def _predict(predictor: Predictor, tick: TickRecord) -> None:
    if tick.observation is not None and tick.command is not None:
        predictor.predict(tick.observation, tick.command)


def _ask_for_consent(robot: Robot, way: WayHome | None, *, is_given: bool) -> None:
    """Ask for consent to motion of a robot at an address, and check its way home once more."""
    remote = remote_of(robot)
    if remote is None:
        return
    require_consent(remote, is_given=is_given)
    if way is not None:  # Things may have moved while the operator was asked.
        check_way_home(robot, limits_of(robot)).require_free()


def _require_used(typed: RunOptions | None, options: RunOptions, arm: bool) -> None:
    """Refuse typed flags that have no effect on this robot or without a policy."""
    if options.simulator is not None:
        refuse_ignored(f"on {options.robot}, which is simulated in this process", arm=arm)
    elif options.sensor is None or options.demo is not None:
        refuse_fields(f"on {options.robot}, which has its own task", typed, "task")
    if options.takeover is None:
        refuse_fields("without --takeover", typed, "takeover_device")
    if options.demo is not None:
        without_policy = ("temperature", "threads", "spinning")
        refuse_fields(f"with --demo {options.demo}, without a policy", typed, *without_policy)


def _with_policy(options: RunOptions, console: Console) -> RunOptions:
    """Choose the policy with cameras where none is named and pictures can be drawn.

    It takes the native engine where that compiles, because a tick has 25 ms.
    """
    given = options.model_fields_set & {"bundle", "task", "prompt", "demo"}
    if given or options.robot != "mujoco" or not SHIPPED_CAMERA_BUNDLE.is_dir():
        return options
    if choose_gl() is None:
        console.print(
            f"no pictures, so a policy runs that is told where the blocks lie; {INSTALL_HINT}"
        )
        return options
    chosen: dict[str, object] = {"bundle": SHIPPED_CAMERA_BUNDLE}
    if "engine" not in options.model_fields_set:
        chosen["engine"] = quickest_cpu_engine()
    return options.model_copy(update=chosen)


def _predictor(robot: Robot) -> Predictor:
    return make_predictor(robot.interface, limits_of(robot))


def _check(options: RunOptions, arm: bool, dry_run: bool, viewer: bool, video: Path | None) -> None:
    """Refuse flags that do not fit the robot, a missing screen, and motion without consent."""
    robot = options.robot
    of_policy = sorted(
        options.model_fields_set
        & {"bundle", "engine", "precision", "prompt", "sensor", "takeover"}
        - ({"sensor"} if options.demo == "home" else set())
    )
    if options.demo is not None and of_policy:
        raise ConfigError(
            f"--demo {options.demo} runs without a policy: leave out --{of_policy[0]}"
        )
    if dry_run and (arm or viewer or video is not None):
        raise ConfigError("in a dry run nothing moves: leave out --arm, --viewer and --video")
    if options.simulator is not None:
        if options.keys is not None:
            raise ConfigError(
                f"--keys are for a robot at tcp://HOST:PORT: {robot} is simulated in this process"
            )
        if options.cameras:
            raise ConfigError(
                f"[cameras] are for a robot at tcp://HOST:PORT: {robot} draws its own pictures"
            )
        if options.sensor is not None:
            raise ConfigError(
                f"--sensor is for a robot at tcp://HOST:PORT: {robot} knows its own bodies"
            )
        if viewer:
            require_screen()
        return

    if viewer or video is not None:
        raise ConfigError(
            "--viewer and --video show a robot that is simulated in this process: "
            "leave out --robot tcp://"
        )
    if not (arm or dry_run) and not (sys.stdin and sys.stdin.isatty()):
        raise ConfigError(
            f"--robot {robot} moves an arm: consent with --arm, or run it on a terminal to be asked"
        )


def _possible_film(console: Console, video: Path | None) -> Path | None:
    """Return the film's file, or `None` after a sentence on the missing part of a film."""
    if video is not None and (obstacle := film_obstacle(video)) is not None:
        console.print(f"no film: {obstacle}")
        return None
    return video


def _draw_latency(console: Console, live: LiveRun, options: RunOptions, plot: Path) -> None:
    if not live.telemetry.ticks:
        return
    table = percentile_table(live.telemetry.summary(), live.budget_ms, live.deadline_ms)
    console.print(table, *passes_sentences(live.telemetry.passes), sep="\n")
    if missed := live.missed_ticks:
        console.print(slow_tick_table(missed, "missed or refused ticks, the worst first"))
    with spared("picture"):
        draw_latency(plot, run_sentence(live, options), live.telemetry, live.deadline_ms)
        console.print(f"latency picture: {plot}")
