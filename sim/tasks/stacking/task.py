"""RGB stacking: put the red block on the blue one (Lee et al., arXiv 2110.06192).

The green block is in the way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from gatort.runtime.spec import PolicySpec
from gatort.sim.simulators.simulator import ArmModel, Array, Box, Pose, Scene
from gatort.sim.tasks.task import Layout, Moment, Task, Touching

from . import expert
from .layout import BLOCKS, EDGES_M, draw_layout
from .specifications import CAMERA_SPEC, GATO_SPEC, STACK_SPEC
from .view import BlockView, edges_m, red_yaw_from_tool

AWAY_M: Final = 0.06
"""The tool is away from red beyond this distance."""
STACK_GAP_M: Final = 0.005
"""Largest error in height of a block that rests."""
OPEN_MARGIN_M: Final = 0.005
"""The gripper is open once it is this much wider than red."""
REACH_M: Final = 0.03
"""The tool is at red within this distance: a block's edge is no longer than 5 cm."""
LIFT_M: Final = 0.02
"""Red is lifted once it is this much higher than on the table."""


class Stacking(Task):
    """Red rests on blue, with the gripper open and away, for half a second."""

    name = "stacking"
    interfaces: ClassVar[Mapping[str, PolicySpec]] = {
        "stack": STACK_SPEC,
        "camera": CAMERA_SPEC,
        "gato": GATO_SPEC,
    }
    seconds = 20.0  # 400 steps at 20 Hz, as in the paper.
    hold_s = 0.5
    scene = Scene(Path(__file__).with_name("scene.xml"), cubes=BLOCKS)
    seen = ("red", "blue")
    stages = ("reached", "grasped", "lifted", "placed", "released")
    cube_edges_m = EDGES_M

    def layout(self, seed: int) -> Layout:
        """See `draw_layout`."""
        return draw_layout(seed)

    def read(self, key: str, moment: Moment) -> Array:
        """See `Task.read`."""
        red, blue = moment.bodies["red"].position, moment.bodies["blue"].position
        match key:
            case "blocks/blue_from_red":
                return blue - red
            case "blocks/edge":
                return edges_m(moment)
            case "blocks/red_from_tool":
                return red - moment.arm.tool_position
            case "blocks/red_yaw_from_tool":
                return np.array([red_yaw_from_tool(moment)])
            case _:
                raise KeyError(key)

    def cubes_of(self, values: Mapping[str, Array], tool_m: Array) -> list[Box]:
        """See `Task.cubes_of`: red and blue. No key tells where green is."""
        keys = "blocks/red_from_tool", "blocks/blue_from_red", "blocks/edge"
        if not all(key in values for key in keys):
            return []
        red_from_tool, blue_from_red, edges = (values[key] for key in keys)
        red = tool_m + red_from_tool
        return [
            Box(name, Pose(place, np.eye(3)), float(edge) * math.sqrt(2))
            for name, place, edge in zip(self.seen, (red, red + blue_from_red), edges, strict=True)
        ]

    def holds(self, moment: Moment, touching: Touching) -> bool:
        """Check if red rests on blue, blue on the table, and the gripper is open and away."""
        away = _tool_from_red_m(moment) > AWAY_M
        return away and _is_open(moment) and _is_stacked(moment) and touching("red", "blue")

    def is_at(self, stage: str, moment: Moment, touching: Touching) -> bool:
        """See `Task.is_at`."""
        match stage:
            case "reached":
                return _tool_from_red_m(moment) < REACH_M
            case "grasped":
                return _tool_from_red_m(moment) < REACH_M and not _is_open(moment)
            case "lifted":
                height_m = moment.bodies["red"].position[2] - edges_m(moment)[0] / 2
                return bool(height_m > LIFT_M) and _tool_from_red_m(moment) < REACH_M
            case "placed":
                return _is_stacked(moment) and touching("red", "blue")
            case "released":
                return _is_open(moment) and _is_stacked(moment) and touching("red", "blue")
            case _:
                raise KeyError(stage)

    def expert_action(self, moment: Moment, model: ArmModel) -> Array:
        """See `Task.expert_action`."""
        return expert.act(BlockView.of(moment), moment.arm, model)


def _is_stacked(moment: Moment) -> bool:
    """Check if red is as high above blue as a block that rests on it, and blue on the table."""
    red, blue = moment.bodies["red"].position, moment.bodies["blue"].position
    edges = edges_m(moment)
    offset = red - blue
    resting = abs(offset[2] - edges.mean()) < STACK_GAP_M
    above = np.hypot(offset[0], offset[1]) < edges.min() / 2
    return bool(resting and above and abs(blue[2] - edges[1] / 2) <= STACK_GAP_M)


def _is_open(moment: Moment) -> bool:
    return bool(moment.arm.width_m > edges_m(moment)[0] + OPEN_MARGIN_M)


def _tool_from_red_m(moment: Moment) -> float:
    return float(np.linalg.norm(moment.arm.tool_position - moment.bodies["red"].position))
