"""Probable cause of a slow tick, from the counters that stand beside it.

The engine does the same work in every tick of as many passes. A slow tick is compared with the
usual one of its run, stage by stage. The counters explain the time that it took longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from .messages import TickMessage

Cause = Literal[
    "usual", "pre-empted", "page fault", "machine paused", "camera", "robot", "waiting",
    "computing", "slowed", "slack", "unknown",
]  # fmt: skip
"""Probable cause of a slow tick (docs/recording.md)."""
_USUAL_SHARE: Final = 0.25
"""A tick that is longer than the usual one by no more than this share is usual."""
_USUAL_NS: Final = 1_000_000
"""Excess up to which a tick is usual, whatever its share."""
_FAULT_NS: Final = 500
"""Shortest time that a page takes which is touched for the first time."""
_ROBOT: Final = ("observe", "command")


@dataclass(frozen=True, slots=True)
class Typical:
    """The usual tick of a run."""

    tick_ns: float
    """Median duration of a tick."""
    stages_ns: Mapping[str, float]
    """Median duration of each stage."""
    passes: int
    """Median number of forward passes."""


@dataclass(frozen=True, slots=True)
class TimedTick:
    """One tick and its place in the run."""

    s: float
    """Time from the first tick to this one."""
    tick: TickMessage
    """Timing of the tick."""
    passes: int
    """Number of its forward passes over action tokens; 0 if it was not recorded."""
    late_ns: int
    """Time that was lost before the tick began: from the first deadline that it could have kept."""
    missed: bool
    """True if the tick took longer than the budget, skipped a deadline that it could have kept, or
    sent no command."""

    @property
    def lost_ns(self) -> int:
        """Time from the first deadline that the tick could have kept to its end."""
        return self.late_ns + self.tick.took_ns


def probable_cause(timed: TimedTick, stages: tuple[str, ...], typical: Typical) -> Cause:
    """Return the probable cause of a tick's duration.

    Args:
        timed: the tick.
        stages: name of the stage that ends at each of its stamps after the first.
        typical: the usual tick of the same run.
    """
    tick = timed.tick
    excess_ns = tick.took_ns - typical.tick_ns
    if max(excess_ns, timed.late_ns) <= max(_USUAL_NS, _USUAL_SHARE * typical.tick_ns):
        # On a busy machine, waiting for a core may be the usual.
        return "pre-empted" if 2 * _waited_ns(tick) >= tick.took_ns > _USUAL_NS else "usual"
    if not tick.cpu_ns:  # A recording of an earlier version, without counters.
        return "unknown"
    if timed.late_ns > excess_ns:
        return _before(tick, timed.late_ns)

    found = _taken(tick, excess_ns)
    if found is not None:
        return found
    stage = _longest(tick, stages, typical)
    if stage == "see":
        return "camera"
    if stage in _ROBOT:
        return "robot"
    return _computed(timed, excess_ns, typical)


def _before(tick: TickMessage, late_ns: int) -> Cause:
    """Return the cause of a tick that began late."""
    if 2 * tick.slack_waited_ns >= late_ns:
        return "pre-empted"
    # Deadlines are skipped before the loop sleeps: recording and display came too near to them. A
    # sleep that ends late skips none and computes nothing.
    is_slack = tick.skipped or 2 * tick.slack_cpu_ns >= late_ns
    return "slack" if is_slack else "machine paused"


def _taken(tick: TickMessage, excess_ns: float) -> Cause | None:
    """Return the cause if the core was taken from the thread, or its memory was not there."""
    waited_ns = _waited_ns(tick)
    if 2 * waited_ns >= excess_ns:
        return "pre-empted"
    if tick.disk_faults or 2 * _FAULT_NS * tick.page_faults >= excess_ns:
        return "page fault"
    # The thread neither waited for a core nor slept, and computed nothing: the core stood still.
    if not tick.slept and 2 * (tick.took_ns - tick.cpu_ns - waited_ns) >= excess_ns:
        return "machine paused"
    return None


def _waited_ns(tick: TickMessage) -> int:
    """Return the time for which a tick had no core, though it could have run."""
    # A kernel that does not count waits still counts the cores that were lost.
    return tick.waited_ns or (tick.took_ns - tick.cpu_ns if tick.preempted else 0)


def _longest(tick: TickMessage, stages: tuple[str, ...], typical: Typical) -> str:
    """Return the stage that exceeded its usual duration by most."""
    took_ns = dict(zip(stages, tick.stages_ns, strict=False))
    return max(took_ns, key=lambda name: took_ns[name] - typical.stages_ns[name], default="")


def _computed(timed: TimedTick, excess_ns: float, typical: Typical) -> Cause:
    """Return the cause of a stage of the policy that took long."""
    tick = timed.tick
    if tick.others_preempted:  # The engine's other threads share the pass.
        return "pre-empted"
    if tick.slept and 2 * (tick.took_ns - tick.cpu_ns) >= excess_ns:
        return "waiting"
    return "computing" if timed.passes > typical.passes else "slowed"
