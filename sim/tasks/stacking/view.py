"""The tool's view of red and blue, which the policy observes and the expert decides from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from gatort.sim.simulators.simulator import Array
from gatort.sim.tasks.task import Moment


@dataclass(frozen=True, slots=True)
class BlockView:
    """The policy's observation of the blocks in full precision. W is the world."""

    width_m: float
    """Opening of the gripper."""
    red_from_tool: Array
    """(3,) m in W."""
    blue_from_red: Array
    """(3,) m in W."""
    red_yaw_from_tool: float
    """rad, folded into ±π/4 because a cube looks the same after a quarter turn."""
    red_edge_m: float
    blue_edge_m: float

    @classmethod
    def of(cls, moment: Moment) -> Self:
        """Look at the blocks at one instant."""
        red, blue = moment.bodies["red"].position, moment.bodies["blue"].position
        red_edge_m, blue_edge_m = edges_m(moment)
        return cls(
            width_m=moment.arm.width_m,
            red_from_tool=red - moment.arm.tool_position,
            blue_from_red=blue - red,
            red_yaw_from_tool=red_yaw_from_tool(moment),
            red_edge_m=float(red_edge_m),
            blue_edge_m=float(blue_edge_m),
        )


def edges_m(moment: Moment) -> Array:
    """Return the edges of red and blue, (2,)."""
    red, blue, _ = moment.layout.cubes
    return np.array([red.edge_m, blue.edge_m])


def red_yaw_from_tool(moment: Moment) -> float:
    """Return the yaw of red's x axis from the tool's about the vertical, folded into ±π/4. rad."""
    rotation, tool = moment.bodies["red"].rotation, moment.arm.tool_rotation[:, 0]
    # The side of the cube that lies flattest stands for its yaw, so that a tipped block has one
    # too.
    axis = rotation[:, np.argsort(np.abs(rotation[2]))[0]]
    yaw = np.arctan2(axis[1], axis[0]) - np.arctan2(tool[1], tool[0])
    return float((yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4)
