"""`gatort robot`: an arm in a process of its own, which a controller drives over a wire."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from gatort.launch.options import resolve
from gatort.launch.report import require_writable
from gatort.launch.robot_options import RobotOptions
from gatort.launch.robots import simulated_robot
from gatort.runtime.clock import Clock, MonotonicClock
from gatort.runtime.errors import ConfigError
from gatort.runtime.inner_loop import InnerLoop
from gatort.runtime.remote.serve import serve
from gatort.runtime.robots.franka import FrankaRobot

if TYPE_CHECKING:
    from gatort.sim.robot import StackingRobot

ArmName = Literal["mujoco", "pybullet", "franka"]
SimulatedName = Literal["mujoco", "pybullet"]


def robot(
    name: ArmName, /, *, options: Annotated[RobotOptions | None, Parameter(name="*")] = None
) -> int:
    """Let a controller drive an arm over a wire: physics, inner loop and watchdog in a process of
    their own.

    The arm starts disarmed, and `gatort run --robot tcp://…` arms it. Enter, space, Ctrl-Z and
    SIGUSR1 stop the arm. Then only the key `a` here or SIGUSR2 allows arming again. Ctrl-C stops
    the arm and ends the process.

    Parameters
    ----------
    name
        Which arm to drive.
    """
    options = resolve(RobotOptions, options, None)
    require_writable(options.record)
    _check(name, options)
    clock = MonotonicClock()

    if name == "franka":
        driver = FrankaRobot(options.address, clock, safe_after_ns=_safe_after_ns(options))
        serve(name, driver, clock, options, simulated=False)
        return 0

    from gatort.sim.tasks.stacking.task import TRIAL_SECONDS

    arm = _simulated_arm(name, options, clock)
    serve(
        name,
        arm,
        clock,
        options,
        simulated=True,
        next_trial=_next_layout(arm, options.seed) if options.again else None,
        trial_ns=round(TRIAL_SECONDS * 1e9) if options.again else None,
    )
    return 0


def _check(name: ArmName, options: RobotOptions) -> None:
    if name != "mujoco" and options.interface != "stack":
        raise ConfigError(
            "only mujoco's arm has cameras: "
            f"expected --interface stack for {name}, found {options.interface}"
        )
    if name != "franka":
        return
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


def _simulated_arm(name: SimulatedName, options: RobotOptions, clock: Clock) -> StackingRobot:
    from gatort.sim.tasks.stacking.task import CAMERA_SPEC, GATO_SPEC, STACK_SPEC

    specs = {"stack": STACK_SPEC, "camera": CAMERA_SPEC, "gato": GATO_SPEC}
    arm = simulated_robot(name, specs[options.interface], clock, options.seed)
    arm.inner_loop = InnerLoop(arm.interface, _safe_after_ns(options))
    return arm


def _next_layout(arm: StackingRobot, seed: int) -> Callable[[], None]:
    """Return a function that lays the blocks out at the next seed each time that it is called."""
    seeds = count(seed + 1)
    return lambda: arm.lay_blocks(next(seeds))
