"""A console beside a run, from its first line to its last."""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from gatort.runtime.facts import Fact
from gatort.runtime.live_run import LiveRun
from gatort.runtime.remote.client import remote_of

from .flags import RunConsoleFlags
from .link import ConsoleSettings, Say, started
from .messages import Event
from .reporting import RunReporter


@contextmanager
def console_beside(
    live: LiveRun, title: str, flags: RunConsoleFlags, say: Say
) -> Iterator[RunReporter | None]:
    """Start a console and say its URL. Wait for a page where one must hold the run.

    Args:
        live: run that has not begun.
        title: bundle, engine and robot.
        flags: flags of the command. Without `--console`, yield `None`.
        say: prints a line on the terminal.

    Raises:
        ConfigError: the console cannot be started.
    """
    if (address := flags.address) is None:
        yield None
        return
    link = started(ConsoleSettings(address), say)
    try:
        reporter = RunReporter(link, live, title=title, must_be_held=flags.stop_when_unwatched)
        if flags.stop_when_unwatched:
            say("waiting until a page holds the run: press Hold the run there")
            link.wait_until_held()
        yield reporter
    finally:  # Nothing to close after a run: its reporter has told the end.
        link.close(Event.now("the command ended before the run began", "end"))
    if link.is_lost:
        say("the console's process ended before the run did")


@contextmanager
def consent_told(
    reporter: RunReporter | None, live: LiveRun, facts: Sequence[Fact], *, by_flag: bool
) -> Iterator[None]:
    """Show the checklist on the page while the context asks for consent. Then tell who gave it.

    Raises:
        ConfigError: no page holds the run any more.
    """
    if reporter is not None:
        reporter.show(facts)
    yield
    if reporter is not None:
        reporter.armed(_consent_sentence(live, by_flag=by_flag))


def _consent_sentence(live: LiveRun, *, by_flag: bool) -> str:
    if live.is_dry:
        return "a dry run: nothing is armed"
    if remote_of(live.robot) is None:
        return "a simulated arm in the run's own process: no consent is needed"
    user = getpass.getuser()
    return f"armed by {user} with --arm" if by_flag else f"armed by {user} at the terminal"


def console_record(reporter: RunReporter | None) -> dict[str, Any]:
    """Return the JSON form, empty without a console."""
    if reporter is None:
        return {}
    return {"console": {"stopped_by": reporter.stopped_by, "dropped": reporter.dropped}}
