"""A Panda that is simulated, a policy that does nothing, and a device that a test holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest

from gatort.policies.demo import NO_WEIGHTS
from gatort.runtime.clock import VirtualClock
from gatort.runtime.engines.engine import ScriptedEngine
from gatort.runtime.loop import ControlLoop
from gatort.runtime.policy import Policy
from gatort.runtime.robot import Observation
from gatort.runtime.robots.driver import Driver
from gatort.runtime.robots.panda import (
    ACTION_DELAY_MS,
    ACTUATORS,
    CONTROL_HZ,
    GRIPPER_OPEN_M,
    PROPRIOCEPTION,
)
from gatort.runtime.spec import PolicySpec
from gatort.runtime.takeover.takeover import Takeover
from gatort.runtime.takeover.wish import Wish
from gatort.runtime.tokenizer import Tokenizer

MS = 1_000_000


@pytest.fixture(scope="session")
def panda() -> PolicySpec:
    return PolicySpec(
        observations=PROPRIOCEPTION,
        actuators=ACTUATORS,
        control_hz=CONTROL_HZ,
        action_delay_ms=ACTION_DELAY_MS,
        window_frames=2,
    )


@dataclass
class HeldDevice:
    """A device whose wish a test sets, and whose clock stops when the test says so."""

    clock: VirtualClock
    drives: bool = False
    stops: bool = False
    silent_since_ns: int | None = None
    linear_m_s: tuple[float, ...] = (0.0, 0.0, 0.0)
    angular_rad_s: tuple[float, ...] = (0.0, 0.0, 0.0)
    width_m: float | None = None
    name: str = "device"
    help: str = "[t] take over"
    asked: list[int] = field(default_factory=list)

    def wish(self, observation: Observation) -> Wish:
        self.asked.append(observation.sequence)
        now_ns = self.clock.now_ns()
        return Wish(
            stamp_ns=now_ns if self.silent_since_ns is None else self.silent_since_ns,
            drives=self.drives,
            linear_m_s=np.array(self.linear_m_s),
            angular_rad_s=np.array(self.angular_rad_s),
            width_m=self.width_m,
            stops=self.stops,
        )

    @contextmanager
    def listening(self) -> Iterator[None]:
        yield


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(1_000 * MS)


@pytest.fixture
def device(clock: VirtualClock) -> HeldDevice:
    return HeldDevice(clock)


def idle_policy(spec: PolicySpec) -> Policy:
    """Return a policy without torque, which opens the gripper."""
    action = np.append(np.zeros(7), GRIPPER_OPEN_M)
    tokens = Tokenizer(spec).encode_action(action).tolist()
    return Policy.of(spec, NO_WEIGHTS, ScriptedEngine(tokens))


@pytest.fixture
def arm(clock: VirtualClock) -> Iterator[Driver]:
    """A simulated arm at its home posture."""
    pytest.importorskip("mujoco")
    from gatort.sim.make import make_robot
    from gatort.sim.tasks.reach.task import TARGET_SPEC

    robot = make_robot("mujoco", "reach", clock, TARGET_SPEC, seed=0)
    yield robot
    robot.close()


@pytest.fixture
def loop(panda: PolicySpec, clock: VirtualClock, device: HeldDevice, arm: Driver) -> ControlLoop:
    """A loop over the arm, which the test's device may take."""
    made = idle_policy(panda).control(arm, clock)
    made.takeover = Takeover(device, arm.interface, clock)
    return made
