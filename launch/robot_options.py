"""Options of `gatort robot`: the settings of the arm's process, and which arm it drives."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter
from pydantic import FiniteFloat, NonNegativeInt

from gatort.runtime.remote.link import LinkConditions
from gatort.runtime.remote.serve import ServeConfig


class RobotOptions(ServeConfig):
    """Settings of `gatort robot`."""

    link: Annotated[LinkConditions, Parameter(name="*")] = LinkConditions()
    """Simulated faults of the link, the same in each direction. For a simulated arm only."""
    address: str = "172.16.0.2"
    """IP address of the Franka control box."""
    seed: NonNegativeInt = 5000
    """Seed of the layout of a simulated arm's blocks."""
    interface: Literal["stack", "camera", "gato"] = "stack"
    """Observations that MuJoCo's arm offers: poses of the blocks, two cameras of 64×64, or two of
    128×128 (Gato's)."""
    again: bool = False
    """Lay the blocks out anew, at the next seed, after each success and after 20 s without one."""
    safe_after_ms: FiniteFloat | None = None
    """Age of a command at which SAFE begins, in ms. Two periods minus 5 ms by default."""
