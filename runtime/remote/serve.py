"""An arm's process, until a signal ends it.

Scheduling, recording, console and wire are put around one driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.clock import Clock
from gatort.runtime.exit_status import ExitStatus, ended_by
from gatort.runtime.machine import this_machine
from gatort.runtime.realtime import ARM_PRIORITY, RealtimeConfig, apply
from gatort.runtime.recording.messages import RunRecord
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.recording.tick_recorder import StepRecorder
from gatort.runtime.robots.driver import Driver
from gatort.runtime.safety import State
from gatort.runtime.spec import Strict

from .bad_link import BadLink
from .console import KEY_HELP, SIMULATED_KEY_HELP, Lines, StatusLine, console
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
    """Ask for SCHED_FIFO 50 and for memory that is never paged out.

    Without it, the process takes SCHED_FIFO 20 where that is granted."""
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
    on_turn: Callable[[RobotStatus], None] | None = None,
) -> int:
    """Let controllers drive an arm until a signal ends the process. Close the driver.

    Returns the exit status: 128 plus the signal's number.

    Args:
        name: name of the robot, for its controllers.
        driver: the arm.
        clock: the driver's clock.
        config: settings of the process.
        simulated: true if only a simulation moves.
        next_trial: lays a simulated arm's task out anew after each trial.
        trial_ns: longest time of one trial; without end when absent.
        on_turn: receives the status of each turn. It must return at once.

    Raises:
        ConfigError: the keys, the address or the recording cannot be used.
        RobotError: the arm failed.
    """
    with ExitStack() as stack:
        stack.enter_context(closing(driver))
        lines = stack.enter_context(Lines())
        realtime = REALTIME if config.realtime else RealtimeConfig()
        transport = stack.enter_context(closing(_listen(config, clock, lines)))

        reporter = Reporter(lines, clock)
        trials = TrialKeeper(driver, clock, next_trial, trial_ns) if simulated else None
        server = RobotServer(
            driver,
            clock,
            transport,
            name=name,
            simulated=simulated,
            trials=trials,
            on_change=reporter.report,
            on_turn=on_turn,
        )

        # Opened after the address is bound: an address in use must not overwrite an old recording.
        if config.record is not None:
            stack.enter_context(_recorded(config.record, name, driver, clock, reporter))
        scheduling = stack.enter_context(apply(realtime, ARM_PRIORITY))
        for refused in scheduling.refused:
            lines.offer(refused)
        ended = stack.enter_context(console(server, lines.offer))
        lines.offer(
            f"{name} at {server.endpoint}, {'plain' if config.keys is None else 'keyed'}, disarmed"
        )
        lines.offer(f"this process: {scheduling.name}")
        if lines.is_terminal:
            lines.offer(SIMULATED_KEY_HELP if simulated else KEY_HELP)

        # Closed before all else: finishing a recording may take seconds, in which nobody would
        # drive the arm.
        with closing(server), closing(driver):
            try:
                server.serve()
            except BaseException:
                lines.hide()  # The status of an arm that failed is no longer known.
                raise
    return ended_by(ended[0]) if ended else ExitStatus.DONE


def _listen(config: ServeConfig, clock: Clock, lines: Lines) -> RobotTransport:
    """Return the door, behind a simulated bad link only where one was asked for."""
    keys = str(config.keys) if config.keys is not None else None
    door = Door(DoorSettings(config.bind, keys), clock, lines.offer)
    return door if config.link.perfect else BadLink(door, config.link, clock)


class Reporter:
    """Shows each change of a robot's status, with the fault of its recording."""

    def __init__(self, lines: Lines, clock: Clock) -> None:
        self._lines = lines
        self._clock = clock
        self._began_ns = clock.now_ns()
        self._status: RobotStatus | None = None
        self._recording_fault: str | None = None
        self._fault: str | None = None

    def report(self, status: RobotStatus) -> None:
        """Show a status. Never wait."""
        self._status = status
        at_s = (self._clock.now_ns() - self._began_ns) * 1e-9
        line = StatusLine(status.state, _facts(status, self._recording_fault))
        if self._lines.is_terminal and status.fault not in (None, self._fault):
            # The status line may be too narrow for it, and loses it at the next change.
            self._lines.offer(f"{at_s:.1f} s: {status.fault}")
        self._fault = status.fault
        self._lines.show(line, at_s)

    def recording_failed(self, reason: str) -> None:
        """Tell at once that the recording is incomplete, and keep it in the status."""
        self._recording_fault = reason
        self._lines.offer(f"recording DEGRADED: {reason}")
        if self._status is not None:
            self.report(self._status)


@contextmanager
def _recorded(
    path: Path, name: str, driver: Driver, clock: Clock, reporter: Reporter
) -> Iterator[None]:
    """Record every inner step. Say so as soon as the recording is incomplete."""
    record = RunRecord.of(name, driver.interface, str(this_machine()), clock)
    with Recorder(path, record) as recorder:
        steps = StepRecorder(recorder)
        known: str | None = None

        def step(at_ns: int, state: State, values: NDArray[np.float64]) -> None:
            nonlocal known
            steps(at_ns, state, values)
            if recorder.degraded != known:
                known = recorder.degraded
                reporter.recording_failed(f"{path} is incomplete: {known}")

        driver.on_step = step
        yield
        recorder.close(f"ended in {driver.state}")
        if recorder.degraded != known:
            reporter.recording_failed(f"{path} is incomplete: {recorder.degraded}")


def _facts(status: RobotStatus, recording_fault: str | None) -> list[str]:
    """Return the facts beside the state, those first that a narrow terminal must show."""
    if status.fault is not None:
        control = "[a Enter] recovers it and allows arming"
    elif status.blocked:
        control = "stopped here, [a Enter] allows arming"
    else:
        control = "controlled" if status.controlled else "free"
    layouts = {"successes": status.successes, "given up": status.given_up}
    why = status.fault or status.reason
    because = f" ({why})" if why is not None else ""
    recording = ["recording DEGRADED"] if recording_fault is not None else []
    counts = [f"{name}: {count}" for name, count in (layouts | status.refusals).items() if count]
    return [f"{control}{because}", *recording, *counts]
