"""Outcomes of trials that nobody ran."""

from __future__ import annotations

from gatort.studies.record import TrialOutcome


def outcome(*, succeeded: bool) -> TrialOutcome:
    return TrialOutcome(
        succeeded=succeeded,
        reached_s={},
        seconds=5.0,
        ticks=100,
        sparc=None,
        refused=0,
        misses=0,
        dropped=0,
        lost=0,
        stop=None,
    )
