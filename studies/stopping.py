"""The rule that ends a sequential study: every comparison has its answer.

It is asked after every trial, so that it counts on from the trial before.
"""

from __future__ import annotations

from collections.abc import Mapping

from .design import Design
from .findings import complete_layouts, differences_of, holm
from .record import TrialOutcome
from .schedule import Slot, schedule
from .sequential import sequential_p


class Stopping:
    """Layouts that count so far, and whether they decide a sequential study.

    Args:
        design: the study.
        outcomes: figures of the trials that count already, by the number of their slot.
    """

    def __init__(self, design: Design, outcomes: Mapping[int, TrialOutcome]) -> None:
        self._design = design
        self._slots = schedule(design)
        self._succeeded = {number: each.succeeded for number, each in outcomes.items()}
        self._differences: dict[str, list[int]] = {name: [] for name in design.others}
        self._counted = 0
        """Number of slots in the layouts that count."""
        self.is_decided = False
        """True if no further trial is needed. Never true for another test."""
        self._count()

    def add(self, slot: Slot, outcome: TrialOutcome) -> None:
        """Count a trial."""
        self._succeeded[slot.number] = outcome.succeeded
        self._count()

    def _count(self) -> None:
        """Count the layouts that are complete now, up to the first that is not."""
        variants = len(self._design.variants)
        new = list(complete_layouts(self._slots, variants, self._succeeded, self._counted))
        self._counted += variants * len(new)
        for variant, differences in self._differences.items():
            differences.extend(differences_of(new, self._design.reference, variant))
        if new and self._design.analysis.test == "sequential":
            adjusted = holm([sequential_p(each) for each in self._differences.values()])
            answered = [p <= self._design.analysis.significance for p in adjusted]
            self.is_decided = bool(answered) and all(answered)
