"""Faults of the policy (rows 4, 5, 6 and 19): late, hung, void or raising."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import groupby
from operator import itemgetter

import numpy as np

from gatort.runtime.clock import Clock
from gatort.runtime.context import Frame
from gatort.runtime.engines.engine import Engine, Mark, no_mark
from gatort.runtime.errors import DeviceError
from gatort.runtime.guard import Refusal
from gatort.runtime.safety import State
from gatort.runtime.spec import SEPARATOR_ID

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
from .loop_bench import MS, PERIOD_NS, LoopBench
from .sensors import good_ticks
from .trace import Excerpt

LATE_NS = 40 * MS
"""Longer than the 25 ms that an action may take, shorter than a tick."""
HUNG_NS = 400 * MS
RUNNING = (State.RUN, State.HOLD)

Spoil = Callable[[Frame, Clock], None]
"""Spoils a frame that the policy's own engine has finished."""


class FaultyEngine:
    """An engine that fails from one tick on."""

    def __init__(
        self, inner: Engine, clock: Clock, good_ticks: int, spoil: Spoil, *, once: bool = False
    ) -> None:
        """Wrap an engine.

        Args:
            inner: the policy's own.
            clock: times the fault.
            good_ticks: number of ticks before the fault.
            spoil: damage to each frame after them.
            once: only the first frame after them is spoilt.
        """
        self.name, self.stepwise = inner.name, inner.stepwise
        self.began_ns = 0
        """Instant at which the first bad tick reached the engine; 0 before."""
        self.bad_ticks = 0
        self._inner, self._clock, self._spoil = inner, clock, spoil
        self._good_ticks, self._once = good_ticks, once

    def see(self, frame: Frame) -> None:
        """See `Engine.see`."""
        self._inner.see(frame)

    def tick(self, frame: Frame, mark: Mark = no_mark) -> None:
        """See `Engine.tick`."""
        self._good_ticks -= 1
        if self._good_ticks >= 0 or (self._once and self.bad_ticks):
            self._inner.tick(frame, mark)
            return
        self.bad_ticks += 1
        self.began_ns = self.began_ns or self._clock.now_ns()
        self._inner.tick(frame, mark)
        self._spoil(frame, self._clock)

    def reset(self) -> None:
        """See `Engine.reset`."""
        self._inner.reset()


def _drive(
    bench: LoopBench, seed: int, spoil: Spoil, *, once: bool = False
) -> tuple[DrivenArm, FaultyEngine, Drive]:
    arm = bench.target
    made: list[FaultyEngine] = []

    def change(own: Engine) -> Engine:
        made.append(FaultyEngine(own, bench.clock, good_ticks(seed), spoil, once=once))
        return made[0]

    with bench.controller(arm) as robot:
        drive = bench.drive(robot, change_engine=change)
    drive.require_fault(made[0].bad_ticks > 0)
    return arm, made[0], drive


def _sleep(duration_ns: int, _: Frame, clock: Clock) -> None:
    clock.sleep_until_ns(clock.now_ns() + duration_ns)


# -- 4: late ---------------------------------------------------------------------------------------


def late(bench: LoopBench, seed: int) -> InjectionResult:
    """One pass takes 40 ms: its action is dropped, the last command is held for a tick."""
    arm, engine, drive = _drive(bench, seed, partial(_sleep, LATE_NS), once=True)
    deviation = compare_refusals(drive, {Refusal.LATE: 1})
    steps = driven_steps(arm, drive)
    held_ns = _longest_ns(steps, State.HOLD)
    if held_ns is None:
        deviation = replace(deviation, wrong="expected HOLD for at most a tick, found none")
    elif held_ns > PERIOD_NS:
        found = f"expected HOLD for at most a tick, found {held_ns * 1e-6:.0f} ms"
        deviation = replace(deviation, late=found)
    return must_go_on(steps, RUNNING, ms(engine.began_ns, drive.refused_ns()), deviation)


def _longest_ns(steps: Excerpt, wanted: State) -> int | None:
    """Return the longest time in a state, from its first step to its last; `None` without any."""
    seen = zip(steps.taken_ns.tolist(), steps.states, strict=True)
    runs = [
        [at_ns for at_ns, _ in run]
        for state, run in groupby(seen, key=itemgetter(1))
        if state is wanted
    ]
    return max((run[-1] - run[0] for run in runs), default=None)


# -- 5: hung ---------------------------------------------------------------------------------------


def hang(bench: LoopBench, seed: int) -> InjectionResult:
    """A pass does not return for eight ticks: the robot's own watchdog stops the arm."""
    arm, engine, drive = _drive(bench, seed, partial(_sleep, HUNG_NS), once=True)
    deviation = Deviation()
    if engine.bad_ticks > 1 or len(drive.ticks) > good_ticks(seed) + 2:
        deviation = Deviation(wrong="ticks were caught up after the hang")
    return must_stop(arm, drive.began_ns, engine.began_ns, deviation=deviation)


# -- 6: void ---------------------------------------------------------------------------------------


def _nan_logits(frame: Frame, _: Clock) -> None:
    frame.logits[len(frame.logits) // 2, 0] = np.nan


def _illegal_token(frame: Frame, _: Clock) -> None:
    frame.tokens[-1] = SEPARATOR_ID


def void(spoil: Spoil, bench: LoopBench, seed: int) -> InjectionResult:
    """From one tick on, the engine gives no valid action: the guard refuses each as a whole."""
    arm, engine, drive = _drive(bench, seed, spoil)
    deviation = compare_refusals(drive, {Refusal.ENGINE: 2})
    return must_stop(arm, drive.began_ns, engine.began_ns, drive.refused_ns(), deviation)


nan_logits = partial(void, _nan_logits)
illegal_token = partial(void, _illegal_token)


# -- 19: raising -----------------------------------------------------------------------------------


def _lose_device(_: Frame, __: Clock) -> None:
    raise DeviceError("CUDA error: an illegal memory access was encountered")


def device_lost(bench: LoopBench, seed: int) -> InjectionResult:
    """Inference raises an error that ends a GPU's context: the loop ends without a second call."""
    arm, engine, drive = _drive(bench, seed, _lose_device)
    deviation = Deviation()
    if not isinstance(drive.error, DeviceError) or engine.bad_ticks != 1:
        deviation = Deviation(wrong=f"expected an end without a retry, found {drive.error}")
    return must_stop(arm, drive.began_ns, engine.began_ns, deviation=deviation)
