"""Where faults are injected: a simulated arm in its own process, controllers beside it, and what came of it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import resource
import signal
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from gatort.launch.commands.robot import RobotOptions
from gatort.policies.loading import PolicyOptions, load_policy
from gatort.runtime.clock import MonotonicClock
from gatort.runtime.engines.engine import Engine
from gatort.runtime.errors import (
    GatortError,
    RobotError,
)
from gatort.runtime.guard import Guard
from gatort.runtime.loop import (
    ControlLoop,
    TickRecord,
)
from gatort.runtime.policy import Policy
from gatort.runtime.realtime import (
    RealtimeConfig,
    apply,
)
from gatort.runtime.remote.client import RemoteRobot
from gatort.runtime.remote.keys import (
    ControllerKeys,
    make_keys,
)
from gatort.runtime.robot import Observation
from gatort.runtime.safety import State
from gatort.runtime.telemetry import Telemetry

from .arm import (
    SENSORS_FILE,
    TRACE_FILE,
    SensorFault,
    Sensors,
)
from .trace import (
    Excerpt,
    Trace,
)

MS = 1_000_000
PERIOD_NS = 50 * MS
START_NS = 60_000 * MS
REST_NS = 3_000 * MS
"""How long an arm may take to come to rest; it takes 135 ms."""
TICKS = 26
"""Of a run that nothing stops."""
REALTIME = RealtimeConfig(fifo_priority=40, lock_memory=True)
GATORT = (sys.executable, "-m", "gatort.launch.cli")

OneRobot = TypeVar("OneRobot", bound=RemoteRobot)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One injection."""

    detected_ms: float | None = None
    """From the fault to the first thing that was done about it; none where there is nothing to time."""
    safe_ms: float | None = None
    """From the fault to the safe command in effect; none where the arm must go on."""
    wrong: str | None = None
    """What was not as it must be."""


class Arm(Protocol):
    """An arm that a fault's controller drives, and what is seen of it."""

    endpoint: str
    trace: Trace

    def rest(self) -> None:
        """Wait until the arm takes no commands and the safe command is in effect."""
        ...


class RunningArm:
    """An arm that somebody else started: its trace is what it answers, once a tick and then as often as it can."""

    def __init__(
        self, endpoint: str, keys: ControllerKeys | None, folder: Path, *, force: bool
    ) -> None:
        """Ask it what it is.

        Raises:
            RobotError: nobody answers, or the arm is real and `force` is not given.
        """
        self.endpoint, self.keys = endpoint, keys
        self._clock = MonotonicClock()
        with closing(RemoteRobot(endpoint, self._clock, keys)) as robot:
            if not robot.simulated and not force:
                raise RobotError(
                    f"{endpoint} is a real arm: faults are injected into it with --force alone"
                )
            self.trace = Trace(folder / TRACE_FILE, robot.interface, sampled=True)

    def watch(self, robot: RemoteRobot) -> None:
        """Let a controller's observations be written to the trace."""
        observe = robot.observe

        def observe_and_write() -> Observation:
            observation = observe()
            self.trace.add(
                observation.stamp_ns, self._clock.now_ns(), robot.state, observation.applied
            )
            return observation

        robot.observe = observe_and_write  # type: ignore[method-assign]  # of this one robot

    def rest(self) -> None:
        """See `Arm.rest`; a session of its own, since a fault may have ended the controller's."""
        with closing(RemoteRobot(self.endpoint, self._clock, self.keys)) as robot:
            self.watch(robot)
            self.follow(robot)

    def follow(self, robot: RemoteRobot) -> None:
        """Ask a robot that is watched until it rests."""
        deadline_ns = self._clock.now_ns() + REST_NS
        while self._clock.now_ns() < deadline_ns:
            robot.observe()
            if robot.state in (State.LATCHED, State.DISARMED):
                return


class ArmProcess:
    """A running arm, on a terminal of its own so that its console's keys can be pressed."""

    def __init__(
        self, folder: Path, *, keys: Path | None = None, environment: dict[str, str] | None = None
    ) -> None:
        """Start it and wait until it listens.

        Raises:
            RobotError: it ended, or it does not listen in time.
        """
        self.folder = folder
        folder.mkdir()
        options = RobotOptions(bind="tcp://127.0.0.1:0", realtime=True, keys=keys)
        self._log = folder / "log"
        self._terminal, inside = pty.openpty()
        command = [
            sys.executable,
            "-m",
            "gatort.launch.faults.arm",
            str(folder),
            options.model_dump_json(),
        ]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=inside,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
                # Keys are read by the terminal's foreground process alone.
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  # one call of the kernel
            )
        os.close(inside)
        self._clock = MonotonicClock()
        try:
            if not self.wait_until(
                lambda: re.search(r"tcp://\S+:\d+", self.said) is not None, START_NS
            ):
                raise RobotError(
                    f"the arm's process does not listen after {START_NS // 1_000_000_000} s"
                )
        except BaseException:
            self.close()  # Nobody else holds it yet.
            raise
        self.endpoint = re.findall(r"tcp://[^\s,]+", self.said)[0]
        from gatort.sim.tasks.stacking.task import STACK_SPEC

        self.trace, self.sensors = (
            Trace(folder / TRACE_FILE, STACK_SPEC),
            Sensors(folder / SENSORS_FILE),
        )

    @property
    def said(self) -> str:
        """Its output so far."""
        return self._log.read_text(errors="replace")

    def counted(self, what: str) -> int:
        """A counter in the last line of its output that has it."""
        found = re.findall(rf"{what}: (\d+)", self.said)
        return int(found[-1]) if found else 0

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def press(self, key: bytes) -> None:
        """Press a key on its console."""
        os.write(self._terminal, key)

    def wait_until(self, true: Callable[[], bool], within_ns: int = REST_NS) -> bool:
        """Look every millisecond; false when it did not become true in time.

        Raises:
            RobotError: the process has ended.
        """
        deadline_ns = self._clock.now_ns() + within_ns
        while not true():
            if not self.alive:
                raise RobotError(f"the arm's process ended: {self.said.strip()[-400:]}")
            if self._clock.now_ns() > deadline_ns:
                return False
            self._clock.sleep_until_ns(self._clock.now_ns() + MS)
        return True

    def rest(self) -> None:
        """Wait until the arm takes no commands and the safe command is in effect."""
        self.wait_until(lambda: self.trace.newest in (State.LATCHED, State.DISARMED))

    def close(self) -> None:
        """End the process."""
        if self.alive:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        self.process.kill()
        self.process.wait()
        os.close(self._terminal)


@dataclass(frozen=True, slots=True)
class RunProcess:
    """A running `gatort run`."""

    process: subprocess.Popen[bytes]
    folder: Path
    """Of its report run.json, its recording run.mcap and its output."""

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    @property
    def said(self) -> str:
        """Its output so far."""
        return (self.folder / "log").read_text(errors="replace")

    @property
    def recording(self) -> Path:
        """Its recording."""
        return self.folder / "run.mcap"

    def report(self) -> dict[str, Any]:
        """Its report, once it has ended."""
        record: dict[str, Any] = json.loads((self.folder / "run.json").read_text())
        return record


@dataclass
class Drive:
    """A loop in this process that drove the arm, tick by tick."""

    loop: ControlLoop
    began_ns: int
    asked: int
    """How many ticks it was to run."""
    ticks: list[tuple[int, TickRecord]] = field(default_factory=list)
    """When each tick was over, and what it did."""
    error: GatortError | None = None
    """What ended the loop other than its ticks."""
    ended_ns: int = 0

    @property
    def guard(self) -> Guard:
        """The loop's."""
        return self.loop.guard

    def require_fault(self, injected: bool) -> None:
        """Check that the run came as far as the fault.

        Raises:
            RobotError: it ended before, for example on a machine too busy for it.
        """
        if not injected:
            why = self.error or self.loop.refusal or "the robot's watchdog stopped it"
            raise RobotError(
                f"the run ended after {len(self.ticks)} ticks, before the fault: {why}"
            )

    def require_end(self) -> None:
        """Check that the run took all of its ticks.

        Raises:
            RobotError: something ended it before.
        """
        if self.error or len(self.ticks) < self.asked:
            why = self.error or self.loop.refusal or "the robot's watchdog stopped it"
            raise RobotError(
                f"expected a run of {self.asked} ticks, found an end after {len(self.ticks)}: {why}"
            )

    def refused_ns(self) -> int | None:
        """When the first tick was refused."""
        return next((at_ns for at_ns, tick in self.ticks if tick.refusal is not None), None)


class Bench:
    """Starts what faults need, once where one is enough, and ends all of it."""

    def __init__(self, running: RunningArm | None = None) -> None:
        """Prepare; nothing is started yet.

        Args:
            running: what faults of a controller are injected into, instead of an arm of the bench's own.
        """
        self.clock = MonotonicClock()
        self._running = running
        self._stack = ExitStack()
        self.folder = Path(
            self._stack.enter_context(tempfile.TemporaryDirectory(prefix="gatort-faults-"))
        )
        self._arm: ArmProcess | None = None
        self._folders = 0
        self.not_granted: list[str] = []
        """What the operating system refused of the scheduling that was asked for."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._arm is not None:
            self._arm.close()
        self._stack.close()

    def new_folder(self) -> Path:
        """A path of its own for one thing, not made."""
        self._folders += 1
        return self.folder / str(self._folders)

    @cached_property
    def policy(self) -> Policy:
        """The shipped one."""
        return load_policy(PolicyOptions(threads=1))

    @property
    def arm(self) -> ArmProcess:
        """The arm that faults share: plain, at rest, sensors good; started anew when the last one ended."""
        if self._arm is None or not self._arm.alive:
            if self._arm is not None:
                self._arm.close()
                self._arm = None  # The next may not come up, and this one is closed once.
            self._arm = ArmProcess(self.new_folder())
        self._arm.rest()
        self._arm.sensors.ask("none")
        return self._arm

    @property
    def target(self) -> Arm:
        """What faults of a controller are injected into."""
        if self._running is None:
            return self.arm
        self._running.rest()
        return self._running

    @contextmanager
    def own_arm(
        self, keys: Path | None = None, environment: dict[str, str] | None = None
    ) -> Iterator[ArmProcess]:
        """An arm for one fault alone."""
        arm = ArmProcess(self.new_folder(), keys=keys, environment=environment)
        try:
            yield arm
        finally:
            arm.close()

    @cached_property
    def keyed_arm(self) -> tuple[ArmProcess, ControllerKeys]:
        """An arm that lets in one controller by its key, and that controller's keys."""
        directory = self.new_folder()
        directory.mkdir()
        make_keys(directory)
        arm = ArmProcess(self.new_folder(), keys=directory)
        self._stack.callback(arm.close)
        return arm, ControllerKeys.load(directory)

    def ask_sensors(self, fault: SensorFault, after: int) -> ArmProcess:
        """The shared arm with sensors that fail after so many good readings."""
        arm = self.arm
        arm.sensors.ask(fault, after)
        return arm

    # -- A loop in this process ------------------------------------------------------------------------------------

    @contextmanager
    def controller(
        self, arm: Arm, kind: type[OneRobot], keys: ControllerKeys | None = None
    ) -> Iterator[OneRobot]:
        """A connection to an arm, on a thread that is first in line as a controller's is."""
        with apply(REALTIME) as refused:
            self.not_granted = list(refused)
            running = arm if isinstance(arm, RunningArm) else None
            robot = kind(arm.endpoint, self.clock, running.keys if running else keys)
            if running:
                running.watch(robot)
            try:
                yield robot
            finally:
                if running:
                    with suppress(GatortError):  # Its session may have ended.
                        running.follow(robot)  # The arm has faded before another session has begun.
                robot.close()

    def drive(
        self,
        robot: RemoteRobot,
        ticks: int = TICKS,
        engine: Engine | None = None,
        prepare: Callable[[ControlLoop], None] | None = None,
        on_tick: Callable[[TickRecord], None] | None = None,
    ) -> Drive:
        """Run the control loop with the shipped policy, or with another engine in its place."""
        policy = self.policy
        own = policy.engine
        own_tokenizer = policy.tokenizer
        policy.engine = engine or own
        try:
            self.policy.reset()
            telemetry = Telemetry(self.policy.spec, ticks, stepwise=own.stepwise)
            loop = self.policy.control(robot, self.clock, telemetry=telemetry, collect_garbage=True)
            if prepare is not None:
                prepare(loop)
            drive = Drive(loop, self.clock.now_ns(), ticks)

            def look(tick: TickRecord) -> None:
                drive.ticks.append((self.clock.now_ns(), tick))
                if on_tick is not None:
                    on_tick(tick)

            try:
                loop.run(ticks, look)
            except GatortError as error:
                drive.error = error
            drive.ended_ns = self.clock.now_ns()
        finally:
            policy.engine = own
            policy.tokenizer = own_tokenizer
        return drive

    # -- A controller's process ------------------------------------------------------------------------------------

    @contextmanager
    def run_process(
        self,
        arm: ArmProcess,
        *flags: str,
        environment: dict[str, str] | None = None,
        terminal: int | None = None,
    ) -> Iterator[RunProcess]:
        """`gatort run` on an arm, until it is stopped.

        Args:
            arm: which.
            flags: beside those that every one has.
            environment: variables beside this process's own.
            terminal: where it prints instead of into a file.
        """
        folder = self.new_folder()
        folder.mkdir()
        files = [
            "--json",
            f"{folder}/run.json",
            "--plot",
            f"{folder}/run.png",
            "--record",
            f"{folder}/run.mcap",
        ]
        drive = ["--robot", arm.endpoint, "--arm", "--until", "time", "--seconds", "60"]
        command = [
            *GATORT,
            "run",
            "--profile",
            "realtime",
            "--threads",
            "1",
            *drive,
            *files,
            *flags,
        ]
        with (folder / "log").open("wb") as log:
            output = log if terminal is None else terminal
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                env={**os.environ, **(environment or {})},
            )
        run = RunProcess(process, folder)
        try:
            yield run
        finally:
            if run.alive:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()

    def wait_for_motion(self, arm: ArmProcess, run: RunProcess, for_ns: int = 300 * MS) -> int:
        """Wait until a run has armed an arm and driven it for a while; returns when it was armed.

        Raises:
            RobotError: it ended before that.
        """
        started_ns = self.clock.now_ns()

        def moves() -> bool:
            if not run.alive:
                raise RobotError(
                    f"the controller's process ended before the fault: {run.said.strip()[-400:]}"
                )
            return arm.trace.newest in (State.RUN, State.HOLD)

        if not arm.wait_until(moves, START_NS):
            raise RobotError("the controller's process never armed the arm")
        armed_ns = arm.trace.since(started_ns).first(State.RUN, State.HOLD) or self.clock.now_ns()
        self.clock.sleep_until_ns(self.clock.now_ns() + for_ns)
        return armed_ns


# -- What came of it -----------------------------------------------------------------------------------------------


def ms(from_ns: int, to_ns: int | None) -> float | None:
    """A duration in ms, or none."""
    return None if to_ns is None else (to_ns - from_ns) * 1e-6


def must_stop(arm: Arm, began_ns: int, fault_ns: int, detected_ns: int | None = None) -> Outcome:
    """Judge a trace that has to end in the safe command: RUN, perhaps HOLD, SAFE, LATCHED, and never back.

    Args:
        arm: whose trace.
        began_ns: before the session was armed.
        fault_ns: when the fault began.
        detected_ns: when it was noticed; the first step after the fault that is not RUN when absent.
    """
    arm.rest()
    armed_ns = arm.trace.since(began_ns).first(State.RUN) or began_ns
    steps = arm.trace.since(armed_ns)
    after = steps.since(fault_ns)
    if detected_ns is None:
        detected_ns = after.first(State.HOLD, State.SAFE, State.LATCHED)
    wrong = steps.fault()
    if steps.sequence[-2:] != [State.SAFE, State.LATCHED]:
        wrong = f"expected the arm to end in SAFE and LATCHED, found {_words(steps.sequence)}"
    elif after.safe_ns is None:
        wrong = "the safe command was never in effect"
    elif detected_ns is None:
        wrong = "nothing noticed the fault"
    return Outcome(ms(fault_ns, detected_ns), ms(fault_ns, after.safe_ns), wrong)


def must_go_on(
    steps: Excerpt,
    allowed: Sequence[State] = (State.RUN,),
    detected_ms: float | None = None,
    wrong: str | None = None,
) -> Outcome:
    """Judge steps from arming to the end of a run that a fault must not have stopped."""
    others = [state for state in steps.sequence if state not in allowed]
    if others or not steps.states:
        wrong = f"expected the arm in {_words(allowed)}, found {_words(steps.sequence)}"
    return Outcome(detected_ms, None, wrong or steps.fault())


def driven_steps(arm: Arm, drive: Drive) -> Excerpt:
    """The arm's steps from being armed until the loop ended by itself and stopped it.

    Raises:
        RobotError: the loop ended before its last tick.
    """
    drive.require_end()
    arm.rest()
    steps = arm.trace.since(drive.began_ns)
    armed_ns, last_ns = (
        steps.first(State.RUN),
        drive.ticks[-1][0] if drive.ticks else drive.ended_ns,
    )
    return steps.since(armed_ns or drive.began_ns).until(last_ns)


def _words(states: Sequence[State]) -> str:
    return ", ".join(states) or "nothing"


def seeded(seed: int) -> np.random.Generator:
    """Random numbers of one injection."""
    return np.random.default_rng(seed)


def children(pid: int) -> list[int]:
    """Processes that a process started."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in found]


def limit_files(pid: int, largest_bytes: int) -> None:
    """Let the files of a process grow no further, as a full disk does."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (largest_bytes, largest_bytes))
