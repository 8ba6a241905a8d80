"""`gatort robot`: an arm in a process of its own, which a controller drives over a wire."""

from __future__ import annotations

import os
import resource
import signal
import sys
import termios
import tty
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from pydantic import FiniteFloat, NonNegativeInt

from gatort.launch.options import resolve
from gatort.launch.report import require_writable
from gatort.runtime.clock import (
    Clock,
    MonotonicClock,
)
from gatort.runtime.errors import ConfigError
from gatort.runtime.inner_loop import InnerLoop
from gatort.runtime.machine import this_machine
from gatort.runtime.onlooker import Onlooker
from gatort.runtime.realtime import (
    RealtimeConfig,
    apply,
)
from gatort.runtime.recording.messages import RunRecord
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.recording.tick_recorder import StepRecorder
from gatort.runtime.remote.keys import RobotKeys
from gatort.runtime.remote.link import LinkConditions
from gatort.runtime.remote.server import (
    RobotServer,
    Status,
)
from gatort.runtime.robots.franka import FrankaRobot
from gatort.runtime.spec import Strict
from gatort.sim.make import simulated_robot

if TYPE_CHECKING:
    from gatort.runtime.robots.driver import Driver

ArmName = Literal["mujoco", "pybullet", "franka"]
REALTIME = RealtimeConfig(fifo_priority=50, lock_memory=True)
KEPT_LINES = 64


class RobotOptions(Strict):
    """A robot's process."""

    bind: str = "tcp://127.0.0.1:5555"
    """Where to listen; port 0 takes a free one, which the first line names."""
    keys: Path | None = None
    """Directory with robot.key and the controllers' public keys; only they are let in."""
    address: str = "172.16.0.2"
    """Of a Franka arm's control."""
    seed: NonNegativeInt = 5000
    """Draws the layout of a simulated arm's blocks."""
    interface: Literal["stack", "camera", "gato"] = "stack"
    """What MuJoCo's arm offers: poses of the blocks, two cameras of 64×64, or Gato's two of 128×128."""
    again: bool = False
    """Lay the blocks out anew, at the next seed, after each success and after 20 s without one."""
    safe_after_ms: FiniteFloat | None = None
    """Age of a command at which SAFE begins; two periods less 5 ms when it is not given."""
    record: Path | None = None
    """Record every step of the inner loop into this .mcap file."""
    realtime: bool = False
    """Ask for first place in the scheduler (SCHED_FIFO) and for memory that is never paged out."""
    link: Annotated[LinkConditions, Parameter(name="*")] = LinkConditions()
    """How each direction treats messages, for trials of a bad link."""


def robot(
    name: ArmName, /, *, options: Annotated[RobotOptions | None, Parameter(name="*")] = None
) -> int:
    """Let a controller drive an arm over a wire: physics, inner loop and watchdog in a process of their own.

    The arm starts disarmed, and `gatort run --robot tcp://…` arms it. Enter, space, Ctrl-Z and SIGUSR1 stop it, and
    then only the key `a` here or SIGUSR2 allows arming again. Ctrl-C stops it and ends the process.

    Parameters
    ----------
    name
        Which arm.
    """
    options = resolve(RobotOptions, options, None)
    clock = MonotonicClock()
    serve(name, _driver(name, options, clock), clock, options)
    return 0


def serve(name: ArmName, driver: Driver, clock: Clock, options: RobotOptions) -> None:
    """Be an arm's process until a signal ends it: scheduling, recording, console and wire; closes the driver.

    Raises:
        ConfigError: keys, address or recording are refused.
        RobotError: the arm failed.
    """
    with ExitStack() as stack:
        stack.enter_context(closing(driver))
        _allow_most_connections()
        keys = RobotKeys.load(options.keys) if options.keys is not None else None
        lines = stack.enter_context(Lines())
        realtime = REALTIME if options.realtime else RealtimeConfig()
        with apply(realtime):  # The threads that carry the messages go in front too.
            server = RobotServer(
                driver,
                clock,
                options.bind,
                name=name,
                simulated=name != "franka",
                keys=keys,
                conditions=options.link,
                next_trial=_layer(driver, options) if options.again else None,
                trial_ns=_trial_ns() if options.again else None,
                on_change=_reporter(lines, clock),
            )
        stack.enter_context(closing(server))
        # After it listens: an address that is in use must not cost the recording that stands there.
        if options.record is not None:
            stack.enter_context(_recorded(options.record, name, driver, clock, lines))
        for refused in stack.enter_context(apply(realtime)):
            lines.offer(refused)
        stack.enter_context(_console(server))
        lines.offer(
            f"{name} at {server.endpoint}, {'keyed' if options.keys else 'plain'}, disarmed"
        )
        # Closed before all else: finishing a recording may take seconds, in which nobody would drive the arm.
        with closing(server), closing(driver):
            server.serve()


def _allow_most_connections() -> None:
    """Each takes a descriptor, and once they are used up libzmq's thread asks for more without a pause."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _driver(name: ArmName, options: RobotOptions, clock: Clock) -> Driver:
    safe_after_ns = (
        round(options.safe_after_ms * 1e6) if options.safe_after_ms is not None else None
    )
    if name != "mujoco" and options.interface != "stack":
        raise ConfigError(
            f"only mujoco's arm has cameras: expected --interface stack for {name}, found {options.interface}"
        )
    if name == "franka":
        if not options.link.perfect:
            raise ConfigError(
                "a bad link is for a simulated arm: expected none of --delay-ms, --jitter-ms, --loss and --reorder "
                f"for franka, found {options.link.model_dump_json(exclude_defaults=True)}"
            )
        return FrankaRobot(options.address, clock, safe_after_ns=safe_after_ns)
    from gatort.sim.tasks.stacking.task import (
        CAMERA_SPEC,
        GATO_SPEC,
        STACK_SPEC,
    )

    specs = {"stack": STACK_SPEC, "camera": CAMERA_SPEC, "gato": GATO_SPEC}
    driver = simulated_robot(name, specs[options.interface], clock, options.seed)
    driver.inner_loop = InnerLoop(driver.interface, safe_after_ns)
    return driver


@contextmanager
def _recorded(
    path: Path, name: ArmName, driver: Driver, clock: Clock, lines: Lines
) -> Iterator[None]:
    require_writable(path)
    with Recorder(
        path, RunRecord.of(name, driver.interface, str(this_machine()), clock)
    ) as recorder:
        driver.on_step = StepRecorder(recorder)
        yield
        recorder.close(f"ended in {driver.state}")
    if recorder.degraded is not None:
        lines.offer(f"{path} is incomplete: {recorder.degraded}")


def _layer(driver: Driver, options: RobotOptions) -> Callable[[], None]:
    from gatort.sim.robot import StackingRobot

    if not isinstance(driver, StackingRobot):
        raise ConfigError(
            "--again lays out simulated blocks; nobody but you does so for a real arm"
        )
    seeds = count(options.seed + 1)
    return lambda: driver.lay_blocks(next(seeds))


def _trial_ns() -> int:
    from gatort.sim.tasks.stacking.task import TRIAL_SECONDS

    return round(TRIAL_SECONDS * 1e9)


def _reporter(lines: Lines, clock: Clock) -> Callable[[Status], None]:
    began_ns = clock.now_ns()
    return lambda status: lines.offer(
        f"{(clock.now_ns() - began_ns) * 1e-9:.1f} s: {_sentence(status)}"
    )


def _sentence(status: Status) -> str:
    who = (
        "stopped here, `a` allows arming"
        if status.blocked
        else "controlled"
        if status.controlled
        else "free"
    )
    return (
        f"{status.state}, {who}; successes: {status.successes}, given up: {status.given_up}, "
        f"commands dropped: {status.dropped}, malformed: {status.malformed}, foreign: {status.foreign}, "
        f"unknown keys: {status.unknown_keys}, broken handshakes: {status.handshakes}"
    )


class Lines(Onlooker):
    """Prints lines from a thread that the arm never waits for; a terminal that blocks loses the oldest."""

    def __init__(self) -> None:
        super().__init__("lines")
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)

    def offer(self, line: str) -> None:
        """Hand over a line; never waits."""
        self._lines.append(line)
        self._offered.set()

    def _show(self) -> None:
        for _ in self._offers():
            while self._lines:
                with suppress(
                    OSError
                ):  # The console may be gone, which must not end the arm's process.
                    print(self._lines.popleft(), flush=True)


@contextmanager
def _console(server: RobotServer) -> Iterator[None]:
    """Obey signals, and keys where there is a terminal."""
    ends = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)
    handlers = {each: signal.signal(each, lambda *_: server.end()) for each in ends}
    handlers[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, lambda *_: server.stop())
    # An arm whose process is suspended has no watchdog, so Ctrl-Z stops it, and in the background it keeps running.
    handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, lambda *_: server.stop())
    handlers |= {
        each: signal.signal(each, signal.SIG_IGN) for each in (signal.SIGTTIN, signal.SIGTTOU)
    }
    handlers[signal.SIGUSR2] = signal.signal(signal.SIGUSR2, lambda *_: server.allow_arming())
    try:
        with _keys(server):
            yield
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)


@contextmanager
def _keys(server: RobotServer) -> Iterator[None]:
    stdin = sys.stdin.fileno() if sys.stdin else -1
    # A process in the background would be suspended for touching the terminal.
    if not os.isatty(stdin) or os.tcgetpgrp(stdin) != os.getpgrp():
        yield
        return
    before = termios.tcgetattr(stdin)
    tty.setcbreak(stdin)
    Thread(target=_read_keys, args=(stdin, server), name="keys", daemon=True).start()
    try:
        yield
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


def _read_keys(stdin: int, server: RobotServer) -> None:
    with suppress(OSError):
        while key := os.read(stdin, 1):
            if key in (b"\n", b"\r", b" "):
                server.stop()
            elif key == b"a":
                server.allow_arming()
