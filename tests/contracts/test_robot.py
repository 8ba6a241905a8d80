"""Every robot keeps the contract of `gatort.testing`; add a new one to `ROBOTS`."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Thread

import pytest

from gatort.runtime.clock import VirtualClock
from gatort.runtime.remote.client import RemoteRobot
from gatort.runtime.remote.link import (
    LinkConditions,
    LinkedRobot,
)
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
    from gatort.sim.simulators.mujoco import MujocoRobot

    return MujocoRobot(clock, seed=0)


def pybullet(_: PolicySpec, clock: VirtualClock) -> Robot:
    pytest.importorskip("pybullet")
    from gatort.sim.simulators.bullet import BulletRobot

    return BulletRobot(clock, seed=0)


class WireRobot(RemoteRobot):
    """A scripted robot behind a real wire. Each command arrives before time goes on."""

    def __init__(self, spec: PolicySpec, clock: VirtualClock) -> None:
        self._both = clock
        driver = ScriptedRobot(spec, clock)
        self._server = RobotServer(
            driver, clock, "tcp://127.0.0.1:0", name="scripted", simulated=True
        )
        self._thread = Thread(target=self._server.serve)
        self._thread.start()
        super().__init__(self._server.endpoint, clock)

    def command(self, command: Command) -> None:
        super().command(command)
        self.observe()  # Messages keep their order: with the answer, the command is there too.

    def close(self) -> None:
        super().close()
        if self._thread.is_alive():
            self._server.end()
            while self._thread.is_alive():  # It ends when the arm has come to rest.
                self._both.advance_ns(10 * MS)
                self._thread.join(0.01)
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
