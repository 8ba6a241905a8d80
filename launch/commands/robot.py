"""`gatort robot`: an arm in a process of its own, which a controller drives over a wire."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gatort.console.beside_robot import console_of_robot
from gatort.console.flags import ConsoleFlags
from gatort.launch.options import config_text, resolve
from gatort.launch.outputs import require_writable
from gatort.launch.real_cameras import arm_with_cameras
from gatort.launch.refusals import refuse_fields, refuse_ignored
from gatort.launch.report import fact_table, screen
from gatort.launch.robot_options import RobotOptions
from gatort.runtime.clock import Clock, MonotonicClock
from gatort.runtime.errors import ConfigError
from gatort.runtime.exit_status import ExitStatus
from gatort.runtime.extensions import load, load_named, make_driver, offered
from gatort.runtime.inner_loop import InnerLoop
from gatort.runtime.remote.serve import serve
from gatort.runtime.robots.driver import Driver
from gatort.runtime.robots.franka.robot import FrankaRobot
from gatort.sim.make import SIMULATORS, SimulatorName, make_robot
from gatort.sim.robot import SimulatedRobot
from gatort.sim.tasks import task_named

FRANKA = "franka"
"""Name of the real arm that gatort drives itself."""


def robot(
    name: str | None = None,
    /,
    *,
    options: Annotated[RobotOptions | None, Parameter(name="*")] = None,
    profile: Path | None = None,
    print_config: Annotated[bool, Parameter(negative="")] = False,
    browser: Annotated[ConsoleFlags | None, Parameter(name="*")] = None,
) -> int:
    """Let a controller drive an arm over a wire.

    Physics, inner loop and watchdog run in a process of their own. The arm starts disarmed, and
    `gatort run --robot tcp://…` arms it. Enter, space, Ctrl-Z and SIGUSR1 stop the arm. Then only
    the key `a` and Enter here, or SIGUSR2, allow arming again. The key `s` at a real arm tells the
    controller that the task is done. Ctrl-C stops the arm and ends the process.

    Parameters
    ----------
    name
        Arm to drive: mujoco, pybullet, franka, or one that an installed package offers as an
        entry point of the group gatort.robots. With --driver it is left out.
    profile
        Launch profile: a TOML file, or the name of a shipped one. A flag overrides the file.
    print_config
        Print the effective configuration as a launch profile, and end.
    """
    simulator = next((each for each in SIMULATORS if each == name), None)
    if simulator is None:
        refuse_fields(f"on {name}, which is not simulated", options, "seed", "task")
    elif options is not None and options.franka.model_fields_set:
        franka = options.franka
        refuse_fields(f"on {name}: it is for a Franka arm", franka, *type(franka).model_fields)
    options = resolve(RobotOptions, options, profile)
    if options.link.perfect:
        refuse_fields("on a link without delay, jitter, loss or reorder", options.link, "link_seed")
    beside = browser or ConsoleFlags()
    has_console = beside.address is not None
    if print_config:
        refuse_ignored("with --print-config", console=has_console)
        print(config_text(options), end="")
        return ExitStatus.DONE
    name = _name_of_arm(name, options.driver)
    require_writable(record=options.record)
    clock = MonotonicClock()
    say = partial(screen().print, soft_wrap=True)

    if simulator is None:
        driver = _real_arm(name, options, clock)
        if driver.facts:
            screen(stderr=True).print(fact_table(driver.facts))
        with (
            arm_with_cameras(driver, options.cameras, clock) as seeing,
            console_of_robot(name, seeing, clock, beside, say) as on_turn,
        ):
            return serve(name, seeing, clock, options, simulated=False, on_turn=on_turn)

    arm = _simulated_arm(simulator, options, clock)
    with (
        arm_with_cameras(arm, options.cameras, clock) as seeing,
        console_of_robot(name, seeing, clock, beside, say) as on_turn,
    ):
        return serve(
            name,
            seeing,
            clock,
            options,
            simulated=True,
            next_trial=_next_layout(arm, options.seed) if options.again else None,
            trial_ns=round(arm.task.seconds * 1e9) if options.again else None,
            on_turn=on_turn,
        )


def _name_of_arm(name: str | None, place: str | None) -> str:
    """Return the arm's name, or the place of its class."""
    if (chosen := name or place) is None or (name is not None and place is not None):
        found = "neither" if chosen is None else f"both, {name} and {place}"
        raise ConfigError(
            f"expected an arm, such as {SIMULATORS[0]}, or --driver module:Class, found {found}"
        )
    return chosen


def _real_arm(name: str, options: RobotOptions, clock: Clock) -> Driver:
    """Connect to a Franka arm, or make the driver of another package or of a module.

    Raises:
        ConfigError: there is no such arm, or its object makes no driver.
    """
    if options.driver is None and name not in (names := [FRANKA, *offered("gatort.robots")]):
        valid = ", ".join(dict.fromkeys([*SIMULATORS, *names]))
        raise ConfigError(
            f"expected an arm, one of {valid}, found {name!r}; "
            "a package offers more as entry points (docs/extend.md)"
        )
    _require_real(name, options)
    if name == FRANKA:
        return FrankaRobot(options.franka, clock, safe_after_ns=_safe_after_ns(options))
    if "franka" in options.model_fields_set:
        raise ConfigError(
            f"--address and other settings of a Franka arm are for franka: "
            f"leave them out for {name}"
        )

    maker = load("gatort.robots", name) if options.driver is None else load_named(name)
    driver = make_driver(name, maker, clock)
    if options.safe_after_ms is not None:
        driver.inner_loop = InnerLoop(driver.interface, _safe_after_ns(options))
    return driver


def _require_real(name: str, options: RobotOptions) -> None:
    """Refuse the options of a simulated arm for a real one."""
    if options.interface is not None:
        raise ConfigError(
            "--interface is for a simulated arm: "
            f"leave it out for {name}, found {options.interface}"
        )
    if options.again:
        raise ConfigError(
            "--again lays out simulated blocks: "
            f"leave it out for {name}, where only a person can lay them out"
        )
    if not options.link.perfect:
        raise ConfigError(
            "a bad link is for a simulated arm: expected none of --delay-ms, --jitter-ms, --loss "
            f"and --reorder for {name}, found {options.link.model_dump_json(exclude_defaults=True)}"
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
