"""The verdicts, the JSON form and the exit status of injected faults."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from gatort.runtime.exit_status import ExitStatus
from gatort.runtime.machine import this_machine
from gatort.runtime.witness import WitnessReport

from .row_result import RowResult, Verdict


@dataclass(frozen=True, slots=True)
class FaultReport:
    """Results of all chosen rows, and the machine's pauses."""

    results: tuple[RowResult, ...]
    witness: WitnessReport
    """Witness alone on the machine, before the first row."""
    not_granted: tuple[str, ...] = ()
    """Requests for scheduling that the operating system refused."""

    def count(self, verdict: Verdict) -> int:
        """Return the number of rows with a verdict."""
        return sum(1 for each in self.results if each.verdict == verdict)

    @property
    def status(self) -> ExitStatus:
        """Exit status: 0 all held, 1 a row is broken, 3 none broken but one inconclusive."""
        if self.count("broken"):
            return ExitStatus.NEGATIVE
        return ExitStatus.INCONCLUSIVE if self.count("inconclusive") else ExitStatus.DONE

    def record(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "held": self.count("held"),
            "inconclusive": self.count("inconclusive"),
            "broken": self.count("broken"),
            "rows": [each.record() for each in self.results],
            "witness": asdict(self.witness),
            "not_granted": list(self.not_granted),
            "machine": asdict(this_machine()),
        }
