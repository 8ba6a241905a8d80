"""A person drives an arm at the other end of a wire, with its own watchdog."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gatort.runtime.clock import VirtualClock
from gatort.runtime.loop import ControlLoop, TickRecord
from gatort.runtime.remote.client import RemoteRobot
from gatort.runtime.remote.memory import MemoryRobotTransport
from gatort.runtime.remote.server import RobotServer
from gatort.runtime.robots.driver import Driver
from gatort.runtime.robots.kinematics import tool_pose
from gatort.runtime.safety import STOPPED, Command
from gatort.runtime.spec import PolicySpec
from gatort.runtime.takeover.takeover import Takeover

from .conftest import HeldDevice, idle_policy


class PromptRobot(RemoteRobot):
    """A remote robot whose commands arrive before time passes."""

    turn: Callable[[], None]

    def command(self, command: Command) -> None:
        super().command(command)
        self.turn()


@pytest.fixture
def remote(panda: PolicySpec, clock: VirtualClock, device: HeldDevice, arm: Driver) -> ControlLoop:
    link = MemoryRobotTransport(clock)
    server = RobotServer(arm, clock, link, name="lab", simulated=True)
    robot = PromptRobot("memory", clock, transport=link.connect(server.turn))
    robot.turn = server.turn
    loop = idle_policy(panda).control(robot, clock)
    loop.takeover = Takeover(device, robot.interface, clock)
    return loop


def test_the_tool_of_a_remote_arm_moves_as_the_person_wants(
    remote: ControlLoop, device: HeldDevice
) -> None:
    heights_m: list[float] = []

    def look(record: TickRecord) -> None:
        assert record.observation is not None
        heights_m.append(tool_pose(record.observation.values[0].astype(np.float64))[0][2])
        device.drives = record.wake.tick >= 5

    device.linear_m_s = (0.0, 0.0, -0.1)
    assert remote.run(40, look) == 40
    assert abs(heights_m[5] - heights_m[0]) < 0.005
    # 1.7 s at 0.1 m/s, less the time to speed up.
    assert heights_m[5] - heights_m[-1] == pytest.approx(0.165, abs=0.015)


def test_a_remote_arm_whose_person_is_lost_stops_on_both_sides(
    remote: ControlLoop, device: HeldDevice, clock: VirtualClock, arm: Driver
) -> None:
    device.drives = True

    def look(record: TickRecord) -> None:
        if record.wake.tick == 10:
            device.silent_since_ns = clock.now_ns()

    assert remote.run(100, look) < 40
    assert remote.guard.state in STOPPED
    assert arm.state in STOPPED
