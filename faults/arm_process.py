"""Arms that a bench drives: a process of its own, or an arm that somebody else started."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from gatort.runtime.clock import MonotonicClock
from gatort.runtime.errors import GatortError, RobotError
from gatort.runtime.remote.client import RemoteRobot
from gatort.runtime.remote.console import BURST_NS
from gatort.runtime.remote.keys import ControllerKeys
from gatort.runtime.robot import Observation
from gatort.runtime.safety import State
from gatort.sim.tasks.stacking.specifications import STACK_SPEC

from .run_process import children
from .sensor_memory import SENSORS_FILE, SensorMemory
from .trace import TRACE_FILE, Trace

ARM = (sys.executable, "-P", "-m", "gatort.faults.arm")
MS = 1_000_000
START_NS = 60_000 * MS
"""Longest time that a process may take until it listens or moves."""
REST_NS = 10_000 * MS
"""Longest time that an arm may take to come to rest; it takes 135 ms on an idle machine."""


class RunningArm:
    """An arm that somebody else started: its trace holds its answers, one a tick."""

    def __init__(
        self, endpoint: str, keys: ControllerKeys | None, folder: Path, *, force: bool
    ) -> None:
        """Ask the arm for its interface.

        Raises:
            RobotError: nobody answers, or the arm is real and `force` is not given.
        """
        self.endpoint, self.keys = endpoint, keys
        self._clock = MonotonicClock()
        with closing(RemoteRobot(endpoint, self._clock, keys)) as robot:
            if not robot.simulated and not force:
                raise RobotError(
                    f"{endpoint} is a real arm: expected --force to inject faults into it"
                )
            self.trace = Trace(folder / TRACE_FILE, robot.interface, sampled=True)

    def watch(self, robot: RemoteRobot) -> None:
        """Write a controller's observations to the trace."""
        observe = robot.observe

        def observe_and_write() -> Observation:
            observation = observe()
            self.trace.add(
                observation.stamp_ns, self._clock.now_ns(), robot.state, observation.applied
            )
            return observation

        robot.observe = observe_and_write  # type: ignore[method-assign]  # of this one robot

    def rest(self) -> None:
        """See `DrivenArm.rest`; in a new session, since a fault may have ended the controller's."""
        with closing(RemoteRobot(self.endpoint, self._clock, self.keys)) as robot:
            self.watch(robot)
            self.follow(robot)

    @contextmanager
    def connect(self) -> Iterator[RemoteRobot]:
        """See `DrivenArm.connect`; the arm has faded before the next session begins."""
        with closing(RemoteRobot(self.endpoint, self._clock, self.keys)) as robot:
            self.watch(robot)
            try:
                yield robot
            finally:
                with suppress(GatortError):  # The session may have ended.
                    self.follow(robot)

    def follow(self, robot: RemoteRobot) -> None:
        """Observe a watched robot until it rests."""
        deadline_ns = self._clock.now_ns() + REST_NS
        while self._clock.now_ns() < deadline_ns:
            robot.observe()
            if robot.state in (State.LATCHED, State.DISARMED):
                return


class ConsoleProcess:
    """An arm's process, on a terminal of its own so that its console's keys can be pressed."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        keys: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        """Start it and wait until it listens.

        Args:
            command: command line.
            log: file of its output.
            keys: directory of the keys that its controllers need.
            environment: more variables.

        Raises:
            RobotError: it ended, or it does not listen in time.
        """
        self._log = log
        self._clock = MonotonicClock()
        self._terminal, inside = pty.openpty()
        try:
            self.process = self._start(command, environment or {}, inside)
        finally:
            os.close(inside)
        try:
            self._wait_for_endpoint()
        except BaseException:
            self.close()  # Nobody else holds it yet.
            raise
        self.endpoint = re.findall(r"tcp://[^\s,]+", self.said)[0]
        self.keys = ControllerKeys.load(keys) if keys is not None else None

    def _start(
        self, command: Sequence[str], environment: dict[str, str], terminal: int
    ) -> subprocess.Popen[bytes]:
        with self._log.open("wb") as log:
            return subprocess.Popen(
                command,
                stdin=terminal,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
                start_new_session=True,
                # Only the terminal's foreground process reads its keys.
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  # one call of the kernel
            )

    def _wait_for_endpoint(self) -> None:
        listens = re.compile(r"tcp://\S+:\d+")
        if not self.wait_until(lambda: listens.search(self.said) is not None, START_NS):
            raise RobotError(
                f"expected the arm's process to listen within {START_NS // 1_000_000_000} s, "
                f"found no address in its output"
            )

    @property
    def said(self) -> str:
        """Output so far."""
        return self._log.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self.process.poll() is None

    def press(self, key: bytes) -> None:
        """Press a key on its console."""
        os.write(self._terminal, key)

    def allow_arming(self) -> None:
        """Take back a stop of its own side: the keys `a` and Enter, typed one by one."""
        for key in (b"a", b"\n"):
            self._clock.sleep_until_ns(self._clock.now_ns() + 2 * BURST_NS)
            self.press(key)
        self.wait_until(lambda: "allows arming" not in self.said.splitlines()[-1])

    def wait_until(self, true: Callable[[], bool], within_ns: int = REST_NS) -> bool:
        """Check every millisecond; return false if the condition did not become true in time.

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

    @contextmanager
    def connect(self) -> Iterator[RemoteRobot]:
        """See `DrivenArm.connect`."""
        with closing(RemoteRobot(self.endpoint, self._clock, self.keys)) as robot:
            yield robot

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


class ArmProcess(ConsoleProcess):
    """The simulated arm whose sensors fail on demand."""

    def __init__(
        self, folder: Path, *, keys: Path | None = None, environment: dict[str, str] | None = None
    ) -> None:
        """Start it and wait until it listens.

        Raises:
            RobotError: it ended, or it does not listen in time.
        """
        folder.mkdir()
        options = {"bind": "tcp://127.0.0.1:0", "realtime": True}
        if keys is not None:
            options["keys"] = str(keys)
        command = (*ARM, str(folder), json.dumps(options))
        super().__init__(command, folder / "log", keys=keys, environment=environment)
        self.trace = Trace(folder / TRACE_FILE, STACK_SPEC)
        self.sensors = SensorMemory(folder / SENSORS_FILE)

    def counted(self, what: str) -> int:
        """Return a counter's value, from the last line of the output that shows it."""
        found = re.findall(rf"{what}: (\d+)", self.said)
        return int(found[-1]) if found else 0

    @property
    def door_pid(self) -> int:
        """Identity of the process that talks to controllers."""
        return children(self.process.pid)[0]

    def rest(self) -> None:
        """Wait until the arm takes no commands and the safe command is in effect."""
        self.wait_until(lambda: self.trace.newest in (State.LATCHED, State.DISARMED))
