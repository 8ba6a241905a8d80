"""Faults of commands on their way (rows 8, 9 and 26): lost, repeated, reordered or old."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from gatort.runtime.robot import Robot
from gatort.runtime.robots.wrapped import WrappedRobot
from gatort.runtime.safety import Command, State

from .judging import Deviation, InjectionResult, driven_steps, ms, must_go_on, must_stop
from .loop_bench import LoopBench
from .policy import RUNNING
from .sensors import good_ticks

MANY_TICKS = 60
"""Ticks of a run that a habit of the link must stop."""


class LosingLink(WrappedRobot):
    """A link that delivers a number of commands, loses the next ones, and then delivers again."""

    def __init__(self, robot: Robot, good: int, lost: int) -> None:
        super().__init__(robot)
        self.last_ns = 0
        """Instant at which the last command before the loss takes effect."""
        self.lost = 0
        """Number of commands lost so far."""
        self._good, self._to_lose = good, lost

    def command(self, command: Command) -> None:
        """See `Robot.command`."""
        self._good -= 1
        if self._good < 0 and self.lost < self._to_lose:
            self.lost += 1
            return
        if self._good >= 0:
            self.last_ns = command.apply_at_ns
        super().command(command)


def lost(commands: int, bench: LoopBench, seed: int) -> InjectionResult:
    """Lose commands; times count from the instant at which the last one took effect."""
    arm = bench.arm
    with bench.controller(arm) as robot:
        link = LosingLink(robot, good_ticks(seed), commands)
        drive = bench.drive(link)
    drive.require_fault(link.lost > 0)
    if commands > 1:
        return must_stop(arm, drive.began_ns, link.last_ns)

    steps = driven_steps(arm, drive)
    held_ns = steps.since(link.last_ns).first(State.HOLD)
    deviation = Deviation(wrong=None if held_ns else "the lost command left no trace")
    return must_go_on(steps, RUNNING, ms(link.last_ns, held_ns), deviation)


lost_once, lost_for_good = partial(lost, 1), partial(lost, 1_000)


class AlternatingLink(WrappedRobot):
    """A link that delivers a number of commands, and then only every second one."""

    def __init__(self, robot: Robot, good: int) -> None:
        super().__init__(robot)
        self.first_lost_ns = 0
        """Instant at which the first lost command would have taken effect."""
        self._good = good

    def command(self, command: Command) -> None:
        """See `Robot.command`."""
        self._good -= 1
        if self._good < 0 and self._good % 2:
            self.first_lost_ns = self.first_lost_ns or command.apply_at_ns
            return
        super().command(command)


def every_second_lost(bench: LoopBench, seed: int) -> InjectionResult:
    """Lose every second command. Times count from the instant of the first lost one's effect."""
    arm = bench.arm
    with bench.controller(arm) as robot:
        link = AlternatingLink(robot, good_ticks(seed))
        drive = bench.drive(link, MANY_TICKS)
    drive.require_fault(link.first_lost_ns > 0)
    arm.rest()
    safe_ns = arm.trace.since(drive.began_ns).first(State.SAFE)
    return must_stop(arm, drive.began_ns, link.first_lost_ns, safe_ns)


class RepeatingLink(WrappedRobot):
    """A link that delivers each command twice, and then the command before it."""

    def __init__(self, robot: Robot) -> None:
        super().__init__(robot)
        self.sent = 0
        """Number of commands of the controller."""
        self._before: Command | None = None

    def command(self, command: Command) -> None:
        """See `Robot.command`."""
        super().command(command)
        if self._before is not None:
            super().command(self._before)
            super().command(command)
        self._before = command
        self.sent += 1


def repeated(bench: LoopBench, seed: int) -> InjectionResult:
    """Repeat each command, and the one before it: nothing but the counters changes."""
    arm = bench.arm
    before = arm.counted("commands dropped")
    with bench.controller(arm) as robot:
        link = RepeatingLink(robot)
        drive = bench.drive(link, good_ticks(seed))
    result = must_go_on(driven_steps(arm, drive))
    # The counter is printed with the next change of state, which is stopping.
    if arm.counted("commands dropped") - before < link.sent - 1:
        return replace(result, wrong=result.wrong or "old commands were not counted")
    return result
