"""One run of the control loop in this process: its ticks, its end and the checks of both."""

from __future__ import annotations

from dataclasses import dataclass, field

from gatort.runtime.errors import GatortError, RobotError
from gatort.runtime.guard import Guard
from gatort.runtime.loop import ControlLoop, TickRecord
from gatort.runtime.wording import counted


class EndedEarlyError(RobotError):
    """A run ended before its fault could be injected or judged, as it does on a busy machine."""


class BenchFailedError(RobotError):
    """A part of the bench that stands in for hardware failed, so that gatort was not measured."""


@dataclass
class Drive:
    """A control loop that drove the arm, tick by tick."""

    loop: ControlLoop
    began_ns: int
    asked: int
    """Number of ticks that the loop was to run."""
    ticks: list[tuple[int, TickRecord]] = field(default_factory=list)
    """Each tick's end, in ns, and its record."""
    error: GatortError | None = None
    """Error that ended the loop before its last tick."""
    ended_ns: int = 0

    @property
    def guard(self) -> Guard:
        """Guard of the loop."""
        return self.loop.guard

    def require_fault(self, injected: bool) -> None:
        """Check that the run came as far as the fault.

        Raises:
            EndedEarlyError: it ended before, for example on a machine too busy for it.
        """
        if not injected:
            raise EndedEarlyError(
                f"the run ended after {counted(len(self.ticks), 'tick')}, before the fault: "
                f"{self._why}"
            )

    def require_end(self) -> None:
        """Check that the run took all of its ticks.

        Raises:
            EndedEarlyError: something ended it before.
        """
        if self.error or len(self.ticks) < self.asked:
            raise EndedEarlyError(
                f"expected a run of {counted(self.asked, 'tick')}, "
                f"found an end after {len(self.ticks)}: {self._why}"
            )

    @property
    def _why(self) -> str:
        return str(self.error or self.loop.refusal or "the robot's watchdog stopped it")

    def refused_ns(self) -> int | None:
        """Return the end of the first refused tick, in ns; `None` when every tick was admitted."""
        return next((at_ns for at_ns, tick in self.ticks if tick.refusal is not None), None)
