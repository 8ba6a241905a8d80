"""The tool moves as a person wants, halts where they let go, and presses on nothing hard."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gatort.runtime.loop import ControlLoop, TickRecord
from gatort.runtime.robot import Observation
from gatort.runtime.robots.dynamics import ArmPosture
from gatort.runtime.robots.kinematics import tool_pose
from gatort.runtime.robots.panda import HOME_RAD, PANDA_LIMITS
from gatort.runtime.safety import State
from gatort.runtime.spec import PolicySpec
from gatort.runtime.takeover.tool_motion import (
    BOX_MARGIN_M,
    ToolMotion,
    rotation_vector,
    shortened,
    turned,
)
from gatort.runtime.takeover.wish import Wish

from .conftest import HeldDevice


def tools(
    loop: ControlLoop, ticks: int, at: dict[int, Callable[[], None]] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Run, and return places (N, 3) and rotations (N, 3, 3) of the tool.

    Each function of `at` is called in the slack before its tick.
    """
    poses = []

    def look(record: TickRecord) -> None:
        if record.observation is not None:
            poses.append(tool_pose(record.observation.values[0].astype(np.float64)))
        act = (at or {}).get(record.wake.tick + 1)
        if act is not None:
            act()

    loop.run(ticks, look)
    return np.array([place for place, _ in poses]), np.array([turn for _, turn in poses])


@pytest.mark.parametrize("direction", [(1, 0, 0), (0, -1, 0), (0, 0, -1)])
def test_the_tool_moves_at_the_wanted_velocity(
    loop: ControlLoop, device: HeldDevice, direction: tuple[int, ...]
) -> None:
    device.drives = True
    device.linear_m_s = tuple(0.1 * each for each in direction)
    places, rotations = tools(loop, 30)
    moved = places[-1] - places[10]
    # 0.95 s at 0.1 m/s; the arm lags while its joints turn ever faster.
    np.testing.assert_allclose(moved, 0.095 * np.array(direction), atol=0.01)
    assert np.linalg.norm(rotation_vector(rotations[-1] @ rotations[0].T)) < 0.05


def test_the_tool_turns_in_place(loop: ControlLoop, device: HeldDevice) -> None:
    device.drives = True
    device.angular_rad_s = (0.0, 0.0, 0.4)
    places, rotations = tools(loop, 30)
    turn = rotation_vector(rotations[-1] @ rotations[10].T)
    np.testing.assert_allclose(turn, [0.0, 0.0, 0.38], atol=0.05)
    assert np.linalg.norm(places - places[0], axis=1).max() < 0.01


def test_the_arm_halts_where_the_person_lets_go(loop: ControlLoop, device: HeldDevice) -> None:
    device.drives = True
    device.linear_m_s = (0.0, 0.2, 0.0)

    def let_go() -> None:
        device.linear_m_s = (0.0, 0.0, 0.0)

    places, _ = tools(loop, 60, {20: let_go})
    assert np.linalg.norm(places[-1] - places[20]) < 0.03
    assert np.linalg.norm(places[-1] - places[-10]) < 1e-3
    # It swings back by some millimetres, because a tick answers what the arm did 25 ms ago.
    assert places[20:, 1].max() - places[-1, 1] < 0.006


def test_a_tool_on_the_table_presses_too_little_to_be_stopped(
    loop: ControlLoop, device: HeldDevice
) -> None:
    device.drives = True
    device.width_m = 0.0
    device.linear_m_s = (0.0, 0.0, -0.25)
    places, _ = tools(loop, 120)
    assert len(places) == 120
    assert loop.guard.state is State.RUN
    assert -0.005 < places[-1][2] < 0.03


@pytest.mark.parametrize("direction", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (-1, 0, 0)])
def test_no_velocity_leads_out_of_what_the_envelope_allows(
    loop: ControlLoop, device: HeldDevice, direction: tuple[int, ...]
) -> None:
    device.drives = True
    device.linear_m_s = tuple(0.25 * each for each in direction)
    places, _ = tools(loop, 120)
    assert len(places) == 120, loop.stop_sentence


def frozen(joints_rad: np.ndarray, action: np.ndarray, width_m: float = 0.05) -> Observation:
    """Return the reading of an arm that does not move, whatever its torques."""
    values = (joints_rad.astype(np.float32), np.zeros(7, np.float32), np.float32([width_m]))
    return Observation(0, 0, values, action)


@pytest.mark.parametrize("direction", [(1, 0, 0), (0, 1, 0), (0, 0, -1), (1, 1, -1)])
def test_an_arm_that_is_held_back_never_presses_as_in_a_collision(
    panda: PolicySpec, direction: tuple[int, ...]
) -> None:
    motion, action = ToolMotion(panda), np.zeros(8)
    motion.begin(frozen(HOME_RAD, action), is_commanded=True)
    for _ in range(60):
        wish = Wish(0, drives=True, linear_m_s=np.array(direction, np.float64))
        action = motion.action(frozen(HOME_RAD, action), wish)
    assert (np.abs(action[:7]) < PANDA_LIMITS.pressed_nm).all()
    assert np.abs(action[:7]).max() > 0.5


def test_the_goal_stays_within_the_box_of_the_envelope(panda: PolicySpec) -> None:
    low = HOME_RAD.copy()
    while (height_m := tool_pose(low)[0][2]) > 0.01:  # straight down
        low += np.linalg.pinv(ArmPosture.of(low).jacobian) @ [0, 0, -min(height_m, 0.02), 0, 0, 0]
    motion = ToolMotion(panda)
    motion.begin(frozen(low, np.zeros(8)), is_commanded=True)
    for _ in range(10):
        wish = Wish(0, drives=True, linear_m_s=np.array([0.0, 0.0, -0.2]))
        motion.action(frozen(low, np.zeros(8)), wish)
    assert motion._place_m[2] == pytest.approx(PANDA_LIMITS.box_low_m[2] + BOX_MARGIN_M)


def test_a_grip_stays_as_it_was_commanded(panda: PolicySpec) -> None:
    motion = ToolMotion(panda)
    # A hand that holds a block of 5 cm is commanded to close.
    holding = frozen(HOME_RAD, np.zeros(8), width_m=0.05)
    motion.begin(holding, is_commanded=True)
    assert motion.action(holding, Wish(0, drives=True))[7] == 0.0
    motion.begin(holding, is_commanded=False)
    assert motion.action(holding, Wish(0, drives=True))[7] == pytest.approx(0.05)


def test_a_rotation_and_its_vector_are_the_same() -> None:
    draw = np.random.default_rng(0)
    for _ in range(20):
        vector = shortened(draw.normal(size=3), 3.0)
        np.testing.assert_allclose(rotation_vector(turned(vector)), vector, atol=1e-9)
    assert rotation_vector(np.eye(3)).tolist() == [0.0, 0.0, 0.0]


def test_a_short_vector_stays_and_a_long_one_keeps_its_direction() -> None:
    assert shortened(np.array([3.0, 0.0, 4.0]), 6.0).tolist() == [3.0, 0.0, 4.0]
    np.testing.assert_allclose(shortened(np.array([3.0, 0.0, 4.0]), 0.5), [0.3, 0.0, 0.4])
