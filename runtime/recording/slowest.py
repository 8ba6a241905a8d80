"""The slowest ticks of a recording, and where their time went."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from .messages import TickMessage
from .reader import Recording


@dataclass(frozen=True, slots=True)
class SlowTick:
    """One tick and its time, stage by stage."""

    at_s: float
    """Time from the first message to the tick."""
    tick: TickMessage
    """The tick's own message."""
    stages_ms: dict[str, float]
    """Duration of each stage that the tick reached."""


def slowest_ticks(recording: Recording, count: int) -> list[SlowTick]:
    """Return the ticks that took longest, the slowest first.

    Args:
        recording: recording of a run; one of a robot alone has no ticks.
        count: largest number of ticks.
    """
    return heapq.nlargest(count, _ticks(recording), key=lambda slow: slow.tick.took_ns)


def _ticks(recording: Recording) -> Iterator[SlowTick]:
    first_ns = None
    for at_ns, _, message in recording.messages():
        first_ns = at_ns if first_ns is None else first_ns
        if not isinstance(message, TickMessage) or recording.policy is None:
            continue
        ends = zip(message.stamps_ns, message.stamps_ns[1:], strict=False)
        named = zip(recording.policy.stages, ends, strict=False)
        stages_ms = {name: (end - start) * 1e-6 for name, (start, end) in named}
        yield SlowTick((at_ns - first_ns) * 1e-9, message, stages_ms)
