"""Faults of what is read and what is decided: sensors, policy and torques (rows 1 to 7 and 19)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import groupby
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.clock import MonotonicClock
from gatort.runtime.context import Frame
from gatort.runtime.engines.engine import (
    Engine,
    Mark,
    no_mark,
)
from gatort.runtime.errors import DeviceError
from gatort.runtime.guard import (
    Limit,
    Refusal,
)
from gatort.runtime.inner_loop import Drop
from gatort.runtime.loop import ControlLoop
from gatort.runtime.remote.client import RemoteRobot
from gatort.runtime.safety import (
    Command,
    State,
)
from gatort.runtime.spec import SEPARATOR_ID

from .arm import SensorFault
from .bench import (
    MS,
    PERIOD_NS,
    Arm,
    Bench,
    Drive,
    Outcome,
    driven_steps,
    ms,
    must_go_on,
    must_stop,
    seeded,
)
from .trace import Excerpt

LATE_NS = 40 * MS
"""Longer than the 25 ms that an action may take, shorter than a tick."""
HUNG_NS = 400 * MS
GOOD_TICKS = 6
RUNNING = (State.RUN, State.HOLD)


def _good_ticks(seed: int) -> int:
    return GOOD_TICKS + int(seeded(seed).integers(10))


# -- 1 to 3: sensors -----------------------------------------------------------------------------------------------


def sensor(fault: SensorFault, bench: Bench, seed: int) -> Outcome:
    """A sensor fails in the middle of a run.

    A frozen sensor counts from its last good reading, which stood for a whole tick before anyone could know; what is
    absent or wrong counts from the first reading that was due.
    """
    arm = bench.ask_sensors(fault, _good_ticks(seed))
    with bench.controller(arm, RemoteRobot) as robot:
        drive = bench.drive(robot)
    sensors = arm.sensors
    drive.require_fault(sensors.began_ns > 0)
    fault_ns = sensors.last_good_ns if fault.endswith("frozen") else sensors.began_ns
    outcome = must_stop(arm, drive.began_ns, fault_ns, drive.refused_ns())
    wrong = outcome.wrong
    if fault.endswith("absent"):
        # Waiting takes so long that the robot's watchdog may come before the second refusal.
        if not drive.guard.refused[Refusal.OBSERVATION]:
            wrong = "no observation was refused"
    elif drive.guard.refused[Refusal.OBSERVATION] < 2:
        wrong = f"expected two refused observations, {_refused(drive)}"
    elif any(at_ns > sensors.began_ns and tick.decision is not None for at_ns, tick in drive.ticks):
        wrong = "the policy was asked about a bad observation"
    return replace(outcome, wrong=wrong)


def _refused(drive: Drive) -> str:
    return "found " + (
        ", ".join(f"{count}× {reason}" for reason, count in drive.guard.refused.items()) or "none"
    )


# -- 4 to 6 and 19: the policy -------------------------------------------------------------------------------------


class FaultyEngine:
    """An engine that does something wrong from one tick on."""

    def __init__(
        self, inner: Engine, good_ticks: int, fault: Callable[[Frame], None], *, once: bool = False
    ) -> None:
        """Wrap an engine; `fault` sees each finished frame after so many good ones, or the next one alone."""
        self.name, self.stepwise = inner.name, inner.stepwise
        self.began_ns = 0
        """When the first bad tick reached the engine; 0 before."""
        self.bad_ticks = 0
        self._inner, self._good_ticks, self._fault, self._once = inner, good_ticks, fault, once
        self._clock = MonotonicClock()

    def tick(self, frame: Frame, mark: Mark = no_mark) -> None:
        """See `Engine.tick`."""
        self._good_ticks -= 1
        if self._good_ticks >= 0 or (self._once and self.bad_ticks):
            self._inner.tick(frame, mark)
            return
        self.bad_ticks += 1
        self.began_ns = self.began_ns or self._clock.now_ns()
        self._inner.tick(frame, mark)
        self._fault(frame)

    def reset(self) -> None:
        """See `Engine.reset`."""
        self._inner.reset()


def _drive_engine(
    bench: Bench, seed: int, fault: Callable[[Frame], None], *, once: bool = False
) -> tuple[Arm, FaultyEngine, Drive]:
    arm = bench.target
    engine = FaultyEngine(bench.policy.engine, _good_ticks(seed), fault, once=once)
    with bench.controller(arm, RemoteRobot) as robot:
        drive = bench.drive(robot, engine=engine)
    drive.require_fault(engine.bad_ticks > 0)
    return arm, engine, drive


def _sleep(duration_ns: int, _: Frame) -> None:
    clock = MonotonicClock()
    clock.sleep_until_ns(clock.now_ns() + duration_ns)


def late(bench: Bench, seed: int) -> Outcome:
    """One pass takes 40 ms: its action is dropped, the last command is held for a tick, and all goes on."""
    arm, engine, drive = _drive_engine(bench, seed, partial(_sleep, LATE_NS), once=True)
    wrong = None
    if dict(drive.guard.refused) != {Refusal.LATE: 1}:
        wrong = f"expected one late action, {_refused(drive)}"
    steps = driven_steps(arm, drive)
    held_ns = _longest_ns(steps, State.HOLD)
    if held_ns is None:
        wrong = wrong or "expected HOLD for at most a tick, found none"
    elif held_ns > PERIOD_NS:
        wrong = wrong or f"expected HOLD for at most a tick, found {held_ns * 1e-6:.0f} ms"
    return must_go_on(steps, RUNNING, ms(engine.began_ns, drive.refused_ns()), wrong)


def _longest_ns(steps: Excerpt, wanted: State) -> int | None:
    """The longest time for which a state was seen, from its first step to its last; none when it never was."""
    seen = zip(steps.taken_ns.tolist(), steps.states, strict=True)
    runs = [
        [at_ns for at_ns, _ in run]
        for state, run in groupby(seen, key=itemgetter(1))
        if state is wanted
    ]
    return max((run[-1] - run[0] for run in runs), default=None)


def hang(bench: Bench, seed: int) -> Outcome:
    """A pass does not return for eight ticks: the robot's own watchdog stops the arm."""
    arm, engine, drive = _drive_engine(bench, seed, partial(_sleep, HUNG_NS), once=True)
    outcome = must_stop(arm, drive.began_ns, engine.began_ns)
    if engine.bad_ticks > 1 or len(drive.ticks) > _good_ticks(seed) + 2:
        return replace(outcome, wrong="ticks were caught up after the hang")
    return outcome


def _nan_logits(frame: Frame) -> None:
    frame.logits[len(frame.logits) // 2, 0] = np.nan


def _illegal_token(frame: Frame) -> None:
    frame.tokens[-1] = SEPARATOR_ID


def void(fault: Callable[[Frame], None], bench: Bench, seed: int) -> Outcome:
    """From one tick on, what the engine gives is no action: each is void as a whole."""
    arm, engine, drive = _drive_engine(bench, seed, fault)
    outcome = must_stop(arm, drive.began_ns, engine.began_ns, drive.refused_ns())
    if drive.guard.refused[Refusal.ENGINE] != 2:
        return replace(outcome, wrong=f"expected two void actions, {_refused(drive)}")
    return outcome


nan_logits = partial(void, _nan_logits)
illegal_token = partial(void, _illegal_token)


def _lose_device(_: Frame) -> None:
    raise DeviceError("CUDA error: an illegal memory access was encountered")


def device_lost(bench: Bench, seed: int) -> Outcome:
    """Inference raises what ends a GPU's context: the loop ends at once, and nothing is asked of the engine again."""
    arm, engine, drive = _drive_engine(bench, seed, _lose_device)
    outcome = must_stop(arm, drive.began_ns, engine.began_ns)
    if not isinstance(drive.error, DeviceError) or engine.bad_ticks != 1:
        return replace(outcome, wrong=f"expected an end without a retry, found {drive.error}")
    return outcome


# -- 7: torques ----------------------------------------------------------------------------------------------------


class FaultyTokenizer:
    """A tokenizer whose actions are changed on their way to the guard; everything else is its own."""

    def __init__(self, loop: ControlLoop, good_ticks: int, actions: list[float]) -> None:
        """Wrap the loop's; each of `actions` is asked of every actuator for a tick, after so many good ones."""
        self._inner, self._good_ticks, self._actions = loop.decoder.tokenizer, good_ticks, actions
        self.encode = self._inner.encode
        self.began_ns = 0
        """When the first bad action was decided; 0 before."""
        self._clock = MonotonicClock()

    def decode_action(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """See `Tokenizer.decode_action`."""
        action = self._inner.decode_action(tokens)
        self._good_ticks -= 1
        if self._good_ticks < 0 and self._actions:
            self.began_ns = self.began_ns or self._clock.now_ns()
            action[:] = self._actions.pop(0)
        return action


def _drive_torques(
    bench: Bench, seed: int, actions: list[float]
) -> tuple[Arm, FaultyTokenizer, Drive]:
    arm = bench.target
    made: list[FaultyTokenizer] = []

    def prepare(loop: ControlLoop) -> None:
        made.append(FaultyTokenizer(loop, _good_ticks(seed), actions))
        loop.decoder.tokenizer = made[0]  # type: ignore[assignment]  # the decoder calls these two

    with bench.controller(arm, RemoteRobot) as robot:
        drive = bench.drive(robot, prepare=prepare)
    drive.require_fault(made[0].began_ns > 0)
    return arm, made[0], drive


def limited(limit: Limit, actions: list[float], bench: Bench, seed: int) -> Outcome:
    """The policy asks for too much: it is limited and flagged, nothing else changes, and all goes on."""
    arm, tokenizer, drive = _drive_torques(bench, seed, list(actions))
    sent_ns = next((at_ns for at_ns, tick in drive.ticks if at_ns > tokenizer.began_ns), None)
    wrong = None if drive.guard.limited[limit] else f"expected the guard to flag the {limit}"
    if drive.guard.refused:
        wrong = f"expected no refused tick, {_refused(drive)}"
    return must_go_on(driven_steps(arm, drive), RUNNING, ms(tokenizer.began_ns, sent_ns), wrong)


over_range = partial(limited, Limit.RANGE, [1e6])
over_rate = partial(limited, Limit.RATE, [-30.0, 30.0])


def not_finite(value: float, bench: Bench, seed: int) -> Outcome:
    """The policy asks for NaN or inf: refused, not limited."""
    arm, tokenizer, drive = _drive_torques(bench, seed, [value] * 4)
    outcome = must_stop(arm, drive.began_ns, tokenizer.began_ns, drive.refused_ns())
    if drive.guard.refused[Refusal.NOT_FINITE] != 2:
        return replace(outcome, wrong=f"expected two refused actions, {_refused(drive)}")
    return outcome


class UnguardedRobot(RemoteRobot):
    """A controller without a guard: after so many commands it sends what no guard would let through."""

    good = GOOD_TICKS
    began_ns = 0

    def command(self, command: Command) -> None:
        """See `Robot.command`."""
        self.good -= 1
        if self.good < 0:
            self.began_ns = self.began_ns or self._clock.now_ns()
            # First beyond every range, then infinite: one is limited, the other dropped.
            value = 1e6 if self.good == -1 else np.inf
            command = replace(command, values=np.full_like(command.values, value))
        super().command(command)


def unguarded(bench: Bench, seed: int) -> Outcome:
    """A controller without a guard asks for too much and then for inf: the robot's side limits and drops."""
    arm = bench.arm
    with bench.controller(arm, UnguardedRobot) as robot:
        robot.good = _good_ticks(seed)
        before = arm.counted("commands dropped")
        drive = bench.drive(robot)
    drive.require_fault(robot.began_ns > 0)
    outcome = must_stop(arm, drive.began_ns, robot.began_ns + PERIOD_NS)
    if arm.counted("commands dropped") == before:
        return replace(outcome, wrong=f"expected commands dropped as {Drop.NOT_FINITE}")
    return outcome
