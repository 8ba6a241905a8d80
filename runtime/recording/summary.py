"""Summary of a recording, counted from its messages: a file that was cut off has one too."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field

from gatort.runtime.telemetry import Misses

from .messages import FaultMessage, StateMessage, StepMessage, TickMessage
from .reader import Recording, Stamped


@dataclass(slots=True)
class RecordingSummary:
    """Counts and changes of state, message by message."""

    misses: Misses
    """Ticks over the budget and skipped deadlines."""
    control_hz: float | None = None
    """Ticks per second of the policy; `None` for a recording of the robot alone."""
    first_ns: int | None = None
    """Time of the first message; `None` before it."""
    last_ns: int = 0
    """Time of the last message."""
    ticks: int = 0
    """Number of ticks."""
    person_ticks: int = 0
    """Number of ticks in which a person had the arm."""
    takeovers: list[float] = field(default_factory=list)
    """Seconds from the first message to each time that a person took the arm."""
    refused: Counter[str] = field(default_factory=Counter)
    """Number of refused ticks for each reason."""
    states: list[tuple[float, str]] = field(default_factory=list)
    """Changes of state: seconds since the first message, and the state that began."""
    faults: list[tuple[float, str]] = field(default_factory=list)
    """Faults: seconds since the first message, and the sentence."""
    _by_person: bool = False
    """True if a person had the arm in the last tick."""

    @property
    def seconds(self) -> float:
        """Time from the first message to the last."""
        return (self.last_ns - self.first_ns) * 1e-9 if self.first_ns is not None else 0.0

    @property
    def run_s(self) -> float:
        """Duration of the run, as its own report counts it: finished ticks on the robot's side.

        A recording of the robot alone lasts from the first message to the last.
        """
        return self.ticks / self.control_hz if self.control_hz is not None else self.seconds

    def take(self, stamped: Stamped) -> None:
        """Count one message."""
        if self.first_ns is None:
            self.first_ns = stamped.at_ns
        self.last_ns = stamped.at_ns

        match stamped.message:
            case TickMessage() as tick:
                self._count(tick)
            case StateMessage(guard=guard, robot=robot):
                self._enter(f"guard {guard}, robot {robot}")
            case StepMessage(state=state):
                self._enter(f"robot {state}")
            case FaultMessage(component=component, sentence=sentence):
                self.faults.append((self.seconds, f"{component}: {sentence}"))

    def _count(self, tick: TickMessage) -> None:
        self.ticks += 1
        self.misses.woke(tick.skipped)
        self.misses.ended(tick.took_ns)
        if tick.by_person:
            if not self._by_person:
                self.takeovers.append(self.seconds)
            self.person_ticks += 1
        self._by_person = tick.by_person
        if tick.reason:
            self.refused[tick.reason] += 1

    def _enter(self, state: str) -> None:
        if not self.states or self.states[-1][1] != state:
            self.states.append((self.seconds, state))


def summarise(recording: Recording) -> RecordingSummary:
    """Read a recording as far as it goes and count its messages.

    A recording of the robot alone has no period, so none of its ticks is a miss.
    """
    spec = recording.policy.spec if recording.policy else None
    summary = RecordingSummary(
        Misses(spec.period_ns if spec else sys.maxsize), spec.control_hz if spec else None
    )
    for stamped in recording.messages():
        summary.take(stamped)
    return summary
