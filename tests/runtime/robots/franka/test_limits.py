"""Limits of an FR3 under legal commands, on the simulated arm. An FR3 stops itself beyond them."""

from __future__ import annotations

import numpy as np
import pytest

from gatort.runtime.clock import VirtualClock
from gatort.runtime.envelope import Envelope
from gatort.runtime.robots.franka.limits import FR3_LIMITS
from gatort.runtime.robots.panda import TORQUE_NM
from gatort.runtime.safety import STOPPED, Command
from gatort.sim.make import make_robot
from gatort.sim.tasks import task_named

MS = 1_000_000
MARGIN_RAD_S = 0.1
"""franka-sim's margin of measured speeds. The arm's own is not published."""


def fastest(position: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    """Return the FR3's speed limit in the direction of each joint's velocity."""
    upper, lower = np.array(FR3_LIMITS.high_rad), np.array(FR3_LIMITS.low_rad)
    room = np.maximum(np.where(velocity > 0, upper - position, position - lower), 0)
    falling = np.sqrt(2 * np.array(FR3_LIMITS.stopping_rad_s2) * room)
    falling = np.maximum(falling - np.array(FR3_LIMITS.stopping_offset_rad_s), 0)
    return np.minimum(falling, FR3_LIMITS.speed_rad_s)


@pytest.mark.parametrize("seed", range(8))
def test_the_largest_legal_torque_on_any_joint_keeps_every_speed_limit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    clock, task = VirtualClock(), task_named("stacking")
    robot = make_robot("mujoco", task, clock, task.interface, 900_600 + seed)
    robot.envelope = Envelope(FR3_LIMITS)
    over: list[float] = []

    def look(*_: object) -> None:
        position, velocity = robot.simulator.joints()
        over.append(float((np.abs(velocity) - fastest(position, velocity)).max()))

    robot.on_step = look
    robot.arm()
    values = np.zeros(8)
    for tick in range(1, 121):
        observation = robot.observe()
        if robot.state in STOPPED:
            break
        if tick % 6 == 1:
            joint = rng.integers(7)
            values = np.zeros(8)
            values[joint] = TORQUE_NM[joint] * rng.choice([-1, 1])
        robot.command(Command(tick, 1, observation.stamp_ns + 25 * MS, 60 * MS, values))
        clock.advance_ns(50 * MS)
    assert max(over) < MARGIN_RAD_S
    assert max(over) > -1.0  # It came near a limit.
