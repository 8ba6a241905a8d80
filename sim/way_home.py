"""The way of `gatort run --demo home`, checked for obstacles before the arm is armed.

The joints go on a straight line to `HOME_RAD`. MuJoCo's model of the arm is put at postures along
it. Table, tool box, joint limits and the known cubes are looked at. The arm's own parts, and
whatever else stands in the cell, are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gatort.runtime.envelope import LIMIT_MARGIN_RAD, ArmLimits, outside_box
from gatort.runtime.errors import ConfigError, MissingDependency
from gatort.runtime.facts import Fact
from gatort.runtime.robot import Robot
from gatort.runtime.robots.panda import GRIPPER_OPEN_M, HOME_RAD, PROPRIOCEPTION
from gatort.runtime.spec import ObservationKey
from gatort.runtime.wording import counted

from .known_cubes import known_boxes
from .make import make_clearance
from .simulators.simulator import Array, Box

MARGIN_M: Final = 0.03
"""Smallest distance to an obstacle. A joint that lags by 0.03 rad under friction moves a tool 0.6 m
away by 18 mm. The rest is for the model's simple shapes and for errors of measured poses."""
STEP_RAD: Final = 0.01
"""Largest turn of a joint from posture to posture. It moves no part by more than 9 mm."""
_POSITION: Final = PROPRIOCEPTION[0].name
_WIDTH: Final = PROPRIOCEPTION[2].name
_BY_HAND: Final = "guide the arm away by hand first"


@dataclass(frozen=True, slots=True)
class WayHome:
    """Outcome of the check."""

    fact: Fact
    """Row of the checklist."""
    is_blocked: bool
    """True if an obstacle is on the way."""

    def require_free(self) -> None:
        """Check that no obstacle is on the way.

        Raises:
            ConfigError: one is. The sentence names it, its place on the way and the remedy.
        """
        if self.is_blocked:
            raise ConfigError(f"--demo home: {self.fact.attention}")


def check_way_home(robot: Robot, limits: ArmLimits) -> WayHome:
    """Observe a robot once, and check its way home.

    Args:
        robot: a Panda or FR3.
        limits: limits of its joints and of the tool's place.

    Raises:
        ObservationError: nothing was observed in time, or a pose has another number of values.
        RobotError: the robot no longer answers.
    """
    keys = {key.name: key for key in robot.interface.observations}
    observed = robot.observe().values
    values = dict(zip(keys, (value.astype(np.float64) for value in observed), strict=True))
    start = values[_POSITION]
    width_m = float(values[_WIDTH][0]) if _WIDTH in values else GRIPPER_OPEN_M
    if reason := _out_of_range(keys[_POSITION], start, limits):
        return _blocked(reason)
    boxes = known_boxes(robot, values)
    try:
        return check_way(start, width_m, boxes, limits)
    except MissingDependency as error:
        return WayHome(
            Fact("way home", "not checked", f"{error}; or look along it yourself"), False
        )


def check_way(start: Array, width_m: float, boxes: Sequence[Box], limits: ArmLimits) -> WayHome:
    """Check the way home from joints (7,) that are within their limits.

    Args:
        start: joints at the start of the way.
        width_m: opening of the hand, which stays.
        boxes: known cubes.
        limits: limits of the tool's place.

    Raises:
        MissingDependency: MuJoCo is absent.
    """
    arm = make_clearance(boxes)
    near = [(arm.nearest(joints, width_m), share) for share, joints in _postures(start)]
    nearest, share = min(near, key=lambda each: each[0].distance_m)
    obstacle = nearest.obstacle if nearest.obstacle == "table" else f"cube {nearest.obstacle}"
    if nearest.distance_m < MARGIN_M:
        remedy = _BY_HAND if obstacle == "table" else f"clear the {obstacle} away, or {_BY_HAND}"
        return _blocked(
            f"expected {1e3 * MARGIN_M:g} mm between arm and {obstacle}, found {nearest.part} "
            f"{_distance(nearest.distance_m)} {_place(share)}: {remedy}"
        )
    for share, joints in _postures(start):
        if reason := outside_box(limits, joints.tolist()):
            return _blocked(f"{_place(share)} {reason}: {_BY_HAND}")
    known = f"table and {counted(len(boxes), 'known cube')}"
    return WayHome(
        Fact(
            "way home",
            f"free of {known}: {1e3 * nearest.distance_m:.0f} mm or more to the {obstacle}",
        ),
        is_blocked=False,
    )


def _postures(start: Array) -> Iterator[tuple[float, Array]]:
    """Yield the share of the way, and the joints (7,) there."""
    way = HOME_RAD - start
    steps = max(1, math.ceil(np.abs(way).max() / STEP_RAD))
    for step in range(steps + 1):
        yield step / steps, start + way * (step / steps)


def _out_of_range(key: ObservationKey, start: Array, limits: ArmLimits) -> str | None:
    """Return why a joint cannot start where it is: at its limit, or outside its observed range."""
    low = np.maximum(np.array(limits.low_rad) + LIMIT_MARGIN_RAD, key.low)
    high = np.minimum(np.array(limits.high_rad) - LIMIT_MARGIN_RAD, key.high)
    for joint in np.flatnonzero(~((start >= low) & (start <= high)))[:1]:
        return (
            f"expected joint {joint + 1} from {low[joint]:.3f} to {high[joint]:.3f} rad, "
            f"found {start[joint]:.3f} {_place(0.0)}: guide it there by hand first"
        )
    return None


def _blocked(reason: str) -> WayHome:
    return WayHome(Fact("way home", "blocked", reason), is_blocked=True)


def _distance(metres: float) -> str:
    return f"{1e3 * metres:.0f} mm from it" if metres >= 0 else f"{-1e3 * metres:.0f} mm inside it"


def _place(share: float) -> str:
    return f"{share:.0%} along the way" if share > 0 else "at the start of the way"
