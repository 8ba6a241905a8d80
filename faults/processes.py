"""Faults of whole processes (rows 14 to 16 and 27): killed or suspended, at both ends."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from functools import partial

from gatort.runtime.errors import RobotError
from gatort.runtime.safety import STOPPED, State

from .bench import Bench
from .judging import InjectionResult, ms, must_stop, seeded
from .loop_bench import MS, PERIOD_NS
from .run_process import END_S, running

AFTER_RESUME_NS = 400 * MS


def controller_killed(bench: Bench, seed: int) -> InjectionResult:
    """SIGKILL of `gatort run`; the next controller finds the arm disarmed."""
    arm = bench.arm
    with running(arm.endpoint, bench.new_folder()) as run:
        armed_ns = bench.wait_for_motion(arm, run)
        bench.wait_within_a_tick(seeded(seed))
        killed_ns = bench.clock.now_ns()
        run.process.kill()
        result = must_stop(arm, armed_ns, killed_ns)
    with bench.controller(arm) as robot:
        robot.observe()
        if robot.state not in STOPPED:
            return replace(result, wrong=f"the next controller found the arm in {robot.state}")
    return result


def controller_suspended(bench: Bench, seed: int) -> InjectionResult:
    """SIGSTOP of `gatort run`, and SIGCONT once the arm is at rest: nothing moves after it."""
    arm = bench.arm
    with running(arm.endpoint, bench.new_folder()) as run:
        armed_ns = bench.wait_for_motion(arm, run)
        bench.wait_within_a_tick(seeded(seed))
        stopped_ns = bench.clock.now_ns()
        run.process.send_signal(signal.SIGSTOP)
        # A command sent before the signal takes effect after it, and its age counts from there.
        arm.rest()
        fault_ns = max(stopped_ns, arm.sensors.last_effect_ns)
        result = must_stop(arm, armed_ns, fault_ns)

        resumed_ns = bench.clock.now_ns()
        run.process.send_signal(signal.SIGCONT)
        bench.wait(AFTER_RESUME_NS)
        after = arm.trace.since(resumed_ns)
        run.process.wait(END_S)
    if after.sequence != [State.LATCHED] or (after.values != after.values[:1]).any():
        return replace(result, wrong="something moved after SIGCONT without new consent")
    return result


def _door_fails(number: signal.Signals, bench: Bench, seed: int) -> InjectionResult:
    """Send a signal to the arm's door: the arm stops, and the next door finds it at rest."""
    with bench.own_arm() as arm, running(arm.endpoint, bench.new_folder()) as run:
        armed_ns = bench.wait_for_motion(arm, run)
        bench.wait_within_a_tick(seeded(seed))
        sent_ns = bench.clock.now_ns()
        os.kill(arm.door_pid, number)
        arm.rest()
        # The age of a command that passed a silent door counts from its effect.
        is_silent = number is signal.SIGSTOP
        fault_ns = max(sent_ns, arm.sensors.last_effect_ns) if is_silent else sent_ns
        result = must_stop(arm, armed_ns, fault_ns)

        listens = arm.wait_until(lambda: "the door listens again" in arm.said)
        run.process.wait(END_S)
        if not listens:
            return replace(result, wrong="no other door was started")
        with bench.controller(arm) as robot:
            robot.observe()
            if robot.state not in STOPPED:
                return replace(result, wrong=f"after it the arm was found in {robot.state}")
    return result


door_killed = partial(_door_fails, signal.SIGKILL)
door_suspended = partial(_door_fails, signal.SIGSTOP)


def robot_killed(bench: Bench, seed: int) -> InjectionResult:
    """SIGKILL of the arm's process: the controller says so and ends.

    There is no torque to time: what a dead process leaves on its motors is the arm's own affair.
    """
    killed: list[int] = []
    with bench.own_arm() as arm:

        def kill() -> None:
            killed.append(bench.clock.now_ns())
            arm.process.kill()

        wait_s = 0.5 + seeded(seed).uniform(0, PERIOD_NS * 1e-9)
        with bench.controller(arm) as robot, bench.after(wait_s, kill):
            drive = bench.drive(robot)
        steps = arm.trace.since(drive.began_ns)
    if drive.error is None:
        drive.require_end()
    wrong = steps.fault()
    if not isinstance(drive.error, RobotError) or "hung up" not in str(drive.error):
        wrong = f"expected the controller to say that the robot hung up, found {drive.error}"
    return InjectionResult(ms(killed[0], drive.ended_ns), None, wrong)
