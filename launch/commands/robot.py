"""`gatort robot`: an arm in a process of its own, which a controller drives over a wire."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Annotated, Literal

from cyclopts import Parameter

from gatort.launch.options import resolve
from gatort.launch.real_cameras import arm_with_cameras
from gatort.launch.report import require_writable
from gatort.launch.robot_options import RobotOptions
from gatort.runtime.clock import Clock, MonotonicClock
from gatort.runtime.errors import ConfigError
from gatort.runtime.inner_loop import InnerLoop
from gatort.runtime.remote.serve import serve
from gatort.runtime.robots.franka import FrankaRobot
from gatort.sim.make import SimulatorName, make_robot
from gatort.sim.robot import SimulatedRobot
from gatort.sim.tasks import task_named

ArmName = Literal["mujoco", "pybullet", "franka"]


def robot(
    name: ArmName, /, *, options: Annotated[RobotOptions | None, Parameter(name="*")] = None
) -> int:
    """Let a controller drive an arm over a wire.

    Physics, inner loop and watchdog run in a process of their own. The arm starts disarmed, and
    `gatort run --robot tcp://…` arms it. Enter, space, Ctrl-Z and SIGUSR1 stop the arm. Then only
    the key `a` and Enter here, or SIGUSR2, allow arming again. Ctrl-C stops the arm and ends the
    process.

    Parameters
    ----------
    name
        Arm to drive.
    """
    options = resolve(RobotOptions, options, None)
    require_writable(options.record)
    clock = MonotonicClock()

    if name == "franka":
        _require_real(options)
        driver = FrankaRobot(options.address, clock, safe_after_ns=_safe_after_ns(options))
        with arm_with_cameras(driver, options.cameras, clock) as seeing:
            serve(name, seeing, clock, options, simulated=False)
        return 0

    arm = _simulated_arm(name, options, clock)
    with arm_with_cameras(arm, options.cameras, clock) as seeing:
        serve(
            name,
            seeing,
            clock,
            options,
            simulated=True,
            next_trial=_next_layout(arm, options.seed) if options.again else None,
            trial_ns=round(arm.task.seconds * 1e9) if options.again else None,
        )
    return 0


def _require_real(options: RobotOptions) -> None:
    """Refuse the options of a simulated arm for a real one."""
    if options.interface is not None:
        raise ConfigError(
            "--interface is for a simulated arm: "
            f"leave it out for franka, found {options.interface}"
        )
    if options.again:
        raise ConfigError(
            "--again lays out simulated blocks: "
            "leave it out for franka, where only a person can lay them out"
        )
    if not options.link.perfect:
        raise ConfigError(
            "a bad link is for a simulated arm: expected none of --delay-ms, --jitter-ms, --loss "
            f"and --reorder for franka, found {options.link.model_dump_json(exclude_defaults=True)}"
        )


def _safe_after_ns(options: RobotOptions) -> int | None:
    return round(options.safe_after_ms * 1e6) if options.safe_after_ms is not None else None


def _simulated_arm(name: SimulatorName, options: RobotOptions, clock: Clock) -> SimulatedRobot:
    task = task_named(options.task)
    spec = task.interface_named(options.interface) if options.interface else task.interface
    arm = make_robot(name, task, clock, spec, options.seed)
    arm.inner_loop = InnerLoop(arm.interface, _safe_after_ns(options))
    return arm


def _next_layout(arm: SimulatedRobot, seed: int) -> Callable[[], None]:
    """Return a function that lays the task out at the next seed each time that it is called."""
    seeds = count(seed + 1)
    return lambda: arm.lay_out(next(seeds))
