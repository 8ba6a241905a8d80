"""A console beside a robot's process. It loads no network library into that process."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from gatort.runtime.clock import Clock
from gatort.runtime.remote.server import RobotStatus
from gatort.runtime.robots.driver import Driver

from .flags import ConsoleFlags
from .link import ConsoleSettings, Say, started
from .robot_reporting import RobotReporter


@contextmanager
def console_of_robot(
    name: str, driver: Driver, clock: Clock, flags: ConsoleFlags, say: Say
) -> Iterator[Callable[[RobotStatus], None] | None]:
    """Start the console of a robot's process and say its URL. Yield its callback for each turn.

    Stop on a page is the robot's own button: SIGUSR1.

    Args:
        name: name of the robot.
        driver: the arm.
        clock: the driver's clock.
        flags: flags of the command. Without `--console`, yield `None`.
        say: prints a line on the terminal.

    Raises:
        ConfigError: the console cannot be started.
    """
    if (address := flags.address) is None:
        yield None
        return
    settings = ConsoleSettings(address, signal.SIGUSR1, repeats=True)
    with closing(started(settings, say)) as link:
        yield RobotReporter(link, name, driver, clock).look
