"""Faults of torques (row 7): over range, over rate, not finite, or sent without a guard."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.clock import Clock
from gatort.runtime.guard import Limit, Refusal
from gatort.runtime.inner_loop import Drop
from gatort.runtime.robot import Robot
from gatort.runtime.robots.wrapped import WrappedRobot
from gatort.runtime.safety import Command

from .arms import DrivenArm
from .drive import Drive
from .judging import (
    Deviation,
    InjectionResult,
    compare_refusals,
    driven_steps,
    ms,
    must_go_on,
    must_stop,
)
from .loop_bench import PERIOD_NS, LoopBench
from .policy import RUNNING
from .seams import change_actions
from .sensors import good_ticks


class FaultyActions:
    """Replaces a few of the policy's actions on their way to the guard."""

    def __init__(self, clock: Clock, good_ticks: int, asked: list[float]) -> None:
        """Plan the good ticks, and the values of `asked`: each goes to all actuators for a tick."""
        self.began_ns = 0
        """Instant of the first bad action; 0 before."""
        self._clock, self._good_ticks, self._asked = clock, good_ticks, list(asked)

    def __call__(self, action: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the action (A,) that the guard sees."""
        self._good_ticks -= 1
        if self._good_ticks >= 0 or not self._asked:
            return action
        self.began_ns = self.began_ns or self._clock.now_ns()
        return np.full_like(action, self._asked.pop(0))


def _drive(
    bench: LoopBench, seed: int, asked: list[float]
) -> tuple[DrivenArm, FaultyActions, Drive]:
    arm = bench.target
    actions = FaultyActions(bench.clock, good_ticks(seed), asked)
    with bench.controller(arm) as robot:
        drive = bench.drive(robot, prepare=lambda loop: change_actions(loop, actions))
    drive.require_fault(actions.began_ns > 0)
    return arm, actions, drive


def limited(limit: Limit, asked: list[float], bench: LoopBench, seed: int) -> InjectionResult:
    """The policy asks for too much: it is limited and flagged, and the arm goes on."""
    arm, actions, drive = _drive(bench, seed, asked)
    sent_ns = next((at_ns for at_ns, _ in drive.ticks if at_ns >= actions.began_ns), None)
    deviation = compare_refusals(drive, {})
    if not drive.guard.limited[limit]:
        deviation = Deviation(wrong=f"expected the guard to flag the {limit}")
    detected_ms = ms(actions.began_ns, sent_ns)
    return must_go_on(driven_steps(arm, drive), RUNNING, detected_ms, deviation)


over_range = partial(limited, Limit.RANGE, [1e6])
over_rate = partial(limited, Limit.RATE, [-30.0, 30.0])


def not_finite(value: float, bench: LoopBench, seed: int) -> InjectionResult:
    """The policy asks for NaN or inf: refused, not limited."""
    arm, actions, drive = _drive(bench, seed, [value] * 4)
    deviation = compare_refusals(drive, {Refusal.NOT_FINITE: 2})
    return must_stop(arm, drive.began_ns, actions.began_ns, drive.refused_ns(), deviation)


not_a_number = partial(not_finite, float("nan"))
infinite = partial(not_finite, float("inf"))


class UnguardedController(WrappedRobot):
    """A controller that sends good commands, and then values that a guard would refuse."""

    def __init__(self, robot: Robot, clock: Clock, good: int) -> None:
        super().__init__(robot)
        self.began_ns = 0
        """Instant of the first bad command; 0 before."""
        self._clock, self._good = clock, good

    def command(self, command: Command) -> None:
        """See `Robot.command`."""
        self._good -= 1
        if self._good < 0:
            self.began_ns = self.began_ns or self._clock.now_ns()
            # First beyond every range, then infinite: one is limited, the others are dropped.
            value = 1e6 if self._good == -1 else np.inf
            command = replace(command, values=np.full_like(command.values, value))
        super().command(command)


def unguarded(bench: LoopBench, seed: int) -> InjectionResult:
    """A controller without a guard commands too much and then inf: the robot limits and drops.

    The time starts one tick after the first bad command, because the second bad command is the
    first one that the robot drops.
    """
    arm = bench.arm
    before = arm.counted("commands dropped")
    with bench.controller(arm) as robot:
        controller = UnguardedController(robot, bench.clock, good_ticks(seed))
        drive = bench.drive(controller)
    drive.require_fault(controller.began_ns > 0)

    result = must_stop(arm, drive.began_ns, controller.began_ns + PERIOD_NS)
    if arm.counted("commands dropped") == before:
        return replace(result, wrong=f"expected commands dropped as {Drop.NOT_FINITE}")
    return result
