"""Franka's hand, in a process of its own.

pylibfranka holds Python's interpreter lock while the hand moves, for up to a second, and the arm
needs the interpreter every millisecond. The hand gives no state while it moves, so its width is
then estimated from its speed.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from contextlib import suppress
from typing import Any, Final

from gatort.runtime.clock import Clock, MonotonicClock
from gatort.runtime.errors import ObservationError, RobotError
from gatort.runtime.linked_process import start_linked
from gatort.runtime.process_name import name_process
from gatort.runtime.robots.panda import GRIPPER_OPEN_M

SPEED_M_S: Final = 0.1
"""Speed of the fingers. The Franka Hand reaches 0.1 m/s (product manual)."""
FORCE_N: Final = 35.0
"""Closing force, as of the simulated fingers. The hand can hold 70 N continuously."""
SMALLEST_MOVE_M: Final = 0.004
"""Smallest change of width that is sent: each move ends before the next order is heard."""
REPORTS_HZ: Final = 50
"""Highest rate of reports. A Franka Hand gives its state 10 to 15 times a second."""
SILENT_S: Final = 0.25
"""Age of the last report from which a hand at rest gives no width: two reports are missing."""
LATE_S: Final = 1.5
"""Time that a move may take beyond its distance at `SPEED_M_S`."""
START_S: Final = 5.0
"""Longest wait for the hand's first report."""
HOMING_S: Final = 30.0
"""The same where the hand is homed first."""
CLOSE_S: Final = 1.0
"""Longest wait for the end of the hand's process."""
_PACKET: Final = struct.Struct("<Qd")
"""To the hand: number of an order, width in m. From it: number of the last order done, width."""


class Hand:
    """The hand as the arm's process sees it. No call waits."""

    def __init__(
        self,
        link: socket.socket,
        clock: Clock,
        width_m: float,
        process: subprocess.Popen[bytes] | None = None,
    ) -> None:
        """Take over a link to a hand at rest.

        Args:
            link: socket of sequenced packets, whose other end is in `serve_hand`.
            clock: times the hand's moves.
            width_m: present width.
            process: process at the other end. `close` waits for it.
        """
        self._link = link
        self._clock = clock
        self._process = process
        self._link.setblocking(False)
        self._wanted_m = width_m
        """Newest width that the arm asked for."""
        self._told_m = width_m
        """Width of the last order that was sent."""
        self._width_m = width_m
        """Width in the last report."""
        self._told_ns = clock.now_ns()
        self._heard_ns = self._told_ns
        self._order = 0
        self._finished = 0
        self._failure: RobotError | None = None

    def exchange(self) -> None:
        """Take the hand's reports, and send the newest order once the hand is at rest.

        Reports must be taken often: the socket keeps few. A failure is raised by `width_m`, not
        here, so that an arm whose hand has failed can still be faded.
        """
        with suppress(BlockingIOError):
            while self._failure is None:
                try:
                    self._finished, self._width_m = _unpack(self._link.recv(1_024))
                    self._heard_ns = self._clock.now_ns()
                except ConnectionResetError:
                    # An order was left unread. The hand's own reason comes with the next packet.
                    continue
                except RobotError as failure:
                    self._failure = failure

        at_rest = self._finished == self._order
        if at_rest and abs(self._wanted_m - self._told_m) >= SMALLEST_MOVE_M:
            self._order += 1
            self._told_m = self._wanted_m
            self._told_ns = self._clock.now_ns()
            with suppress(BrokenPipeError, ConnectionResetError):  # The next report says why.
                self._link.send(_PACKET.pack(self._order, self._told_m))

    def tell(self, width_m: float) -> None:
        """Ask for a width. It is sent once the hand is at rest; only the newest one counts."""
        self._wanted_m = width_m
        self.exchange()

    def width_m(self) -> float:
        """Return the opening of the fingers; an estimate while they move.

        Raises:
            ObservationError: a hand at rest has not reported for `SILENT_S`.
            RobotError: the hand failed, or a move lasts `LATE_S` too long.
        """
        self.exchange()
        if self._failure is not None:
            raise self._failure
        now_ns = self._clock.now_ns()
        if self._finished == self._order:
            silent_s = (now_ns - self._heard_ns) * 1e-9
            if silent_s > SILENT_S:
                raise ObservationError(
                    f"gripper/width: expected a report of the last {SILENT_S:g} s, "
                    f"found one {silent_s:.2f} s old"
                )
            return self._width_m

        way_m = self._told_m - self._width_m
        way_s = abs(way_m) / SPEED_M_S
        moved_s = (now_ns - self._told_ns) * 1e-9
        if moved_s > way_s + LATE_S:
            raise RobotError(
                f"the hand failed: expected a move of {way_s:.1f} s, "
                f"found it not finished after {moved_s:.1f} s"
            )
        travelled_m = SPEED_M_S * moved_s
        return self._width_m + min(max(way_m, -travelled_m), travelled_m)

    def close(self) -> None:
        """Let the hand's process end. The hand keeps its grip."""
        self._link.close()
        if self._process is not None:
            # The process notices the closed link once the hand has finished a move.
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(CLOSE_S)


def start_hand(address: str, clock: Clock, home: bool = False) -> Hand:
    """Start the hand's process and return its link.

    Args:
        address: IP address of the control box.
        clock: times the hand's moves.
        home: home the hand first: it opens, closes, and learns its largest width.

    Raises:
        RobotError: no hand answers at the address.
    """
    order = ("home",) if home else ()
    ours, process = start_linked("gatort.runtime.robots.franka.hand", address, *order, stdout=None)
    ours.settimeout(HOMING_S if home else START_S)
    try:
        _, width_m = _unpack(ours.recv(1_024))
    except (OSError, RobotError) as error:
        ours.close()
        process.kill()
        process.wait()
        raise RobotError(f"no hand can be driven at {address}: {error}") from error
    return Hand(ours, clock, width_m, process)


def _unpack(packet: bytes) -> tuple[int, float]:
    if len(packet) != _PACKET.size:
        raise RobotError(
            f"the hand failed: {packet.decode(errors='replace') or 'its process ended'}"
        )
    order, width_m = _PACKET.unpack(packet)
    return order, width_m


def serve_hand(link: socket.socket, gripper: Any, clock: Clock) -> None:
    """Follow the newest order and report the width, until the other end is closed."""
    width_m = gripper.read_once().width
    order = 0
    deadline_ns = clock.now_ns()
    link.setblocking(False)
    while True:
        # Nobody may have listened for seconds. A report that is lost is repeated by the next one.
        with suppress(BlockingIOError):
            link.send(_PACKET.pack(order, width_m))
        deadline_ns = max(deadline_ns + 1_000_000_000 // REPORTS_HZ, clock.now_ns())
        clock.sleep_until_ns(deadline_ns)
        packet = None
        with suppress(BlockingIOError):
            while packet := link.recv(1_024):
                order, wanted_m = _PACKET.unpack(packet)
        if packet == b"":
            return
        if packet is not None:
            _go(gripper, width_m, min(max(wanted_m, 0.0), GRIPPER_OPEN_M))
        width_m = gripper.read_once().width


def _go(gripper: Any, from_m: float, to_m: float) -> None:
    """Open to a width, or close with a force that holds an object between the fingers.

    Raises:
        RobotError: the hand reports that it did not open. A grasp that closes on no object is
            reported as a failure too, and goes on.
    """
    if to_m > from_m:
        if not gripper.move(to_m, SPEED_M_S):
            raise RobotError(f"it did not open to {to_m:.3f} m; home it with --home-hand")
    else:
        gripper.grasp(
            to_m, SPEED_M_S, FORCE_N, epsilon_inner=GRIPPER_OPEN_M, epsilon_outer=GRIPPER_OPEN_M
        )


def main() -> None:
    """Run the hand's process. Arguments: descriptor of its link, address, and `home` to home it."""
    import pylibfranka

    name_process("hand")
    with socket.socket(fileno=int(sys.argv[1])) as link:
        try:
            gripper = pylibfranka.Gripper(sys.argv[2])
            if sys.argv[3:] and not gripper.homing():
                raise RobotError("it could not be homed")
            serve_hand(link, gripper, MonotonicClock())
        except (RuntimeError, pylibfranka.FrankaException, RobotError) as error:
            with suppress(OSError):  # The arm's process may have ended.
                link.send(str(error).encode()[:1_000])
        except (BrokenPipeError, ConnectionResetError):
            pass


if __name__ == "__main__":
    main()
