"""Franka's hand, in a process of its own.

pylibfranka keeps the interpreter to itself for as long as the hand moves, up to a second, and the arm needs it every
millisecond. So the hand cannot be asked while it moves: how wide it is then is reckoned from its speed.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from contextlib import suppress
from typing import Any, Final

from gatort.runtime.clock import (
    Clock,
    MonotonicClock,
)
from gatort.runtime.errors import (
    ObservationError,
    RobotError,
)

from .panda import GRIPPER_OPEN_M

SPEED_M_S: Final = 0.1
"""Franka Hand goes at up to 0.1 m/s (product manual)."""
FORCE_N: Final = 35.0
"""What it closes with, as the simulated fingers do; it can hold 70 N for long."""
SMALLEST_MOVE_M: Final = 0.004
"""It is told about no smaller change, because each move runs to its end before the next is heard."""
REPORTS_HZ: Final = 50
"""At most; a Franka Hand gives its state 10 to 15 times a second."""
SILENT_S: Final = 0.25
"""A hand at rest that has said nothing for so long gives no width: two of its reports are missing."""
LATE_S: Final = 1.5
"""How much longer than the way takes at `SPEED_M_S` a move may last."""
START_S: Final = 5.0
CLOSE_S: Final = 1.0
_PACKET: Final = struct.Struct("<Qd")
"""To the hand: the number of an order and its width. From the hand: the last order that it finished, and how wide."""


class Hand:
    """The end of the arm's process; nothing here waits."""

    def __init__(
        self,
        link: socket.socket,
        clock: Clock,
        width_m: float,
        process: subprocess.Popen[bytes] | None = None,
    ) -> None:
        """Take over a link to a hand that is this wide.

        Args:
            link: sequenced packets to `serve_hand`.
            clock: what the hand's moves are timed with.
            width_m: how wide it is now.
            process: what is at the other end, to be waited for.
        """
        self._link, self._clock, self._process = link, clock, process
        self._link.setblocking(False)
        self._wanted_m = self._told_m = self._width_m = width_m
        self._told_ns = self._heard_ns = clock.now_ns()
        self._order = self._finished = 0
        self._failure: RobotError | None = None

    def exchange(self) -> None:
        """Take what it reported, which has little room to wait in, and tell it what waits, once it is at rest.

        That it failed is kept for `width_m` to say, so that an arm whose hand has failed can still be faded.
        """
        with suppress(BlockingIOError):
            while self._failure is None:
                try:
                    self._finished, self._width_m = _unpack(self._link.recv(1_024))
                    self._heard_ns = self._clock.now_ns()
                except (
                    ConnectionResetError
                ):  # An order was left unread. It comes once, before the hand's own reason.
                    continue
                except RobotError as failure:
                    self._failure = failure
        if self._finished == self._order and abs(self._wanted_m - self._told_m) >= SMALLEST_MOVE_M:
            self._order += 1
            self._told_m, self._told_ns = self._wanted_m, self._clock.now_ns()
            with suppress(BrokenPipeError, ConnectionResetError):  # What it reports next says so.
                self._link.send(_PACKET.pack(self._order, self._told_m))

    def tell(self, width_m: float) -> None:
        """Go there, once it has done what it was told before; of several widths that wait, only the newest counts."""
        self._wanted_m = width_m
        self.exchange()

    def width_m(self) -> float:
        """How wide it is, reckoned while it moves.

        Raises:
            ObservationError: a hand at rest has said nothing for `SILENT_S`.
            RobotError: the hand failed, or a move lasts `LATE_S` too long.
        """
        self.exchange()
        if self._failure is not None:
            raise self._failure
        now_ns = self._clock.now_ns()
        if self._finished == self._order:
            if (silent_s := (now_ns - self._heard_ns) * 1e-9) > SILENT_S:
                raise ObservationError(
                    f"gripper/width: expected a report of the last {SILENT_S:g} s, found one {silent_s:.2f} s old"
                )
            return self._width_m
        way_m, moved_s = self._told_m - self._width_m, (now_ns - self._told_ns) * 1e-9
        if moved_s > (way_s := abs(way_m) / SPEED_M_S) + LATE_S:
            raise RobotError(
                f"the hand failed: expected a move of {way_s:.1f} s, found it not finished after {moved_s:.1f} s"
            )
        travelled_m = SPEED_M_S * moved_s
        return self._width_m + min(max(way_m, -travelled_m), travelled_m)

    def close(self) -> None:
        """Let the hand's process end; the hand keeps what it holds."""
        self._link.close()
        if self._process is not None:
            with suppress(
                subprocess.TimeoutExpired
            ):  # It hears of it when the hand has finished a move.
                self._process.wait(CLOSE_S)


def start_hand(address: str, clock: Clock) -> Hand:
    """Start the hand's process.

    Raises:
        RobotError: there is no hand at the address.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [
            sys.executable,
            "-P",
            "-m",
            "gatort.runtime.robots.hand",
            str(theirs.fileno()),
            address,
        ]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True
        )
    ours.settimeout(START_S)
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
    """Follow the newest order and report, until the other end is closed."""
    width_m, order, deadline_ns = gripper.read_once().width, 0, clock.now_ns()
    link.setblocking(False)
    while True:
        with suppress(
            BlockingIOError
        ):  # Nobody has listened for seconds; the next report says the same and more.
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
    """Open to a width, or close with a force that holds whatever is in between."""
    if to_m > from_m:
        gripper.move(to_m, SPEED_M_S)
    else:
        gripper.grasp(
            to_m, SPEED_M_S, FORCE_N, epsilon_inner=GRIPPER_OPEN_M, epsilon_outer=GRIPPER_OPEN_M
        )


def main() -> None:
    """Be the hand's process."""
    import pylibfranka

    with socket.socket(fileno=int(sys.argv[1])) as link:
        try:
            serve_hand(link, pylibfranka.Gripper(sys.argv[2]), MonotonicClock())
        except RuntimeError as error:  # All of libfranka's errors.
            with suppress(OSError):  # There may be nobody left to tell.
                link.send(str(error).encode()[:1_000])
        except (BrokenPipeError, ConnectionResetError):
            pass


if __name__ == "__main__":
    main()
