"""The verdict on a row: held, broken, or inconclusive because the machine paused or a part of the
bench failed.

A time beyond its bound is inconclusive when the witness saw a pause at least as long as the excess.
A deviation that follows from lateness needs a pause of `EXPLAINING_MS`. Everything else that is
wrong is broken on any machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

from gatort.runtime.safety import COMMAND_MARGIN_NS
from gatort.runtime.witness import WitnessReport

from .judging import InjectionResult
from .rows import Fault, Row

EXPLAINING_MS = COMMAND_MARGIN_NS * 1e-6
"""Shortest pause that explains HOLD: a command may come this much later than its period. ms"""

Verdict = Literal["held", "inconclusive", "broken"]


@dataclass(frozen=True, slots=True)
class RowResult:
    """All injections of one row, and the pauses of the machine meanwhile."""

    row: Row
    injections: tuple[tuple[Fault, InjectionResult], ...]
    witness: WitnessReport | None = None
    """Report with the longest pause, of those before all rows and beside this one."""

    @property
    def detections_ms(self) -> list[float]:
        """Times to detection, in ms, of the injections that have one."""
        return [each.detected_ms for _, each in self.injections if each.detected_ms is not None]

    @property
    def safes_ms(self) -> list[float]:
        """Times to the safe command, in ms, of the injections that must end in it."""
        return [each.safe_ms for _, each in self.injections if each.safe_ms is not None]

    @property
    def broken(self) -> list[str]:
        """Sentences on everything that the machine does not explain."""
        wrong = [f"{fault.name}: {each.wrong}" for fault, each in self.injections if each.wrong]
        late = [sentence for sentence, pause_ms in self._late() if not self._explains(pause_ms)]
        return list(dict.fromkeys(wrong + late))

    @property
    def inconclusive(self) -> list[str]:
        """Sentences on everything that the machine's pauses or a failed bench explain."""
        late = [sentence for sentence, pause_ms in self._late() if self._explains(pause_ms)]
        unmeasured = [
            f"{fault.name}: {each.unmeasured}" for fault, each in self.injections if each.unmeasured
        ]
        return list(dict.fromkeys(unmeasured + late))

    @property
    def verdict(self) -> Verdict:
        """Worst judgement on any injection of the row."""
        if self.broken:
            return "broken"
        return "inconclusive" if self.inconclusive else "held"

    def _explains(self, pause_ms: float) -> bool:
        return self.witness is not None and self.witness.pause_ms >= pause_ms

    def _late(self) -> Iterator[tuple[str, float]]:
        """Yield each deviation in time, and the shortest pause that would explain it in ms."""
        for fault, each in self.injections:
            if each.late:
                yield f"{fault.name}: {each.late}", EXPLAINING_MS
        for measured, times_ms, bound_ms in (
            (self.row.measured, self.detections_ms, self.row.detection_ms),
            ("safe torque", self.safes_ms, self.row.safe_ms),
        ):
            if bound_ms is not None and times_ms and max(times_ms) > bound_ms:
                sentence = f"{measured}: {max(times_ms):.1f} ms, more than {bound_ms:g}"
                yield sentence, max(times_ms) - bound_ms

    def record(self) -> dict[str, Any]:
        """Return the JSON form."""
        injections = [
            {"component": fault.component, "type": fault.type, **asdict(each)}
            for fault, each in self.injections
        ]
        return {
            "row": self.row.number,
            "expected": self.row.expected,
            "measured": self.row.measured,
            "bound": {"detection_ms": self.row.detection_ms, "safe_ms": self.row.safe_ms},
            "detection_ms": _p50_max(self.detections_ms),
            "safe_ms": _p50_max(self.safes_ms),
            "verdict": self.verdict,
            "broken": self.broken,
            "inconclusive": self.inconclusive,
            "witness": asdict(self.witness) if self.witness is not None else None,
            "injections": injections,
        }


def _p50_max(times_ms: list[float]) -> dict[str, float] | None:
    return {"p50": median(times_ms), "max": max(times_ms)} if times_ms else None
