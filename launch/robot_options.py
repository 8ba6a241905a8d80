"""Options of `gatort robot`: the settings of the arm's process, and which arm it drives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from pydantic import Field, FiniteFloat

from gatort.runtime.remote.link import LinkConditions
from gatort.runtime.remote.serve import ServeConfig
from gatort.runtime.robots.franka.robot import FrankaConfig
from gatort.runtime.safety import LONGEST_VALIDITY_NS
from gatort.runtime.spec import Seed


class RobotOptions(ServeConfig):
    """Settings of `gatort robot`."""

    link: Annotated[LinkConditions, Parameter(name="*")] = LinkConditions()
    """Simulated faults of the link, the same in each direction. For a simulated arm only."""
    franka: Annotated[FrankaConfig, Parameter(name="*")] = FrankaConfig()
    """Connection and settings of a Franka arm."""
    driver: str | None = None
    """Class of an arm of your own, `module:Class`, instead of a name: a subclass of `gatort.Driver`
    in a module on Python's path or in this directory."""
    seed: Seed = 5000
    """Seed of the layout of a simulated arm's task."""
    task: str = "stacking"
    """Task of a simulated arm."""
    interface: str | None = None
    """Observations that a simulated arm offers: an interface of its task.

    Default: the first one.
    """
    again: bool = False
    """Lay the task out anew at the next seed after each trial, successful or not."""
    safe_after_ms: Annotated[FiniteFloat, Field(gt=0, le=LONGEST_VALIDITY_NS * 1e-6)] | None = None
    """Time from the instant at which the last command took effect until SAFE begins, in ms.

    At least one period, which is 50 ms for gatort's own arms. Default: two periods minus 5 ms."""
    cameras: Path | None = None
    """Launch profile with `[cameras.NAME]` tables: cameras of this computer, which add pictures to
    the arm's observations."""
