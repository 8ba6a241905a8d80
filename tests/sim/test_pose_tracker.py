"""Bodies rest in the world or move with the hand, whatever the age of their pictures."""

from __future__ import annotations

import numpy as np
import pytest

from gatort.runtime.errors import ObservationError
from gatort.sim.pose_tracker import PoseTracker
from gatort.sim.simulators.simulator import ArmState, Pose

MS = 1_000_000
EDGE_M = 0.05
OPEN_M, CLOSED_M = 0.08, 0.05
RESTING = Pose(np.array([0.5, 0.0, 0.025]), np.eye(3))


def arm(x: float, z: float, width_m: float, turn_rad: float = 0.0) -> ArmState:
    c, s = np.cos(turn_rad), np.sin(turn_rad)
    rotation = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    return ArmState(np.zeros(7), np.zeros(7), width_m, np.array([x, 0.0, z]), rotation)


@pytest.fixture
def tracker() -> PoseTracker:
    tracker = PoseTracker({"red": EDGE_M})
    tracker.measure("red", RESTING, 0)
    tracker.move(arm(0.5, 0.2, OPEN_M), 0)
    return tracker


def red(tracker: PoseTracker, now_ms: int) -> Pose:
    return tracker.poses(now_ms * MS)["red"]


def grasp(tracker: PoseTracker) -> None:
    """Close the hand around the body at 100 ms."""
    tracker.move(arm(0.5, 0.025, OPEN_M), 50 * MS)
    tracker.move(arm(0.5, 0.025, CLOSED_M), 100 * MS)


def test_a_body_rests_while_an_open_hand_moves_over_it(tracker: PoseTracker) -> None:
    tracker.move(arm(0.5, 0.025, OPEN_M), 50 * MS)
    tracker.move(arm(0.7, 0.2, OPEN_M), 100 * MS)
    np.testing.assert_array_equal(red(tracker, 100).position, RESTING.position)


def test_a_body_in_the_closed_hand_moves_and_turns_with_it(tracker: PoseTracker) -> None:
    grasp(tracker)
    tracker.move(arm(0.6, 0.225, CLOSED_M, turn_rad=0.3), 150 * MS)
    pose = red(tracker, 150)
    np.testing.assert_allclose(pose.position, [0.6, 0.0, 0.225], atol=1e-12)
    assert np.arctan2(pose.rotation[1, 0], pose.rotation[0, 0]) == pytest.approx(0.3)


def test_a_hand_that_closes_elsewhere_takes_nothing(tracker: PoseTracker) -> None:
    tracker.move(arm(0.5, 0.1, CLOSED_M), 50 * MS)
    tracker.move(arm(0.7, 0.1, CLOSED_M), 100 * MS)
    np.testing.assert_array_equal(red(tracker, 100).position, RESTING.position)


def test_a_late_picture_of_a_held_body_is_put_where_the_hand_was_then(
    tracker: PoseTracker,
) -> None:
    grasp(tracker)
    for step in range(1, 5):
        tracker.move(arm(0.5 + 0.02 * step, 0.025, CLOSED_M), (100 + 50 * step) * MS)
    # At 175 ms the hand was at 0.53 m; the body is seen 4 mm beside it.
    seen = Pose(np.array([0.53, 0.004, 0.025]), np.eye(3))
    tracker.measure("red", seen, 175 * MS)
    np.testing.assert_allclose(red(tracker, 300).position, [0.58, 0.004, 0.025], atol=1e-12)


def test_a_picture_from_before_the_grasp_does_not_move_the_held_body(tracker: PoseTracker) -> None:
    grasp(tracker)
    tracker.move(arm(0.6, 0.2, CLOSED_M), 150 * MS)
    tracker.measure("red", RESTING, 90 * MS)
    np.testing.assert_allclose(red(tracker, 150).position, [0.6, 0.0, 0.2], atol=1e-12)


def test_a_body_that_is_let_go_stays_there_until_it_is_seen(tracker: PoseTracker) -> None:
    grasp(tracker)
    tracker.move(arm(0.6, 0.05, CLOSED_M), 150 * MS)
    tracker.move(arm(0.6, 0.05, OPEN_M), 200 * MS)
    tracker.move(arm(0.6, 0.3, OPEN_M), 250 * MS)
    np.testing.assert_allclose(red(tracker, 250).position, [0.6, 0.0, 0.05], atol=1e-12)
    fallen = Pose(np.array([0.6, 0.0, 0.025]), np.eye(3))
    tracker.measure("red", fallen, 240 * MS)
    np.testing.assert_array_equal(red(tracker, 300).position, fallen.position)


def test_an_older_picture_never_replaces_a_newer_one(tracker: PoseTracker) -> None:
    tracker.measure("red", Pose(np.array([0.52, 0.0, 0.025]), np.eye(3)), 60 * MS)
    tracker.measure("red", RESTING, 30 * MS)
    assert red(tracker, 100).position[0] == 0.52


def test_a_resting_body_that_is_not_seen_for_three_seconds_is_refused(
    tracker: PoseTracker,
) -> None:
    red(tracker, 3_000)
    with pytest.raises(ObservationError, match=r"pose/red: .* unseen for 3\.1 s"):
        red(tracker, 3_100)


def test_a_held_body_need_not_be_seen(tracker: PoseTracker) -> None:
    grasp(tracker)
    tracker.move(arm(0.5, 0.3, CLOSED_M), 10_000 * MS)
    assert red(tracker, 10_000).position[2] == pytest.approx(0.3)
