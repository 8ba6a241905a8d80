"""A bench for faults of the control loop, in real time or on a virtual clock."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property

from gatort.runtime.clock import Clock
from gatort.runtime.errors import GatortError
from gatort.runtime.loop import ControlLoop, TickRecord
from gatort.runtime.policy import Policy
from gatort.runtime.robot import Robot

from .arms import BenchArm, DrivenArm
from .drive import Drive
from .seams import ChangeEngine, changed_engine, control, shipped_policy
from .sensor_memory import SensorFault

MS = 1_000_000
PERIOD_NS = 50 * MS
TICKS = 26
"""Number of ticks of a run that nothing stops."""


class LoopBench(ABC):
    """Drives an arm with the control loop; a subclass says on which clock and over which link."""

    clock: Clock

    @cached_property
    def policy(self) -> Policy:
        """Shipped policy, loaded once."""
        return shipped_policy()

    @property
    @abstractmethod
    def arm(self) -> BenchArm:
        """Arm that faults share: at rest, with good sensors."""

    @property
    def new_arm(self) -> BenchArm:
        """Arm that nobody has driven, so that the policy still has to move it."""
        return self.arm

    @property
    def target(self) -> DrivenArm:
        """Arm for faults of a controller."""
        return self.arm

    @abstractmethod
    def controller(self, arm: DrivenArm) -> AbstractContextManager[Robot]:
        """Connect a controller to an arm."""

    @abstractmethod
    def after(self, seconds: float, action: Callable[[], None]) -> AbstractContextManager[None]:
        """Call `action` once `seconds` have passed, while the loop in the context runs."""

    def ask_sensors(self, fault: SensorFault, after: int) -> BenchArm:
        """Return the shared arm. Its sensors fail after `after` good readings."""
        arm = self.arm
        arm.sensors.ask(fault, after)
        return arm

    def drive(
        self,
        robot: Robot,
        ticks: int = TICKS,
        change_engine: ChangeEngine | None = None,
        prepare: Callable[[ControlLoop], None] | None = None,
        on_tick: Callable[[TickRecord], None] | None = None,
    ) -> Drive:
        """Run the control loop with the shipped policy.

        Args:
            robot: the robot to drive.
            ticks: longest run.
            change_engine: wraps the policy's engine for this run.
            prepare: changes the loop before it runs.
            on_tick: sees each tick's record.
        """
        with changed_engine(self.policy, change_engine):
            loop = control(self.policy, robot, self.clock, ticks)
            if prepare is not None:
                prepare(loop)
            drive = Drive(loop, self.clock.now_ns(), ticks)

            def look(tick: TickRecord) -> None:
                drive.ticks.append((self.clock.now_ns(), tick))
                if on_tick is not None:
                    on_tick(tick)

            try:
                loop.run(ticks, look)
            except GatortError as error:
                drive.error = error
            drive.ended_ns = self.clock.now_ns()
        return drive
