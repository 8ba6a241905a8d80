"""The cycles of a Franka arm, in the file to which its inner loop's process writes each of them.

The file survives the SIGKILL of every process. Its records are `CycleReport`s.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.c_loops import STATES
from gatort.runtime.envelope import TORQUE_MARGIN
from gatort.runtime.robots.franka.fci import errors_named
from gatort.runtime.robots.franka.fci_loop import CycleReport
from gatort.runtime.robots.panda import TORQUE_RATE_NM_S
from gatort.runtime.safety import State

CYCLES_FILE: Final = "cycles"
DTYPE: Final = np.dtype(CycleReport)
LARGEST_STEP_NM: Final = TORQUE_MARGIN * TORQUE_RATE_NM_S * 1e-3
ROUNDING_NM: Final = 1e-5
"""The arm tells its torques in float32."""


class Cycles:
    """N cycles: instants, watchdog's states, torques, and the arm's own errors."""

    def __init__(self, rows: NDArray[np.void]) -> None:
        self._rows = rows
        self.read_ns: NDArray[np.int64] = rows["read_ns"]
        """(N,) instants at which the arm's state arrived."""
        self.states: list[State] = [STATES[state] for state in rows["state"]]
        """(N,) states of the watchdog."""
        self.torques_nm: NDArray[np.float64] = rows["written_nm"]
        """(N, 7) torques that were sent; zero in a cycle without an answer."""
        self.velocities_rad_s: NDArray[np.float64] = rows["velocity"]
        """(N, 7) velocities of the joints."""
        self.is_driven: NDArray[np.bool_] = rows["is_driven"] != 0
        """(N,) true where the arm took torques."""

    @classmethod
    def read(cls, folder: Path, since_ns: int = 0) -> Cycles:
        """Read the cycles of a folder from an instant on."""
        data = (folder / CYCLES_FILE).read_bytes()
        rows = np.frombuffer(data[: len(data) // DTYPE.itemsize * DTYPE.itemsize], DTYPE)
        return cls(rows[rows["read_ns"] >= since_ns])

    @property
    def sequence(self) -> list[State]:
        """States in order, each run of equal ones once."""
        pairs = zip(self.states, [None, *self.states], strict=False)
        return [state for state, before in pairs if state is not before]

    @property
    def reflexes(self) -> str:
        """Names of the errors for which the arm stopped itself."""
        bits = np.bitwise_or.reduce(self._rows["reflex_reason"], initial=0)
        return errors_named(int(bits))

    @property
    def answers_ns(self) -> NDArray[np.int64]:
        """Time from the arrival of a state to the end of its answer, one for each answer."""
        answered_ns: NDArray[np.int64] = self._rows["answered_ns"]
        has_answer = answered_ns > 0
        return answered_ns[has_answer] - self.read_ns[has_answer]

    @property
    def largest_step_nm(self) -> float:
        """Largest difference of a torque that was sent from the one that the arm had."""
        changes = np.abs(self.torques_nm - self._rows["had_nm"])
        return float(changes[self.is_driven].max(initial=0.0))

    @property
    def is_let_go(self) -> bool:
        """True if the last torques were zero, and the arm then holds itself."""
        answered = self.torques_nm[self.is_driven]
        return not self.is_driven[-1] and not answered[-1:].any()

    def first(self, *states: State) -> int | None:
        """Return the instant of the first cycle in one of these states; `None` without any."""
        each = zip(self.read_ns, self.states, strict=True)
        return next((int(at) for at, state in each if state in states), None)

    def fault(self, reflex: str = "") -> str | None:
        """Return a deviation that no run may show, as a sentence; `None` without any.

        Args:
            reflex: errors for which the arm has to stop itself, and no others.
        """
        if self.largest_step_nm > LARGEST_STEP_NM + ROUNDING_NM:
            return f"a torque changed by {self.largest_step_nm:.2f} N·m in a cycle"
        if self.reflexes != reflex:
            return f"expected the arm's errors to be {reflex or 'none'}, found {self.reflexes}"
        return None


def newest_cycle(descriptor: int) -> np.void | None:
    """Return the newest whole cycle in an open file of cycles; `None` before the first one."""
    whole = os.fstat(descriptor).st_size // DTYPE.itemsize
    if not whole:
        return None
    data = os.pread(descriptor, DTYPE.itemsize, (whole - 1) * DTYPE.itemsize)
    cycle: np.void = np.frombuffer(data, DTYPE)[0]
    return cycle
