"""The process of `fci_loop.c`, seen from Python as the arm's inner loop.

The process answers the arm a thousand times a second. It holds the arm's inner loop and envelope.
Requests and reports are fixed records on a socket of sequenced packets.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import subprocess
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.c_loops import (
    DROPS,
    MOST_ACTUATORS,
    MOST_JOINTS,
    OPTIONS,
    REASON_LENGTH,
    STATES,
    CommandRecord,
    LimitsRecord,
    LoopRecord,
)
from gatort.runtime.compiler import compiled
from gatort.runtime.envelope import ArmLimits
from gatort.runtime.errors import RobotError
from gatort.runtime.inner_loop import Drop
from gatort.runtime.safety import STOPPED, Command, State
from gatort.runtime.spec import Interface

from .fci import Fci
from .model import LinkRecord, links_of

SOURCE: Final = Path(__file__).with_name("fci_loop.c")
CLOSE_S: Final = 2.0
"""Longest wait for the end of the process."""
OLD_NS: Final = 3_000_000
"""Age of the newest report from which the next one is awaited."""
NEXT_S: Final = 0.002
NO_TRACE: Final = -1
_Joints = ctypes.c_double * MOST_JOINTS


class Settings(ctypes.Structure):
    """The first packet to the process."""

    _fields_ = (
        ("loop", LoopRecord),
        ("limits", LimitsRecord),
        ("damping_nms_rad", ctypes.c_double),
        ("links", LinkRecord * MOST_JOINTS),
        ("flange_m", ctypes.c_double),
        ("priority", ctypes.c_int32),
    )


class LoopRequest(ctypes.Structure):
    """A packet to the process."""

    _fields_ = (
        ("asked", ctypes.c_int32),
        ("command", CommandRecord),
        ("reason", ctypes.c_char * REASON_LENGTH),
    )


ARM, DO_NOT_ARM, STOP, COMMAND = range(4)


class CycleReport(ctypes.Structure):
    """A cycle, as the process reports it."""

    _fields_ = (
        ("number", ctypes.c_int64),
        ("read_ns", ctypes.c_int64),
        ("answered_ns", ctypes.c_int64),
        ("message_id", ctypes.c_uint64),
        ("arrived", ctypes.c_int64),
        ("position", _Joints),
        ("velocity", _Joints),
        ("values", ctypes.c_double * MOST_ACTUATORS),
        ("written_nm", _Joints),
        ("had_nm", _Joints),
        ("dropped", ctypes.c_int64 * len(DROPS)),
        ("errors", ctypes.c_uint64),
        ("reflex_reason", ctypes.c_uint64),
        ("hand_kg", ctypes.c_double),
        ("load_kg", ctypes.c_double),
        ("success_rate", ctypes.c_double),
        ("state", ctypes.c_int32),
        ("robot_mode", ctypes.c_int32),
        ("is_driven", ctypes.c_int32),
        ("is_commanded", ctypes.c_int32),
        ("reason", ctypes.c_char * REASON_LENGTH),
    )


class FciLoop:
    """The inner loop of a Franka arm. It has the attributes of `InnerLoop`."""

    def __init__(
        self,
        fci: Fci,
        interface: Interface,
        limits: ArmLimits,
        safe_after_ns: int,
        damping_nms_rad: float,
        priority: int = 0,
        trace: int = NO_TRACE,
    ) -> None:
        """Start the process. The arm stays at rest.

        Args:
            fci: connection to the arm.
            interface: actuators: seven joint torques, and at most a width of the hand after them.
            limits: limits of the arm.
            safe_after_ns: age of a command at which SAFE begins.
            damping_nms_rad: damping of every joint, which is added to the values in effect.
            priority: priority of SCHED_FIFO, if it is granted; 0 for none.
            trace: descriptor of a file that gets every report; -1 for none.

        Raises:
            MissingDependency: GCC is not installed.
            RobotError: the arm's model is not known here, or the process cannot be started.
        """
        self.safe_after_ns = safe_after_ns
        self.on_report: Callable[[CycleReport], None] | None = None
        """Callback for each report, in order. The report changes with the next one."""
        self.newest = CycleReport()
        """Newest report. Before the first one its number is 0."""
        self._asked_to_stop = False
        self._actuators = len(interface.actuators)
        links, flange_m = links_of(fci.model())
        settings = Settings(
            LoopRecord.of(interface, safe_after_ns),
            LimitsRecord.of(limits),
            damping_nms_rad,
            (LinkRecord * MOST_JOINTS)(*links),
            flange_m,
            priority,
        )
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            descriptors = [fci.tcp.fileno(), fci.udp.fileno(), theirs.fileno(), trace]
            program = _program()
            self.process = subprocess.Popen(
                ["gatort-fci-loop", *map(str, descriptors)],
                executable=f"/proc/self/fd/{program}",
                stdin=subprocess.DEVNULL,
                pass_fds=[program, *(each for each in descriptors if each != NO_TRACE)],
                start_new_session=True,
            )
        self._link.send(settings)
        self._link.setblocking(False)

    # -- InnerLoop -----------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Watchdog's state. A stop that was asked for counts at once."""
        state = STATES[self.newest.state]
        return State.SAFE if self._asked_to_stop and state not in STOPPED else state

    @property
    def reason(self) -> str | None:
        """See `InnerLoop.reason`."""
        return bytes(self.newest.reason).decode(errors="replace") or None

    @property
    def dropped(self) -> Counter[Drop]:
        """See `InnerLoop.dropped`."""
        return Counter(dict(zip(DROPS, self.newest.dropped, strict=True)))

    @property
    def in_effect(self) -> NDArray[np.float64]:
        """(A,) values in effect in the newest cycle that was reported."""
        return np.array(self.newest.values[: self._actuators])

    def arm(self, now_ns: int) -> None:  # noqa: ARG002  # the process has the same clock
        """Ask for a session that begins once the arm takes torques."""
        self._asked_to_stop = False
        self._ask(LoopRequest(ARM))

    def do_not_arm(self) -> None:
        """Take back `arm`: the arm does not take torques."""
        self._ask(LoopRequest(DO_NOT_ARM))

    def stop(self, now_ns: int, reason: str) -> None:  # noqa: ARG002
        """See `InnerLoop.stop`. It acts within the present cycle."""
        self._asked_to_stop = True
        self._ask(LoopRequest(STOP, reason=reason.encode()[: REASON_LENGTH - 1]))

    def accept(self, command: Command, now_ns: int) -> bool:  # noqa: ARG002
        """Send a command. The process drops one that must not be applied, and counts it."""
        self._ask(LoopRequest(COMMAND, CommandRecord.of(command)))
        return True

    def step(self, at_ns: int) -> NDArray[np.float64]:
        """Take the reports that have arrived, and return the values in effect.

        Args:
            at_ns: now. After a pause the socket holds old reports alone: then the next one is
                awaited, for `NEXT_S`.

        Raises:
            RobotError: the process ended.
        """
        self._take_reports()
        if at_ns - self.newest.read_ns > OLD_NS and select.select([self._link], [], [], NEXT_S)[0]:
            self._take_reports()
        return self.in_effect

    def _take_reports(self) -> None:
        with suppress(BlockingIOError):
            while True:
                try:
                    size = self._link.recv_into(self.newest)
                except ConnectionResetError:
                    size = 0
                if not size:
                    raise RobotError(
                        "the inner loop of the arm ended, so the arm stops itself: its process "
                        f"ended with status {self.process.wait(CLOSE_S)}"
                    )
                if self._asked_to_stop and STATES[self.newest.state] in STOPPED:
                    self._asked_to_stop = False
                if self.on_report is not None:
                    self.on_report(self.newest)

    def _ask(self, request: LoopRequest) -> None:
        # The next step says that the process ended. One that is suspended drives no arm.
        with suppress(BrokenPipeError, ConnectionResetError, BlockingIOError):
            self._link.send(request)

    def close(self) -> None:
        """Let the process fade the arm, let it go and end. A second call does nothing."""
        self._link.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(CLOSE_S)


@cache
def _program() -> int:
    """Compile the program once per process, and return the descriptor of a file in memory."""
    with compiled(SOURCE, OPTIONS, "a Franka arm", RobotError) as target:
        descriptor = os.memfd_create("gatort-fci-loop")
        os.write(descriptor, target.read_bytes())
        return descriptor
