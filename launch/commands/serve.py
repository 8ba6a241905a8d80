"""`gatort serve`: one policy drives several robots."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from signal import SIGINT
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.live import Live

from gatort.launch.consent import agrees
from gatort.launch.fleet_table import fleet_record, fleet_table, member_line, recording_sentences
from gatort.launch.options import config_text, refuse_unused_by_engine, resolve
from gatort.launch.outputs import require_writable
from gatort.launch.recorded_run import utc_name
from gatort.launch.refusals import refuse_ignored
from gatort.launch.report import screen, write_json
from gatort.launch.serve_options import ServeOptions
from gatort.policies.loading import load_policies
from gatort.policies.recorded import policy_record
from gatort.runtime.clock import Clock, MonotonicClock
from gatort.runtime.engines.turns import Turns
from gatort.runtime.errors import ConfigError
from gatort.runtime.exit_status import ExitStatus, ended_by, verdict
from gatort.runtime.fleet import Fleet, Member
from gatort.runtime.grant import read_grant
from gatort.runtime.machine import this_machine
from gatort.runtime.outputs import require_folder
from gatort.runtime.recording.messages import PolicyRecord, RunRecord
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.remote.client import RemoteRobot
from gatort.runtime.remote.console import is_in_the_foreground
from gatort.runtime.remote.keys import ControllerKeys, require_keys_beyond_loopback
from gatort.runtime.wording import counted

LONGEST_LINE = 4_096
"""Longest line that a terminal gives, in bytes."""
LOOK_S = 0.5
"""Time between two looks at the robots, for the display."""


def serve(
    *,
    options: Annotated[ServeOptions | None, Parameter(name="*")] = None,
    profile: Path | None = None,
    print_config: Annotated[bool, Parameter(negative="")] = False,
    arm: Annotated[bool, Parameter(negative="")] = False,
    json: Path | None = None,
    recordings: Path | None = None,
) -> int:
    """Drive several robots with one policy from one process.

    Each robot has a context, a guard and a pace of its own, and they share the weights. A robot
    that is not there yet joins later. One that leaves, stalls or fails changes nothing for the
    others. A robot that stopped is armed again with its number and Enter. Ctrl-C stops all robots.
    Exit status 1 when a robot was stopped or away at the end.

    Parameters
    ----------
    profile
        Launch profile: a TOML file, or the name of a shipped one. A flag overrides the file.
    print_config
        Print the effective configuration as a launch profile, and end.
    arm
        Consent to motion: each robot is armed once, when it first answers. Without this flag the
        terminal asks.
    json
        Write the summary to this file as well.
    recordings
        Folder for a recording (.mcap) of each robot, from the moment it is armed to its stop.
    """
    typed, options = options, resolve(ServeOptions, options, profile)
    refuse_unused_by_engine(typed, options.engine)
    if print_config:
        refuse_ignored("with --print-config", arm=arm, json=json, recordings=recordings)
        print(config_text(options), end="")
        return ExitStatus.DONE
    require_writable(json=json)
    if recordings is not None:
        require_folder(recordings)
    _require_robots(options)
    _require_consent(options.robots, is_given=arm)

    console = screen(json)
    clock = MonotonicClock()
    fleet = _fleet(options, clock, recordings)
    interrupted = False
    began_ns = clock.now_ns()
    with fleet.driven():
        try:
            _watch(fleet, console, clock, options.seconds)
        except KeyboardInterrupt:
            interrupted = True
        statuses = fleet.statuses
        seconds = (clock.now_ns() - began_ns) * 1e-9
    console.print(fleet_table(statuses))
    if recordings is not None:
        console.print(*recording_sentences(statuses, recordings), sep="\n", soft_wrap=True)
    write_json(json, "serve", fleet_record(statuses, options, seconds))
    if interrupted:
        return ended_by(SIGINT)
    return verdict(all(each.driven for each in statuses))


def _require_robots(options: ServeOptions) -> None:
    robots = options.robots
    if not robots:
        raise ConfigError("expected --robots tcp://HOST:PORT, once for each robot, found none")
    twice = [each for each in dict.fromkeys(robots) if robots.count(each) > 1]
    if twice:
        raise ConfigError(f"--robots: expected each address once, found {twice[0]} again")
    for robot in robots:
        require_keys_beyond_loopback(robot, keyed=options.keys is not None)


def _require_consent(robots: Sequence[str], *, is_given: bool) -> None:
    """Ask once for consent to the motion of all robots.

    Raises:
        ConfigError: the answer is not yes, or there is no terminal to ask on.
    """
    if is_given:
        return
    if not (sys.stdin and sys.stdin.isatty()):
        raise ConfigError(
            f"{counted(len(robots), 'robot')} would move: consent with --arm, or run it on a "
            "terminal to be asked"
        )
    if not agrees(f"{counted(len(robots), 'robot')} will move as they join. Arm?"):
        raise ConfigError("no robot was armed: answer y to arm")


def _fleet(options: ServeOptions, clock: Clock, recordings: Path | None) -> Fleet:
    keys = ControllerKeys.load(options.keys) if options.keys is not None else None
    turns = Turns(max(1, read_grant().processors // options.threads), clock)
    policies = load_policies(options, len(options.robots), turns)
    members = []
    for index, (robot, (policy, engine)) in enumerate(zip(options.robots, policies, strict=True)):
        record = None
        if recordings is not None:
            record = partial(_recorder, recordings, policy_record(policy, options, index), clock)
        members.append(
            Member(
                robot,
                policy,
                engine,
                partial(RemoteRobot, robot, clock, keys),
                clock,
                phase_ns=policy.spec.period_ns * index // len(policies),
                consent=True,
                record=record,
            )
        )
    return Fleet(members)


def _recorder(folder: Path, policy: PolicyRecord, clock: Clock, robot: RemoteRobot) -> Recorder:
    """Begin the recording of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    place = robot.endpoint.removeprefix("tcp://").replace(":", "-")
    run = RunRecord.of(robot.endpoint, robot.interface, str(this_machine()), clock)
    return Recorder(folder / f"{utc_name()}-{place}.mcap", run, policy)


def _watch(fleet: Fleet, console: Console, clock: Clock, seconds: float | None) -> None:
    """Show the robots and take the operator's numbers, until the time is over."""
    until_ns = clock.now_ns() + round(seconds * 1e9) if seconds is not None else sys.maxsize
    lines: dict[str, str] = {}
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while (left_ns := until_ns - clock.now_ns()) > 0:
            take_number(fleet, _wait_for_line(min(LOOK_S, left_ns * 1e-9)))
            if console.is_terminal:
                live.update(fleet_table(fleet.statuses), refresh=True)
                continue
            for status in fleet.statuses:
                line = member_line(status)
                if lines.get(status.endpoint) != line:
                    console.print(line, soft_wrap=True)
                    lines[status.endpoint] = line


def _wait_for_line(longest_s: float) -> str:
    """Wait for a line on the terminal. Return an empty one if none comes, or if several do.

    Several lines at once were pasted, and consent is typed.
    """
    # A process in the background would be suspended for reading its terminal.
    terminal = sys.stdin.fileno() if sys.stdin and sys.stdin.isatty() else -1
    watched = [terminal] if is_in_the_foreground(terminal) else []
    lines: list[bytes] = []
    while select.select(watched, [], [], 0 if lines else longest_s)[0]:
        if not is_in_the_foreground(terminal):
            return ""
        # Not sys.stdin: a line that waits in its buffer would arm a robot much later.
        lines.append(os.read(terminal, LONGEST_LINE))
        if not lines[-1]:  # Ctrl-D
            break
    is_typed = len(lines) == 1 and lines[0].endswith(b"\n")
    return lines[0].decode(errors="replace") if is_typed else ""


def take_number(fleet: Fleet, line: str) -> None:
    """Take a robot's number as the operator's consent to arm it again."""
    word = line.strip()
    if word.isdecimal() and 1 <= int(word) <= len(fleet.members):
        fleet.members[int(word) - 1].arm()
