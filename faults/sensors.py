"""Faults of sensors (rows 1 to 3, 31 and 32): frozen, absent, too fast, or not to be believed."""

from __future__ import annotations

from gatort.runtime.guard import Refusal
from gatort.runtime.safety import State

from .drive import Drive
from .judging import Deviation, InjectionResult, compare_refusals, ms, must_stop, seeded
from .loop_bench import LoopBench
from .sensor_memory import SensorFault

GOOD_TICKS = 6


def good_ticks(seed: int) -> int:
    """Return the number of good ticks before the fault."""
    return GOOD_TICKS + int(seeded(seed).integers(10))


def sensor(fault: SensorFault, bench: LoopBench, seed: int) -> InjectionResult:
    """Let a sensor fail in the middle of a run.

    A frozen sensor counts from its last good reading, which stood for a whole tick before anyone
    could know. An absent or wrong reading counts from the instant at which it was due.
    """
    arm = bench.ask_sensors(fault, good_ticks(seed))
    with bench.controller(arm) as robot:
        drive = bench.drive(robot)
    sensors = arm.sensors
    drive.require_fault(sensors.began_ns > 0)

    fault_ns = sensors.last_good_ns if fault.endswith("frozen") else sensors.began_ns
    deviation = _refused_observations(drive, fault)
    begun_after = [tick for _, tick in drive.ticks if tick.wake.woke_ns >= sensors.began_ns]
    # An absent sensor gives readings again once the arm has stopped, within the last tick.
    if not fault.endswith("absent") and any(tick.decision is not None for tick in begun_after):
        deviation = Deviation(wrong="the policy was asked about a bad observation")
    return must_stop(arm, drive.began_ns, fault_ns, drive.refused_ns(), deviation)


def repeated(fault: SensorFault, bench: LoopBench, seed: int) -> InjectionResult:
    """Let a sensor repeat its values under new stamps. Times count from its last good reading."""
    arm = bench.ask_sensors(fault, good_ticks(seed))
    with bench.controller(arm) as robot:
        drive = bench.drive(robot)
    drive.require_fault(arm.sensors.began_ns > 0)
    deviation = _refused_observations(drive, fault)
    return must_stop(arm, drive.began_ns, arm.sensors.last_good_ns, drive.refused_ns(), deviation)


def other_unit(fault: SensorFault, bench: LoopBench, _: int) -> InjectionResult:
    """Let an arm report degrees. A controller must refuse to arm it."""
    arm = bench.ask_sensors(fault, 0)
    with bench.controller(arm) as robot:
        drive = bench.drive(robot)
    wrong = None
    if "check the unit" not in str(drive.error):
        wrong = f"expected a refusal that names the unit, found {drive.error}"
    elif arm.trace.since(drive.began_ns).first(State.RUN):
        wrong = "the arm was armed"
    return InjectionResult(ms(drive.began_ns, drive.ended_ns), wrong=wrong)


def _refused_observations(drive: Drive, fault: SensorFault) -> Deviation:
    found = drive.guard.refused[Refusal.OBSERVATION]
    if fault.endswith("absent") and found:
        # Waiting takes so long that the robot's watchdog may come before the second refusal.
        return Deviation()
    return compare_refusals(drive, {Refusal.OBSERVATION: 2})
