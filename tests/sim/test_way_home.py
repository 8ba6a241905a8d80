"""The way home is refused near table, cubes and joint limits, and free elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("mujoco")

from gatort.policies.demo import DemoEngine, demo_policy
from gatort.runtime.clock import VirtualClock
from gatort.runtime.errors import ConfigError
from gatort.runtime.robots.franka.limits import FR3_LIMITS
from gatort.runtime.robots.kinematics import tool_pose
from gatort.runtime.robots.panda import ARM_ALONE, HOME_RAD, PANDA_LIMITS
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.sim import make
from gatort.sim.known_cubes import known_boxes
from gatort.sim.make import MujocoRobot
from gatort.sim.simulators.simulator import Box, Pose
from gatort.sim.way_home import MARGIN_M, WayHome, check_way, check_way_home

ASIDE_RAD = HOME_RAD + np.array([1.0, 0, 0, 0, 0, 0, 0])
"""The arm turned to the left. Its way home is a quarter of a circle at the height of home."""
OPEN_M = 0.08
EDGE_M = 0.05


def cube(at_m: np.ndarray) -> Box:
    return Box("red", Pose(at_m, np.eye(3)), EDGE_M)


def way(start: np.ndarray, *boxes: Box) -> WayHome:
    return check_way(start, OPEN_M, boxes, PANDA_LIMITS)


def tool_halfway() -> np.ndarray:
    return tool_pose((ASIDE_RAD + HOME_RAD) / 2)[0]


def test_a_way_without_an_obstacle_is_free_and_names_the_nearest() -> None:
    free = way(ASIDE_RAD)
    free.require_free()
    assert not free.fact.attention
    assert free.fact.value == "free of table and 0 known cubes: 300 mm or more to the table"


def test_a_cube_in_the_way_is_refused_by_name_place_and_remedy() -> None:
    blocked = way(ASIDE_RAD, cube(tool_halfway()))
    assert blocked.is_blocked
    with pytest.raises(
        ConfigError,
        match=r"^--demo home: expected 30 mm between arm and cube red, found \w+ \d+ mm inside it "
        r"\d+% along the way: clear the cube red away, or guide the arm away by hand first$",
    ):
        blocked.require_free()
    share = int(blocked.fact.attention.split("% along")[0].split()[-1])
    assert 35 <= share <= 65  # The nearest posture is about where the cube lies.


@pytest.mark.parametrize(("beyond_m", "is_blocked"), [(-0.002, True), (0.002, False)])
def test_a_cube_beside_the_way_is_refused_within_the_margin_alone(
    beyond_m: float, is_blocked: bool
) -> None:
    """The lowest part of the hand, the pads, passes 10 mm below the tool."""
    at_m = tool_halfway() - np.array([0, 0, 0.010 + MARGIN_M + beyond_m + EDGE_M / 2])
    assert way(ASIDE_RAD, cube(at_m)).is_blocked == is_blocked


def test_a_cube_that_one_posture_misses_is_not_missed_by_the_way() -> None:
    """Only the middle of the way is near it, neither start nor home."""
    box = cube(tool_halfway())
    for end in (ASIDE_RAD, HOME_RAD):
        assert not check_way(end, OPEN_M, (), PANDA_LIMITS).is_blocked
        assert make.make_clearance([box]).nearest(end, OPEN_M).distance_m > MARGIN_M
    assert way(ASIDE_RAD, box).is_blocked


def test_a_start_below_the_table_is_refused_with_the_arm_to_be_guided_by_hand() -> None:
    low = np.array([0, 0.8, 0, -2.2, 0, 3.0, 0.785])
    assert tool_pose(low)[0][2] < 0
    blocked = way(low)
    assert blocked.is_blocked
    assert "between arm and table, found " in blocked.fact.attention
    assert "mm inside it at the start of the way: guide the arm away by hand" in (
        blocked.fact.attention
    )


def test_a_way_that_leaves_the_tools_box_is_refused() -> None:
    y_m = float(tool_halfway()[1])
    narrow = replace(PANDA_LIMITS, box_high_m=(0.855, y_m, 1.4))
    blocked = check_way(ASIDE_RAD, OPEN_M, (), narrow)
    assert blocked.is_blocked
    assert "at the start of the way the tool came to y = 0.3" in blocked.fact.attention
    assert "outside its box" in blocked.fact.attention


@pytest.mark.parametrize(
    ("joint", "at_rad", "sentence"),
    [
        (2, 1.3, "expected joint 2 from -1.200 to 1.200 rad, found 1.300 at the start of the way"),
        (4, -3.06, "expected joint 4 from -3.043 to -1.200 rad, found -3.060 at the start"),
        (1, float("nan"), "expected joint 1 from -1.400 to 1.400 rad, found nan"),
    ],
)
def test_a_start_at_a_joint_limit_or_beyond_the_observed_range_is_refused(
    joint: int, at_rad: float, sentence: str
) -> None:
    """Joint 4 is free on a Panda and at the limit of an FR3."""
    joints = HOME_RAD.copy()
    joints[joint - 1] = at_rad
    robot = ScriptedRobot(ARM_ALONE, VirtualClock(), lambda _: (joints, np.zeros(7)))
    blocked = check_way_home(robot, FR3_LIMITS)
    assert blocked.is_blocked
    assert sentence in blocked.fact.attention


def test_the_cubes_of_a_simulated_scene_are_known() -> None:
    robot = MujocoRobot(VirtualClock(), seed=5000)
    free = check_way_home(robot, PANDA_LIMITS)
    assert "3 known cubes" in free.fact.value
    robot.close()


def test_the_cubes_of_an_arm_elsewhere_follow_from_its_block_keys() -> None:
    """The same observation is seen as over a wire: no scene of this process beside it."""
    simulated = MujocoRobot(VirtualClock(), seed=5000)
    values = simulated.observe().values
    bodies = simulated.moment().bodies
    edges_m = {cube.name: cube.edge_m for cube in simulated.layout.cubes}
    spec = simulated.interface
    names = [key.name for key in spec.observations]
    boxes = known_boxes(
        ScriptedRobot(ARM_ALONE, VirtualClock(), lambda _: (HOME_RAD, np.zeros(7))),
        dict(zip(names, values, strict=True)),
    )
    assert [box.name for box in boxes] == ["red", "blue"]
    for box in boxes:
        # float32 keys, and a tool of the kinematics instead of MuJoCo's.
        assert box.pose.position == pytest.approx(bodies[box.name].position, abs=1e-4)
        assert box.edge_m == pytest.approx(edges_m[box.name] * 2**0.5)
    simulated.close()


def test_an_arm_without_block_keys_tells_no_cube() -> None:
    robot = ScriptedRobot(ARM_ALONE, VirtualClock(), lambda _: (HOME_RAD, np.zeros(7)))
    assert check_way_home(robot, PANDA_LIMITS).fact.value.startswith("free of table and 0 known")


def test_the_demo_goes_along_the_checked_line() -> None:
    policy = demo_policy("home", ARM_ALONE)
    engine = policy.engine
    assert isinstance(engine, DemoEngine)
    start = ASIDE_RAD + np.array([0, 0.2, 0, 0.3, 0, 0, -0.4])
    whole = HOME_RAD - start
    for time_s in np.linspace(0, 8, 20):
        gone = engine._target(start, float(time_s)) - start
        share = gone @ whole / (whole @ whole)
        assert 0 <= share <= 1
        assert gone == pytest.approx(share * whole)


def test_without_mujoco_the_way_is_not_checked_and_the_row_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(make, "simulator_installed", lambda _: False)
    robot = ScriptedRobot(ARM_ALONE, VirtualClock(), lambda _: (HOME_RAD, np.zeros(7)))
    unknown = check_way_home(robot, PANDA_LIMITS)
    assert not unknown.is_blocked
    assert unknown.fact.value == "not checked"
    assert "the check of an arm's way needs MuJoCo" in unknown.fact.attention
    assert "look along it yourself" in unknown.fact.attention
