"""A virtual clock, and the stacking arm in each simulator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gatort.runtime.clock import VirtualClock
from gatort.sim.make import BulletRobot, MujocoRobot
from gatort.sim.robot import SimulatedRobot
from gatort.sim.tasks.seeds import VALIDATION_SEEDS


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture(params=[MujocoRobot, BulletRobot])
def robot(request: pytest.FixtureRequest, clock: VirtualClock) -> Iterator[SimulatedRobot]:
    made: SimulatedRobot = request.param(clock, VALIDATION_SEEDS.start)
    yield made
    made.close()
