"""Messages from a run to its console, and the two packets of the console to the run.

Each message is one packet of JSON. The console hands the same values on to its pages. Numbers that
are not finite become `null`: JSON has none.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct, field

from gatort.runtime.clock import wall_clock_ns
from gatort.runtime.facts import Fact

LARGEST_PACKET_BYTES: Final = 32_768
"""Longest packet of the link. A longer message is dropped and counted."""
LARGEST_PICTURE_BYTES: Final = 20_000
"""Most bytes of a picture's pixels, which base64 makes a third longer. A larger picture is
thinned."""

HELD: Final = b"held "
"""Beginning of a packet to the run: a page that holds it was heard. The instant follows, in ns on
the machine's monotonic clock."""
STOP: Final = b"stop "
"""Beginning of a packet to the run that the console has just interrupted. A clause follows: who
asked for the stop."""


LineKind = Literal["note", "armed", "state", "stop", "end"]
"""Kind of a line of the log, which the page marks."""


class ActuatorBar(Struct, frozen=True):
    """Actuator, as a bar on the page."""

    name: str
    unit: str
    low: float
    """Least value that a command may ask for."""
    high: float
    """Largest value that a command may ask for."""


class Opening(Struct, frozen=True, tag="opening"):
    """First message: everything about a run, or about a robot's process, that stays as it is."""

    kind: Literal["run", "robot"]
    """Process that the console shows and stops."""
    title: str
    """Bundle, engine and robot."""
    actuators: tuple[ActuatorBar, ...]
    stages: tuple[str, ...]
    """Names of a tick's stages, in their order; none at a robot, which has no ticks."""
    control_hz: float
    budget_ms: float
    """Longest duration of a tick that is no miss."""
    deadline_ms: float
    """Age of an observation at which the answer to it comes too late."""
    longest_s: float
    """Longest duration of the run; 0 for one without an end."""
    held: bool
    """True if a page must hold the run, and its loss stops the run."""


class Checklist(Struct, frozen=True, tag="checklist"):
    """Rows that the operator sees before consent."""

    facts: tuple[Fact, ...]


class Tick(Struct, frozen=True, tag="tick"):
    """One tick."""

    number: int
    """Number of deadlines since the start, skipped ones included."""
    at_ns: int
    """Instant at which the tick began, on the machine's monotonic clock."""
    took_ms: float
    """Duration, as far as the tick came."""
    lateness_ms: float
    """Time from the deadline to the wake-up."""
    stages_ms: list[float]
    """Duration of each stage (S,); 0 for a stage that a refused tick did not reach."""
    applied: list[float | None]
    """Values in effect on the actuators (A,); empty without an observation."""
    asked: list[float | None] = field(default_factory=list)
    """Action of the policy (A,); empty without a decision."""
    sent: list[float | None] = field(default_factory=list)
    """Command that the guard admitted (A,); empty if no command was sent."""
    refusal: str = ""
    """Reason why no command was sent; empty if one was."""


class CameraImage(Struct, frozen=True, tag="picture"):
    """A camera's picture, as the policy got it, perhaps with fewer pixels."""

    name: str
    """Observation key."""
    tick: int
    """Number of the tick that got it."""
    width: int
    height: int
    rgb: bytes
    """Pixels in rows, three bytes each."""


class Status(Struct, frozen=True, tag="status"):
    """A run at one instant, with counters since its start."""

    at_ns: int
    """Instant on the machine's monotonic clock."""
    state: str
    """State of guard or robot, whichever is further from RUN."""
    elapsed_s: float
    """Time since the first tick."""
    rate_hz: tuple[float, float, float]
    """Ticks a second: now, on average, in the worst second."""
    tick_ms: tuple[float, float, float]
    """p50, p99 and longest duration of a tick."""
    misses: int
    refused: dict[str, int]
    """Number of ticks without a command, by reason."""
    cause: str = ""
    """Sentence on the newest refusal, or on the end of the run."""
    successes: int = 0
    """Number of times that the task has succeeded."""
    task: bool = False
    """True if the robot has a task whose success can be expected."""
    facts: tuple[Fact, ...] = ()
    """Rows beside the figures: the age of each camera's newest picture, and a robot's counts."""
    recording_fault: str = ""
    """Reason why the recording is incomplete."""
    dropped: int = 0
    """Number of messages to the console that were lost."""


class Event(Struct, frozen=True, tag="event"):
    """Line of the log."""

    wall_s: float
    """Time since 1970 in UTC, for display alone."""
    sentence: str
    kind: LineKind = "note"

    @classmethod
    def now(cls, sentence: str, kind: LineKind) -> Event:
        """Return a line of this moment."""
        return cls(wall_clock_ns() * 1e-9, sentence, kind)

    @classmethod
    def change(cls, before: str, after: str, because: str | None = None) -> Event:
        """Return a line on a change of state, now.

        Args:
            before: state until now.
            after: new state.
            because: clause that says why; `None` if that is unknown.
        """
        why = f": {because}" if because is not None else ""
        return cls.now(f"{before.upper()} → {after.upper()}{why}", "state")


Message = Opening | Checklist | Tick | CameraImage | Status | Event
"""Message from a run to its console."""
