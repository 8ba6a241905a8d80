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
        red, blue = moment.bodies["red"].position, moment.bodies["blue"].position
        edges = edges_m(moment)
        offset = red - blue
        gap = offset[2] - edges.mean()

        resting = abs(gap) < STACK_GAP_M and np.hypot(offset[0], offset[1]) < edges.min() / 2
        if not resting or abs(blue[2] - edges[1] / 2) > STACK_GAP_M:
            return False
        away = np.linalg.norm(moment.arm.tool_position - red) > AWAY_M
        opened = moment.arm.width_m > edges[0] + OPEN_MARGIN_M
        return bool(away and opened and touching("red", "blue"))

    def expert_action(self, moment: Moment, model: ArmModel) -> Array:
        """See `Task.expert_action`."""
        return expert.act(BlockView.of(moment), moment.arm, model)
