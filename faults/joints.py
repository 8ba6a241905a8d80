"""Faults of the joints that the arm's envelope must notice by itself (rows 25 and 28 to 30).

Its own sensors fail while the controller's observations stay good, or a joint is pressed against
something. Nobody but the arm can know.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.loop import TickRecord

from .judging import InjectionResult, must_stop
from .loop_bench import LoopBench
from .seams import change_actions
from .sensor_memory import SensorFault
from .sensors import good_ticks

PRESSING_NM = 20.0
"""Torque of joint 2 that lowers the hand onto the table and presses it there."""
PRESSING_RAD = np.array([0.0, 0.0, 0.0, -2.2, 0.0, 2.2, 0.8])
"""Posture that the other joints keep meanwhile."""
STIFFNESS_NM_RAD = 12.0
PRESSING_TICKS = 80
"""Ticks within which the hand reaches the table and is stopped there."""


def encoder(fault: SensorFault, bench: LoopBench, seed: int) -> InjectionResult:
    """Spoil the readings that the arm's inner loop has, in the middle of a run."""
    arm = bench.new_arm  # Readings that repeat are a fault only under torque.
    arm.sensors.ask(fault, good_ticks(seed))
    with bench.controller(arm) as robot:
        drive = bench.drive(robot)
    drive.require_fault(arm.sensors.began_ns > 0)
    return must_stop(arm, drive.began_ns, arm.sensors.began_ns)


def pressed(fault: SensorFault, bench: LoopBench, _: int) -> InjectionResult:
    """Press the hand onto the table. Times count from the instant at which joint 2 stood still."""
    arm = bench.new_arm
    arm.sensors.ask(fault)
    pressing = _Pressing()
    with bench.controller(arm) as robot:
        drive = bench.drive(
            robot,
            PRESSING_TICKS,
            prepare=lambda loop: change_actions(loop, pressing.change),
            on_tick=pressing.see,
        )
    drive.require_fault(arm.sensors.began_ns > 0)
    return must_stop(arm, drive.began_ns, arm.sensors.began_ns)


class _Pressing:
    """Torques that press the hand down, instead of the policy's."""

    def __init__(self) -> None:
        self._position_rad = PRESSING_RAD

    def see(self, tick: TickRecord) -> None:
        """Take the joints' positions, the first key of an observation."""
        if tick.observation is not None:
            self._position_rad = tick.observation.values[0].astype(np.float64)

    def change(self, action: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the action (A,) that presses."""
        pressing = action.copy()
        pressing[:7] = STIFFNESS_NM_RAD * (PRESSING_RAD - self._position_rad)
        pressing[1] = PRESSING_NM
        return pressing
