"""A person in a script, who takes over where a policy that stacks gets nowhere.

It drives as a person does: by velocities of the tool and an opening of the hand, through the same
controller. So tests and measurements need nobody at a keyboard.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np

from gatort.runtime.clock import Clock
from gatort.runtime.robot import Observation
from gatort.runtime.takeover.wish import Wish
from gatort.sim.robot import SimulatedRobot
from gatort.sim.tasks.computed_torque import upright

from .expert import Stage, choose_goal, stage_of, way_left_m
from .view import BlockView

GAIN_PER_S: Final = 3.0
"""Wanted velocity divided by the way to the expert's goal."""
PROGRESS_M: Final = 0.01
"""A way that shrinks by less than this is no progress."""
PATIENCE_S: Final = 1.0
"""Time without progress after which the person takes over."""
TILTED_RAD: Final = 0.3
"""Tilt of the tool at which the person takes over at once: the expert keeps it upright."""
SETTLED_NS: Final = 500_000_000
"""Time after a grasp, or after setting down, at which the person gives the arm back."""


class StackingPerson:
    """The stacking expert with a takeover device. Implements `TakeoverDevice`."""

    name = "script"
    help = "a script takes over where the policy gets nowhere"

    def __init__(self, robot: SimulatedRobot, clock: Clock, patience_s: float = PATIENCE_S) -> None:
        """Watch an arm that stacks, from now on.

        Args:
            robot: arm with a trial that has been laid out.
            clock: the loop's clock.
            patience_s: time without progress after which it takes over.
        """
        self._robot = robot
        self._clock = clock
        self._patience_ns = patience_s * 1e9
        self._drives = False
        self._began = self._stage = Stage.FETCH
        self._least_m = np.inf
        """Shortest way left in the present stage."""
        self._stage_ns = self._progress_ns = clock.now_ns()

    def wish(self, observation: Observation) -> Wish:  # noqa: ARG002
        """See `TakeoverDevice.wish`. The script sees the blocks themselves."""
        moment = self._robot.moment()
        view = BlockView.of(moment)
        tilt = upright(moment.arm.tool_rotation)
        self._judge(stage_of(view), way_left_m(view), float(np.linalg.norm(tilt)))
        goal = choose_goal(view)
        turn = tilt + np.array([0.0, 0.0, goal.yaw_rad])
        return Wish(
            stamp_ns=self._clock.now_ns(),
            drives=self._drives,
            linear_m_s=GAIN_PER_S * goal.step,
            angular_rad_s=GAIN_PER_S * turn,
            width_m=goal.width_m,
        )

    def _judge(self, stage: Stage, left_m: float, tilt_rad: float) -> None:
        """Take over without progress or with a tilted tool. Give back a while after the next stage
        was reached.
        """
        now_ns = self._clock.now_ns()
        if stage is not self._stage:
            self._stage, self._stage_ns = stage, now_ns
            self._least_m = np.inf
        if left_m < self._least_m - PROGRESS_M:
            self._least_m, self._progress_ns = left_m, now_ns

        is_stuck = now_ns - self._progress_ns > self._patience_ns
        if not self._drives and (is_stuck or tilt_rad > TILTED_RAD):
            self._drives = True
            self._began = stage
        elif self._drives and stage > self._began and now_ns - self._stage_ns > SETTLED_NS:
            self._drives = False
            self._progress_ns = now_ns

    @contextmanager
    def listening(self) -> Iterator[None]:
        """See `TakeoverDevice.listening`. A script is always heard."""
        yield
