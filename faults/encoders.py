"""Faults of the joints' own sensors (row 25), which the arm's envelope must notice by itself.

The controller's observations stay good, so nobody but the arm can know.
"""

from __future__ import annotations

from .judging import InjectionResult, must_stop
from .loop_bench import LoopBench
from .sensor_memory import SensorFault
from .sensors import good_ticks


def encoder(fault: SensorFault, bench: LoopBench, seed: int) -> InjectionResult:
    """Spoil the readings that the arm's inner loop has, in the middle of a run."""
    arm = bench.new_arm  # Readings that repeat are a fault only under torque.
    arm.sensors.ask(fault, good_ticks(seed))
    with bench.controller(arm) as robot:
        drive = bench.drive(robot)
    drive.require_fault(arm.sensors.began_ns > 0)
    return must_stop(arm, drive.began_ns, arm.sensors.began_ns)
