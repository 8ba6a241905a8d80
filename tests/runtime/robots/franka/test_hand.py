"""Franka's hand: its process, and its link to the arm's process."""

# ruff: noqa: ARG002 – stand-ins have libfranka's arguments

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Thread

import pytest
from tests.waiting import eventually

from gatort.runtime.clock import MonotonicClock, VirtualClock
from gatort.runtime.errors import ObservationError, RobotError
from gatort.runtime.robots.franka.hand import REPORTS_HZ, SPEED_M_S, Hand, serve_hand, start_hand

pylibfranka = pytest.importorskip("pylibfranka")
MS = 1_000_000
START_NS = 10**9
NOBODY = "127.0.0.9"
"""Loopback address at which nothing listens."""


@pytest.fixture
def link() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(START_NS)


def test_an_address_without_a_hand_is_refused() -> None:
    with pytest.raises(
        RobotError,
        match=r"no hand can be driven at 127.0.0.9: the hand failed: libfranka: Connection",
    ):
        start_hand(NOBODY, MonotonicClock())


def test_pylibfranka_has_every_name_that_the_hand_uses() -> None:
    assert {"read_once", "move", "grasp", "homing"} <= set(dir(pylibfranka.Gripper))
    assert "width" in dir(pylibfranka.GripperState)
    assert issubclass(pylibfranka.NetworkException, RuntimeError)


@dataclass
class Gripper:
    """A stand-in whose fingers close on something 5 cm wide."""

    width: float = 0.08
    did: list[str] = field(default_factory=list)

    def read_once(self) -> Gripper:
        return self

    def move(self, width: float, speed: float) -> bool:
        self.width = width
        self.did.append(f"move {width:.2f}")
        return True

    def grasp(
        self, width: float, speed: float, force: float, epsilon_inner: float, epsilon_outer: float
    ) -> None:
        self.width = max(width, 0.05)
        self.did.append(f"grasp {width:.2f}")


def test_the_hand_closes_with_force_opens_by_moving_and_reports_its_width(
    link: tuple[socket.socket, socket.socket], clock: VirtualClock
) -> None:
    gripper = Gripper()
    thread = Thread(target=serve_hand, args=(link[1], gripper, MonotonicClock()))
    thread.start()
    # Its clock stands still, so that no report is ever too old on a busy machine.
    hand = Hand(link[0], clock, 0.08)
    hand.tell(0.0)
    hand.tell(0.001)  # Too small a change to be sent.
    eventually(lambda: hand.width_m() == 0.05)
    hand.tell(0.08)
    eventually(lambda: hand.width_m() == 0.08)
    assert gripper.did == ["grasp 0.00", "move 0.08"]
    hand.close()
    link[0].close()
    thread.join(20)
    assert not thread.is_alive()


def test_while_the_hand_moves_its_width_is_estimated(
    link: tuple[socket.socket, socket.socket], clock: VirtualClock
) -> None:
    hand = Hand(link[0], clock, 0.08)
    hand.tell(0.02)
    clock.advance_ns(100 * MS)
    assert hand.width_m() == pytest.approx(0.08 - SPEED_M_S * 0.1)
    clock.advance_ns(1_000 * MS)
    assert hand.width_m() == pytest.approx(0.02)


class WatchedClock(VirtualClock):
    """Calls back after each millisecond of a sleep."""

    def __init__(self, seen: Callable[[], None]) -> None:
        super().__init__()
        self._seen = seen

    def sleep_until_ns(self, deadline_ns: int) -> None:
        while self.now_ns() < deadline_ns:
            self.advance_ns(MS)
            self._seen()


def test_the_width_follows_the_hand_when_orders_come_while_it_moves(
    link: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = link
    off_m: list[float] = []

    class SlowGripper(Gripper):
        """A gripper that moves at its speed and closes on nothing."""

        def move(self, width: float, speed: float) -> bool:
            self.did.append(f"to {width:.2f}")
            while self.width != width:
                step = speed * 0.001
                self.width += min(max(width - self.width, -step), step)
                clock.sleep_until_ns(clock.now_ns() + MS)
            return True

        def grasp(self, width: float, speed: float, *args: float, **kwargs: float) -> None:
            self.move(width, speed)

    def watch() -> None:
        if (order_m := {100: 0.0, 150: 0.03, 200: 0.08}.get(clock.now_ns() // MS)) is not None:
            hand.tell(order_m)
        if ours.fileno() != -1:
            off_m.append(hand.width_m() - gripper.width)
        if clock.now_ns() == 3_000 * MS:
            hand.close()

    clock, gripper = WatchedClock(watch), SlowGripper()
    hand = Hand(ours, clock, gripper.width)
    serve_hand(theirs, gripper, clock)
    assert gripper.did == ["to 0.00", "to 0.08"]
    assert max(map(abs, off_m)) < SPEED_M_S / REPORTS_HZ + 0.001


def test_a_hand_at_rest_that_falls_silent_gives_no_width_until_it_is_heard_again(
    link: tuple[socket.socket, socket.socket], clock: VirtualClock
) -> None:
    hand = Hand(link[0], clock, 0.08)
    clock.advance_ns(200 * MS)
    assert hand.width_m() == 0.08
    clock.advance_ns(100 * MS)
    with pytest.raises(
        ObservationError, match=r"expected a report of the last 0.25 s, found one 0.30 s old"
    ):
        hand.width_m()
    link[1].send(struct.pack("<Qd", 0, 0.04))
    assert hand.width_m() == 0.04


def test_a_hand_that_never_finishes_a_move_is_a_failure_of_the_robot(
    link: tuple[socket.socket, socket.socket], clock: VirtualClock
) -> None:
    hand = Hand(link[0], clock, 0.08)
    hand.tell(0.02)
    clock.advance_ns(2_200 * MS)
    with pytest.raises(
        RobotError, match=r"expected a move of 0.6 s, found it not finished after 2.2 s"
    ):
        hand.width_m()


def test_a_hand_whose_process_ended_is_a_failure_of_the_robot(
    link: tuple[socket.socket, socket.socket],
) -> None:
    hand = Hand(link[0], MonotonicClock(), 0.08)
    link[1].close()
    with pytest.raises(RobotError, match="the hand failed: its process ended"):
        hand.width_m()


@pytest.mark.parametrize(
    ("report", "reason"), [(b"", "its process ended"), (b"libfranka: lost", "libfranka: lost")]
)
def test_a_hand_that_ends_with_an_order_unread_is_a_failure_too_and_stays_one(
    link: tuple[socket.socket, socket.socket], report: bytes, reason: str
) -> None:
    hand = Hand(link[0], MonotonicClock(), 0.08)
    hand.tell(0.0)
    if report:
        link[1].send(report)
    link[1].close()
    hand.tell(0.08)  # The arm does so while it fades.
    for _ in range(2):
        with pytest.raises(RobotError, match=f"the hand failed: {reason}"):
            hand.width_m()


def test_a_hand_to_which_nobody_listens_goes_on(link: tuple[socket.socket, socket.socket]) -> None:
    gripper, clock = Gripper(), VirtualClock()
    readings = 0
    ours, theirs = link
    ours.setblocking(False)

    class Link:
        """A link that ends after a minute of reports."""

        setblocking, send = theirs.setblocking, theirs.send

        def recv(self, size: int) -> bytes:
            nonlocal readings
            readings += 1
            return b"" if readings > 60 * REPORTS_HZ else theirs.recv(size)

    serve_hand(Link(), gripper, clock)  # type: ignore[arg-type]  # a link that also counts
    assert readings > 60 * REPORTS_HZ
