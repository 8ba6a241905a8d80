"""Two benches for all faults: one of real processes, and one on a virtual clock in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mujoco")

from gatort.faults.arm import FaultyArm
from gatort.faults.bench import Bench
from gatort.faults.loop_bench import LoopBench
from gatort.faults.seams import shipped_policy
from gatort.faults.sensor_memory import SensorMemory
from gatort.faults.trace import Trace
from gatort.runtime.clock import VirtualClock
from gatort.runtime.policy import Policy
from gatort.runtime.remote.link import LinkConditions, LinkedRobot
from gatort.runtime.robot import Robot
from gatort.runtime.safety import STOPPED, State
from gatort.sim.tasks.stacking.specifications import STACK_SPEC

MS = 1_000_000
START_NS = 60_000 * MS


class AlarmClock(VirtualClock):
    """A virtual clock that calls an action at its exact instant on the way to a later one."""

    alarm: tuple[int, Callable[[], None]] | None = None

    def sleep_until_ns(self, deadline_ns: int) -> None:
        if self.alarm is not None and self.alarm[0] <= deadline_ns:
            at_ns, action = self.alarm
            self.alarm = None
            super().sleep_until_ns(at_ns)
            action()
        super().sleep_until_ns(deadline_ns)


class VirtualArm:
    """The faulty arm of `gatort faults` behind an in-memory link; each step is taken when due."""

    def __init__(self, folder: Path, clock: VirtualClock) -> None:
        self.trace = Trace(folder / "trace", STACK_SPEC)
        self.sensors = SensorMemory(folder / "sensors")
        self._clock, self._arm_clock = clock, VirtualClock(clock.now_ns())
        self._driver = FaultyArm(self._arm_clock, self.trace, self.sensors, seed=5000)
        self._driver.on_step = self._write_step

    def _write_step(self, at_ns: int, state: State, values: np.ndarray) -> None:
        self.trace.add(at_ns, at_ns, state, values)

    @contextmanager
    def connect(self) -> Iterator[Robot]:
        yield LinkedRobot(self._driver, self._arm_clock, self._clock, LinkConditions())

    def rest(self) -> None:
        while True:
            self._arm_clock.sleep_until_ns(self._clock.now_ns())
            self._driver.advance()
            if self._driver.state in STOPPED - {State.SAFE} and self.trace.newest in STOPPED:
                return
            self._clock.advance_ns(MS)

    def counted(self, what: str) -> int:
        assert what == "commands dropped"
        return self._driver.inner_loop.dropped.total()

    def press(self, key: bytes) -> None:
        assert key == b" "
        self._arm_clock.sleep_until_ns(self._clock.now_ns())
        self._driver.advance()
        self._driver.stop()


class VirtualBench(LoopBench):
    """Controller, link and arm in lockstep: the same injection gives the same trace, to the ns."""

    def __init__(self, folder: Path, policy: Policy) -> None:
        self.clock: AlarmClock = AlarmClock(START_NS)
        self.policy = policy
        self._arm = VirtualArm(folder, self.clock)

    @property
    def arm(self) -> VirtualArm:
        self._arm.rest()
        self._arm.sensors.ask("none")
        return self._arm

    @contextmanager
    def controller(self, arm: VirtualArm) -> Iterator[Robot]:
        with arm.connect() as robot:
            yield robot

    @contextmanager
    def after(self, seconds: float, action: Callable[[], None]) -> Iterator[None]:
        # At a whole millisecond, as the arm's steps are: the step under way is the first to see it.
        self.clock.alarm = (self.clock.now_ns() + round(seconds * 1e3) * MS, action)
        yield
        self.clock.alarm = None


@pytest.fixture(scope="session")
def policy() -> Policy:
    return shipped_policy()


@pytest.fixture
def make_virtual_bench(
    policy: Policy, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], VirtualBench]:
    """Each bench has a new arm, so that no injection sees the end of another."""
    return lambda: VirtualBench(tmp_path_factory.mktemp("virtual"), policy)


@pytest.fixture
def virtual_bench(make_virtual_bench: Callable[[], VirtualBench]) -> VirtualBench:
    return make_virtual_bench()


@pytest.fixture(scope="session")
def bench() -> Iterator[Bench]:
    with Bench() as bench:
        yield bench
