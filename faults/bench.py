"""The bench of real processes: a simulated arm in its own process, and controllers beside it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from threading import Timer

import numpy as np

from gatort.runtime.errors import RobotError
from gatort.runtime.realtime import RealtimeConfig, apply
from gatort.runtime.remote.keys import make_keys
from gatort.runtime.robot import Robot
from gatort.runtime.safety import STOPPED, State

from .arm_process import START_NS, ArmProcess, RunningArm
from .arms import DrivenArm
from .drive import EndedEarlyError
from .loop_bench import MS, PERIOD_NS, LoopBench
from .process_bench import ProcessBench
from .run_process import END_S, RunProcess
from .trace import Excerpt

REALTIME = RealtimeConfig(fifo_priority=40, lock_memory=True)


class Bench(ProcessBench, LoopBench):
    """Starts the processes that faults need, once where one is enough, and ends all of them."""

    def __init__(self, running: RunningArm | None = None) -> None:
        """Prepare; no process is started yet.

        Args:
            running: arm that gets the controller's faults; by default the bench starts one.
        """
        super().__init__()
        self._running = running
        self._arm: ArmProcess | None = None

    def end_arm(self) -> None:
        """See `ProcessBench.end_arm`."""
        if self._arm is not None:
            self._arm.close()
            self._arm = None  # The next may not come up, and this one is closed once.

    # -- Arms --------------------------------------------------------------------------------------

    @property
    def arm(self) -> ArmProcess:
        """Arm that faults share: plain, at rest, sensors good; restarted once it has ended."""
        if self._arm is None or not self._arm.alive:
            self.end_arm()
            self._arm = ArmProcess(self.new_folder())
        self._arm.rest()
        self._arm.sensors.ask("none")
        return self._arm

    @property
    def new_arm(self) -> ArmProcess:
        """See `LoopBench.new_arm`. It replaces the arm that faults share."""
        self.end_arm()
        return self.arm

    @property
    def target(self) -> DrivenArm:
        """Arm for faults of a controller."""
        if self._running is None:
            return self.arm
        self._running.rest()
        return self._running

    @contextmanager
    def own_arm(self, environment: dict[str, str] | None = None) -> Iterator[ArmProcess]:
        """Start an arm for one fault alone."""
        arm = ArmProcess(self.new_folder(), environment=environment)
        try:
            yield arm
        finally:
            arm.close()

    @cached_property
    def keyed_arm(self) -> ArmProcess:
        """Arm that lets in one controller by its key."""
        directory = self.new_folder()
        directory.mkdir()
        make_keys(directory)
        arm = ArmProcess(self.new_folder(), keys=directory)
        self._stack.callback(arm.close)
        return arm

    # -- Controllers -------------------------------------------------------------------------------

    @contextmanager
    def controller(self, arm: DrivenArm) -> Iterator[Robot]:
        """Connect to an arm, on a thread at a controller's real-time priority."""
        with apply(REALTIME) as scheduling, arm.connect() as robot:
            self.not_granted = list(scheduling.refused)
            yield robot

    @contextmanager
    def after(self, seconds: float, action: Callable[[], None]) -> Iterator[None]:
        """See `LoopBench.after`; on a thread of its own."""
        timer = Timer(seconds, action)
        timer.start()
        try:
            yield
        finally:
            timer.join()

    def wait_within_a_tick(self, random: np.random.Generator) -> None:
        """Wait for a random part of a period, so that a fault falls anywhere within a tick."""
        self.wait(int(random.integers(PERIOD_NS)))

    def wait_for_motion(self, arm: ArmProcess, run: RunProcess, for_ns: int = 300 * MS) -> int:
        """Wait until a run has armed an arm and driven it for a while; return when it was armed.

        Raises:
            RobotError: the run's process ended, or it never armed the arm.
            EndedEarlyError: the arm stopped again before the fault.
        """
        started_ns = self.clock.now_ns()

        def moves() -> bool:
            alive = run.alive  # Asked first: a run that ends after this line was seen to move.
            moved = arm.trace.since(started_ns).first(State.RUN) is not None
            if not alive and not moved:
                raise RobotError(
                    f"the controller's process ended before the fault: {run.said.strip()[-400:]}"
                )
            return moved

        if not arm.wait_until(moves, START_NS):
            raise RobotError("the controller's process never armed the arm")
        armed_ns = arm.trace.since(started_ns).first(State.RUN) or started_ns
        self.wait(for_ns)
        _require_motion(arm, run)
        return armed_ns

    def stop_run(
        self,
        arm: ArmProcess,
        run: RunProcess,
        armed_ns: int,
        at_rest: Callable[[], None] | None = None,
    ) -> Excerpt:
        """Stop a run that its fault must not have stopped, as its operator does.

        Args:
            arm: the arm that the run drives.
            run: the run. It has written its report when this method returns.
            armed_ns: when the arm was armed.
            at_rest: called once the arm is at rest, before the run's end is awaited.

        Returns:
            The arm's steps from arming until the stop.

        Raises:
            EndedEarlyError: the arm had stopped before.
        """
        _require_motion(arm, run)
        asked_ns = self.clock.now_ns()
        run.process.send_signal(signal.SIGINT)
        arm.rest()
        if at_rest is not None:
            at_rest()
        run.process.wait(END_S)
        return arm.trace.since(armed_ns).until(asked_ns)


def _require_motion(arm: ArmProcess, run: RunProcess) -> None:
    """Check that a run still drives the arm.

    Raises:
        EndedEarlyError: the arm has stopped.
    """
    if arm.trace.newest in STOPPED:
        raise EndedEarlyError(f"the run ended before the fault: {run.said.strip()[-400:]}")
