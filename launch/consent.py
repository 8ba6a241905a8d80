"""Before an arm moves: the checklist on the screen, and the operator's answer."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from rich.console import Console

from gatort.runtime.checklist import POLICY, checklist
from gatort.runtime.errors import ConfigError
from gatort.runtime.facts import Fact
from gatort.runtime.live_run import LiveRun
from gatort.runtime.remote.client import RemoteRobot, remote_of
from gatort.runtime.robots.cameras.rig import cameras_of
from gatort.runtime.wording import counted
from gatort.sim.way_home import WayHome

from .report import fact_table


def show_checklist(
    console: Console,
    live: LiveRun,
    recording: Path,
    way: WayHome | None = None,
    *,
    blind: bool = False,
) -> list[Fact]:
    """Print the checklist, and check that the arm may move. In a dry run it need not.

    Return the rows.

    An arm in this process has no row but that of its way home. A blind list leaves out the policy.

    Raises:
        RobotError: the arm refuses consent.
        ConfigError: an obstacle is on its way home.
    """
    remote = remote_of(live.robot)
    facts = [] if remote is None else [*checklist(live, remote, cameras_of(live.robot), recording)]
    if blind:
        facts = [fact for fact in facts if fact.name != POLICY]
    if way is not None:
        facts.append(way.fact)
    if facts:
        console.print(fact_table(facts))
    if not live.is_dry:
        if remote is not None:
            remote.require_armable()
        if way is not None:
            way.require_free()
    if alarms := sum(bool(fact.attention) for fact in facts):
        console.print(f"{counted(alarms, 'row')} marked ! above: look before the arm moves")
    return facts


def agrees(question: str) -> bool:
    """Ask a question on the terminal. Return true if the answer is yes."""
    answer = ""
    with suppress(EOFError):  # Ctrl-D is not consent either.
        answer = input(f"{question} [y/N] ")
    return answer.strip().lower() in ("y", "yes")


def require_consent(robot: RemoteRobot, *, is_given: bool) -> None:
    """Ask for consent to motion on the terminal.

    Args:
        robot: the arm.
        is_given: consent was given with a flag: do not ask.

    Raises:
        ConfigError: the answer is not yes.
    """
    if is_given:
        return
    if not agrees(f"The arm at {robot.endpoint} will move. Arm it?"):
        raise ConfigError(f"{robot.endpoint} was not armed: answer y to arm")
