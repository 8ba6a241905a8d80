"""Before an arm moves: the checklist on the screen, and the operator's answer."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from rich.console import Console

from gatort.runtime.checklist import checklist
from gatort.runtime.errors import ConfigError
from gatort.runtime.live_run import LiveRun
from gatort.runtime.remote.client import RemoteRobot
from gatort.runtime.wording import counted

from .report import fact_table
from .run_report import cameras_of, remote_of


def show_checklist(console: Console, live: LiveRun, recording: Path) -> None:
    """Print the checklist of an arm at an address. An arm in this process has none."""
    remote = remote_of(live.robot)
    if remote is None:
        return
    facts = list(checklist(live, remote, cameras_of(live.robot), recording))
    console.print(fact_table(facts))
    if alarms := sum(bool(fact.attention) for fact in facts):
        console.print(f"{counted(alarms, 'row')} marked ! above: look before the arm moves")


def require_consent(robot: RemoteRobot, *, is_given: bool) -> None:
    """Check that an arm takes consent to motion, and ask for it on the terminal.

    Args:
        robot: the arm.
        is_given: consent was given with a flag: do not ask.

    Raises:
        RobotError: the arm refuses consent.
        ConfigError: the answer is not yes.
    """
    robot.require_armable()
    if is_given:
        return
    answer = ""
    with suppress(EOFError):  # Ctrl-D is not consent either.
        answer = input(f"The arm at {robot.endpoint} will move. Arm it? [y/N] ")
    if answer.strip().lower() not in ("y", "yes"):
        raise ConfigError(f"{robot.endpoint} was not armed: answer y to arm")
