"""The bench of a Franka arm: franka-sim, the arm's processes, and controllers beside them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from gatort.faults.arm_process import MS, REST_NS, START_NS, ConsoleProcess
from gatort.faults.drive import BenchFailedError, EndedEarlyError
from gatort.faults.process_bench import ProcessBench
from gatort.faults.run_process import RunProcess, children, running
from gatort.runtime.errors import RobotError
from gatort.runtime.safety import STOPPED, State

from .cycles import Cycles
from .simulator import ADDRESS, FrankaSimulator

ARM = (sys.executable, "-P", "-m", "gatort.faults.franka.arm")
LOOP_NAME = "gatort-fci-loop"
"""Name of the inner loop's process."""
LINK_LOST = "the link to the arm was lost"
"""Words of an arm's process whose arm sent no state for 100 ms."""
WAVE = ("--demo", "wave")


class FrankaArm(ConsoleProcess):
    """The processes of one Franka arm."""

    def __init__(self, folder: Path, address: str, hand: Literal["franka", "none"]) -> None:
        """Start them and wait until the door listens.

        Raises:
            RobotError: the arm was refused.
        """
        folder.mkdir()
        self.folder = folder
        super().__init__((*ARM, str(folder), address, hand), folder / "log")

    def cycles(self, since_ns: int = 0) -> Cycles:
        """Return its cycles from an instant on."""
        return Cycles.read(self.folder, since_ns)

    def pid_of(self, part: str) -> int:
        """Return the process whose command line holds a text.

        Raises:
            RobotError: there is none.
        """
        for pid in children(self.process.pid):
            if part in Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace"):
                return pid
        raise RobotError(f"the arm: expected a process {part}, found none")


class FrankaBench(ProcessBench):
    """Starts franka-sim and an arm for each fault, and ends all of it."""

    def __init__(self, python: Path) -> None:
        """Prepare; no process is started yet.

        Args:
            python: Python of franka-sim's environment.
        """
        super().__init__()
        self._python = python
        self._simulator: FrankaSimulator | None = None

    def end_arm(self) -> None:
        """See `ProcessBench.end_arm`: end franka-sim."""
        if self._simulator is not None:
            self._simulator.close()
            self._simulator = None

    @contextmanager
    def arm(self, hand: Literal["franka", "none"] = "none") -> Iterator[FrankaArm]:
        """Start franka-sim and an arm for one fault alone.

        Raises:
            BenchFailedError: franka-sim fell silent meanwhile, as it does on a busy machine.
        """
        self.end_arm()
        folder = self.new_folder()
        folder.mkdir()
        self._simulator = FrankaSimulator(self._python, folder)
        arm = FrankaArm(self.new_folder(), ADDRESS, hand)
        try:
            yield arm
        except RobotError as error:
            if self._fell_silent(arm):
                raise BenchFailedError(f"franka-sim fell silent: {error}") from error
            raise
        finally:
            arm.close()

    def _fell_silent(self, arm: FrankaArm) -> bool:
        """Check if an arm lost a franka-sim that no row has ended."""
        return self._simulator is not None and LINK_LOST in arm.said

    @contextmanager
    def waving(self, arm: FrankaArm) -> Iterator[RunProcess]:
        """Let `gatort run --demo wave` move an arm, and yield once it does."""
        with running(arm.endpoint, self.new_folder(), options=WAVE) as run:
            self.wait_for_motion(arm, run)
            yield run

    def wait_for_motion(self, arm: FrankaArm, run: RunProcess) -> None:
        """Wait until a run has driven an arm for a while.

        Raises:
            EndedEarlyError: it never did, or the arm stopped again.
        """
        if not arm.wait_until(lambda: arm.cycles().first(State.RUN) is not None, START_NS):
            raise EndedEarlyError(f"nobody armed the arm: {run.said.strip()[-400:]}")
        self.wait(1_500 * MS)
        if arm.cycles().states[-1] in STOPPED:
            raise EndedEarlyError(f"the run ended before the fault: {run.said.strip()[-400:]}")

    def rest(self, arm: FrankaArm) -> None:
        """Wait until an arm has been let go, even if its processes have ended."""
        until_ns = self.clock.now_ns() + REST_NS
        while self.clock.now_ns() < until_ns:
            cycles = arm.cycles()
            if len(cycles.states) and cycles.states[-1] in STOPPED and not cycles.is_driven[-1]:
                return
            self.wait(20 * MS)
