"""Every robot keeps the contract of `gatort.testing`; add a new one to `ROBOTS`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gatort.runtime.clock import VirtualClock
from gatort.runtime.remote.client import RemoteRobot
from gatort.runtime.remote.link import LinkConditions, LinkedRobot
from gatort.runtime.remote.memory import MemoryRobotTransport
from gatort.runtime.remote.server import RobotServer
from gatort.runtime.robot import Robot
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.safety import Command
from gatort.runtime.spec import PolicySpec
from gatort.testing import RobotContract

MS = 1_000_000


def scripted(spec: PolicySpec, clock: VirtualClock) -> Robot:
    return ScriptedRobot(spec, clock)


def mujoco(_: PolicySpec, clock: VirtualClock) -> Robot:
    pytest.importorskip("mujoco")
    from gatort.sim.make import MujocoRobot

    return MujocoRobot(clock, seed=0)


def pybullet(_: PolicySpec, clock: VirtualClock) -> Robot:
    pytest.importorskip("pybullet")
    from gatort.sim.make import BulletRobot

    return BulletRobot(clock, seed=0)


class WireRobot(RemoteRobot):
    """A scripted robot at the other end of a wire in memory."""

    def __init__(self, spec: PolicySpec, clock: VirtualClock) -> None:
        link = MemoryRobotTransport(clock)
        self._server = RobotServer(
            ScriptedRobot(spec, clock), clock, link, name="scripted", simulated=True
        )
        super().__init__("memory", clock, transport=link.connect(self._server.turn))

    def command(self, command: Command) -> None:
        super().command(command)
        self._server.turn()  # The command arrives before the test lets time pass.

    def close(self) -> None:
        super().close()
        self._server.close()


def linked(spec: PolicySpec, clock: VirtualClock) -> Robot:
    robot_clock = VirtualClock(clock.now_ns())
    return LinkedRobot(ScriptedRobot(spec, robot_clock), robot_clock, clock, LinkConditions())


ROBOTS = [scripted, linked, WireRobot, mujoco, pybullet]


class TestRobot(RobotContract):
    @pytest.fixture(params=ROBOTS)
    def robot(
        self, request: pytest.FixtureRequest, spec: PolicySpec, clock: VirtualClock
    ) -> Iterator[Robot]:
        made: Robot = request.param(spec, clock)
        yield made
        made.close()
