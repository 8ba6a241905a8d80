"""An arm's process, until a signal ends it.

Scheduling, recording, console and wire are put around one driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from gatort.runtime.clock import Clock
from gatort.runtime.machine import this_machine
from gatort.runtime.realtime import ARM_PRIORITY, RealtimeConfig, apply
from gatort.runtime.recording.messages import RunRecord
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.recording.tick_recorder import StepRecorder
from gatort.runtime.robots.driver import Driver
from gatort.runtime.spec import Strict

from .bad_link import BadLink
from .console import Lines, console
from .door import Door
from .door_link import DoorSettings
from .link import LinkConditions
from .server import RobotServer, RobotStatus
from .transport import RobotTransport
from .trial_keeper import TrialKeeper

REALTIME = RealtimeConfig(fifo_priority=50, lock_memory=True)
"""Scheduling of the arm's process where real time is asked for."""


class ServeConfig(Strict):
    """Settings of an arm's process."""

    bind: str = "tcp://127.0.0.1:5555"
    """Address to listen on. Port 0 takes a free port, which the first line of output names."""
    keys: Path | None = None
    """Directory with robot.key and the public keys of the controllers (controller*.pub). No other
    key may connect."""
    record: Path | None = None
    """File (.mcap) that records every step of the inner loop."""
    realtime: bool = False
    """Ask for real-time scheduling (SCHED_FIFO) and for memory that is never paged out."""
    link: LinkConditions = LinkConditions()
    """Simulated faults of the link, the same in each direction. For a simulated arm only."""


def serve(
    name: str,
    driver: Driver,
    clock: Clock,
    config: ServeConfig,
    *,
    simulated: bool,
    next_trial: Callable[[], None] | None = None,
    trial_ns: int | None = None,
) -> None:
    """Let controllers drive an arm until a signal ends the process. Close the driver.

    Args:
        name: name of the robot, for its controllers.
        driver: the arm.
        clock: the driver's clock.
        config: settings of the process.
        simulated: true if only a simulation moves.
        next_trial: lays a simulated arm's task out anew after each trial.
        trial_ns: longest time of one trial; without end when absent.

    Raises:
        ConfigError: the keys, the address or the recording cannot be used.
        RobotError: the arm failed.
    """
    with ExitStack() as stack:
        stack.enter_context(closing(driver))
        lines = stack.enter_context(Lines())
        realtime = REALTIME if config.realtime else RealtimeConfig()
        transport = stack.enter_context(closing(_listen(config, clock, lines)))

        trials = TrialKeeper(driver, clock, next_trial, trial_ns) if simulated else None
        server = RobotServer(
            driver,
            clock,
            transport,
            name=name,
            simulated=simulated,
            trials=trials,
            on_change=_reporter(lines, clock),
        )

        # Opened after the address is bound: an address in use must not overwrite an old recording.
        if config.record is not None:
            stack.enter_context(_recorded(config.record, name, driver, clock, lines))
        scheduling = stack.enter_context(apply(realtime, ARM_PRIORITY))
        for refused in scheduling.refused:
            lines.offer(refused)
        stack.enter_context(console(server))
        lines.offer(
            f"{name} at {server.endpoint}, {'plain' if config.keys is None else 'keyed'}, disarmed"
        )

        # Closed before all else: finishing a recording may take seconds, in which nobody would
        # drive the arm.
        with closing(server), closing(driver):
            server.serve()


def _listen(config: ServeConfig, clock: Clock, lines: Lines) -> RobotTransport:
    """Return the door, behind a simulated bad link only where one was asked for."""
    keys = str(config.keys) if config.keys is not None else None
    door = Door(DoorSettings(config.bind, keys), clock, lines.offer)
    return door if config.link.perfect else BadLink(door, config.link, clock)


@contextmanager
def _recorded(path: Path, name: str, driver: Driver, clock: Clock, lines: Lines) -> Iterator[None]:
    """Record every inner step. Say so if the recording is incomplete."""
    record = RunRecord.of(name, driver.interface, str(this_machine()), clock)
    with Recorder(path, record) as recorder:
        driver.on_step = StepRecorder(recorder)
        yield
        recorder.close(f"ended in {driver.state}")
    if recorder.degraded is not None:
        lines.offer(f"{path} is incomplete: {recorder.degraded}")


def _reporter(lines: Lines, clock: Clock) -> Callable[[RobotStatus], None]:
    began_ns = clock.now_ns()

    def report(status: RobotStatus) -> None:
        lines.offer(f"{(clock.now_ns() - began_ns) * 1e-9:.1f} s: {_sentence(status)}")

    return report


def _sentence(status: RobotStatus) -> str:
    if status.blocked:
        control = "stopped here, `a` allows arming"
    elif status.controlled:
        control = "controlled"
    else:
        control = "free"
    counted = {
        "successes": status.successes,
        "given up": status.given_up,
        "commands dropped": status.dropped,
        "malformed": status.malformed,
        "foreign": status.foreign,
        "too fast": status.flooded,
        "unknown keys": status.unknown_keys,
        "broken handshakes": status.handshakes,
    }
    counts = ", ".join(f"{name}: {count}" for name, count in counted.items() if count)
    reason = f" ({status.reason})" if status.reason is not None else ""
    return f"{status.state}{reason}, {control}{'; ' if counts else ''}{counts}"
