"""Judges one injection by the arm's trace and by the guard's counters.

Two kinds of deviation are kept apart. Some are wrong on any machine: a torque out of range, a
missing message, an arm that goes on although it must stop. Others follow from lateness, such
as HOLD in a run that must go on: a machine that pauses explains them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gatort.runtime.guard import Refusal
from gatort.runtime.safety import STOPPED, State

from .arms import DrivenArm
from .drive import Drive, EndedEarlyError
from .trace import Excerpt

BY_LATENESS = frozenset({Refusal.LATE, Refusal.SKIPPED, Refusal.OBSERVATION, Refusal.STALE})
"""Reasons for which a late machine refuses ticks without any other fault."""


@dataclass(frozen=True, slots=True)
class InjectionResult:
    """Times and deviations of one injection."""

    detected_ms: float | None = None
    """Time from the fault to the first reaction; `None` where there is nothing to time. ms"""
    safe_ms: float | None = None
    """Time from the fault to the safe command in effect; `None` where the arm must go on. ms"""
    wrong: str | None = None
    """Deviation that no lateness explains, as a sentence."""
    late: str | None = None
    """Deviation that follows from lateness, as a sentence; a machine that pauses explains it."""
    unmeasured: str | None = None
    """Failure of the bench, as a sentence. It says nothing about gatort."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """A sentence on a run's counters, and whether lateness explains it."""

    wrong: str | None = None
    late: str | None = None


def ms(from_ns: int, to_ns: int | None) -> float | None:
    """Return a duration in ms; `None` when there is no end."""
    return None if to_ns is None else (to_ns - from_ns) * 1e-6


def must_stop(
    arm: DrivenArm,
    began_ns: int,
    fault_ns: int,
    detected_ns: int | None = None,
    deviation: Deviation | None = None,
) -> InjectionResult:
    """Judge a trace that has to end in the safe command: RUN, perhaps HOLD, SAFE, LATCHED.

    Args:
        arm: the arm whose trace is judged.
        began_ns: an instant before the session was armed.
        fault_ns: when the fault began.
        detected_ns: when it was noticed; the first step after the fault that is not RUN if absent.
        deviation: found in the run's counters.

    Raises:
        EndedEarlyError: the arm had stopped before the fault.
    """
    arm.rest()
    armed_ns = arm.trace.since(began_ns).first(State.RUN) or began_ns
    steps = arm.trace.since(armed_ns)
    if steps.until(fault_ns).first(*STOPPED):
        raise EndedEarlyError("the arm had stopped before the fault")

    after = steps.since(fault_ns)
    if detected_ns is None:
        detected_ns = after.first(State.HOLD, State.SAFE, State.LATCHED)
    counted = deviation or Deviation()
    wrong = steps.fault() or counted.wrong
    if steps.sequence[-2:] != [State.SAFE, State.LATCHED]:
        wrong = f"expected the arm to end in SAFE and LATCHED, found {words(steps.sequence)}"
    elif after.safe_ns is None:
        wrong = "the safe command was never in effect"
    elif detected_ns is None:
        wrong = "nothing noticed the fault"
    return InjectionResult(
        ms(fault_ns, detected_ns), ms(fault_ns, after.safe_ns), wrong, counted.late
    )


def must_go_on(
    steps: Excerpt,
    allowed: Sequence[State] = (State.RUN,),
    detected_ms: float | None = None,
    deviation: Deviation | None = None,
) -> InjectionResult:
    """Judge steps from arming to the end of a run that a fault must not have stopped.

    Any other state than the allowed ones follows from lateness, because no fault here asks for it.
    """
    counted = deviation or Deviation()
    wrong = steps.fault() or counted.wrong
    late = counted.late
    if not steps.states:
        wrong = "the arm took no step"
    elif any(state not in allowed for state in steps.sequence):
        late = f"expected the arm in {words(allowed)}, found {words(steps.sequence)}"
    return InjectionResult(detected_ms, None, wrong, late)


def driven_steps(arm: DrivenArm, drive: Drive) -> Excerpt:
    """Return the arm's steps from arming until the control loop had run its last tick.

    Raises:
        EndedEarlyError: the loop was stopped before it had run all its ticks.
    """
    drive.require_end()
    arm.rest()
    steps = arm.trace.since(drive.began_ns)
    armed_ns = steps.first(State.RUN) or drive.began_ns
    last_ns = drive.ticks[-1][0] if drive.ticks else drive.ended_ns
    return steps.since(armed_ns).until(last_ns)


def compare_refusals(drive: Drive, expected: Mapping[Refusal, int]) -> Deviation:
    """Compare a guard's refused ticks with the expected ones.

    A machine that pauses may cause further refusals. They count as late and not as wrong, and may
    end the run before the expected ones have come.
    """
    found = drive.guard.refused
    if dict(found) == dict(expected):
        return Deviation()
    sentence = f"expected refused ticks {counts(expected)}, found {counts(found)}"
    if any(found[reason] > expected.get(reason, 0) for reason in BY_LATENESS):
        return Deviation(late=sentence)
    return Deviation(wrong=sentence)


def counts(refused: Mapping[Refusal, int]) -> str:
    """Return refused ticks by reason, in words."""
    return ", ".join(f"{count} × {reason}" for reason, count in refused.items()) or "none"


def words(states: Sequence[State]) -> str:
    """Return states separated by commas."""
    return ", ".join(states) or "nothing"


def seeded(seed: int) -> np.random.Generator:
    """Return the random numbers of one injection."""
    return np.random.default_rng(seed)
