"""Franka's driver and hand, against a stand-in for libfranka."""

# ruff: noqa: ARG002, N802 – stand-ins have libfranka's names and arguments

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.waiting import eventually

from gatort.launch import cli
from gatort.runtime.clock import MonotonicClock, VirtualClock
from gatort.runtime.errors import MissingDependency, ObservationError, RobotError, SpecError
from gatort.runtime.robots import franka as driver_franka
from gatort.runtime.robots.franka import FrankaConfig, FrankaRobot
from gatort.runtime.robots.hand import REPORTS_HZ, SPEED_M_S, Hand, serve_hand, start_hand
from gatort.runtime.safety import Command, State
from gatort.runtime.spec import select_keys
from gatort.sim.tasks.stacking.specifications import CAMERA_SPEC, STACK_SPEC

pylibfranka = pytest.importorskip("pylibfranka")
MS = 1_000_000
CORIOLIS_NM, SPEED_RAD_S = 0.25, 0.5
START_NS = 10**9
NOBODY = "127.0.0.9"
"""Loopback address at which nothing listens."""
CONFIG = FrankaConfig(address="stand-in")
START_RAD = (-1.0, -1.2, -1.0, -2.6, -1.0, 1.0, -1.0)


@dataclass
class StandIn:
    """Stand-in for pylibfranka: notes its torques. Each cycle takes a millisecond of the clock."""

    clock: VirtualClock
    mode: Any = pylibfranka.RobotMode.Idle
    written: list[Any] = field(default_factory=list)
    fails: bool = False
    cycles: int = 0
    work_ns: int = 0
    """Time between reading the state and writing the torques in each cycle."""

    refuses: bool = False
    recoveries: int = 0
    arrives: float = 1.0
    """Share of the arm's states that arrive."""

    RobotMode, Torques = pylibfranka.RobotMode, pylibfranka.Torques
    RealtimeConfig = pylibfranka.RealtimeConfig
    FrankaException = pylibfranka.FrankaException
    RealtimeException = pylibfranka.RealtimeException
    NetworkException = pylibfranka.NetworkException

    def Robot(self, address: str, kernel: Any) -> StandIn:
        return self

    def set_collision_behavior(self, *thresholds: list[float]) -> None:
        self.thresholds = thresholds

    def set_load(self, *load: Any) -> None:
        self.load = load

    def automatic_error_recovery(self) -> None:
        self.recoveries += 1
        self.fails = False
        self.mode = pylibfranka.RobotMode.Idle

    def load_model(self) -> SimpleNamespace:
        return SimpleNamespace(coriolis=lambda _: [CORIOLIS_NM] * 7)

    def read_once(self) -> SimpleNamespace:
        self.clock.advance_ns(MS - self.work_ns)
        turned_rad = SPEED_RAD_S * (self.clock.now_ns() - START_NS) * 1e-9
        position = [start + turned_rad for start in START_RAD]
        self.cycles += 1
        sent_s = self.cycles * 1e-3 / self.arrives
        time = SimpleNamespace(to_sec=lambda: sent_s)
        return SimpleNamespace(
            q=position, dq=[SPEED_RAD_S] * 7, robot_mode=self.mode, time=time, m_load=0.0, m_ee=0.7
        )

    def start_torque_control(self) -> StandIn:
        if self.refuses:
            raise pylibfranka.CommandException("libfranka: Move command rejected")
        return self

    def readOnce(self) -> tuple[SimpleNamespace, None]:
        if self.fails:
            self.mode = pylibfranka.RobotMode.Reflex
            raise pylibfranka.ControlException("libfranka: motion aborted by reflex: joint_reflex")
        return self.read_once(), None

    def writeOnce(self, torques: Any) -> None:
        self.written.append(torques)
        self.clock.advance_ns(self.work_ns)


@pytest.fixture
def link() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(START_NS)


@pytest.fixture
def arm(
    clock: VirtualClock, link: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> tuple[FrankaRobot, StandIn]:
    stand_in = StandIn(clock)
    monkeypatch.setattr(driver_franka, "_import_pylibfranka", lambda: stand_in)
    monkeypatch.setattr(driver_franka, "start_hand", lambda *_: Hand(link[0], clock, 0.08))
    robot = FrankaRobot(CONFIG, clock)
    assert robot.fault is None
    return robot, stand_in


def drive(robot: FrankaRobot, milliseconds: int) -> None:
    for _ in range(milliseconds):
        robot.advance()


def command(robot: FrankaRobot, sequence: int, torque_nm: float, width_m: float = 0.08) -> Command:
    observation = robot.observe()
    values = np.array([torque_nm] * 7 + [width_m])
    return Command(sequence, observation.sequence, observation.stamp_ns + 25 * MS, 60 * MS, values)


def test_the_arm_gets_the_torque_in_effect_with_coriolis_and_damping_and_no_gravity(
    arm: tuple[FrankaRobot, StandIn],
) -> None:
    robot, stand_in = arm
    drive(robot, 5)
    assert stand_in.written == []  # Not armed, so not driven.
    robot.arm()
    robot.command(command(robot, 1, 2.0))
    drive(robot, 40)
    # The arm's own torque comes in steps of its rate as well: 1 N·m a cycle, less a margin.
    np.testing.assert_allclose(stand_in.written[0].tau_J, [-0.99] * 7)
    np.testing.assert_allclose(stand_in.written[1].tau_J, [CORIOLIS_NM - 3.0 * SPEED_RAD_S] * 7)
    np.testing.assert_allclose(
        stand_in.written[-1].tau_J, [2.0 + CORIOLIS_NM - 3.0 * SPEED_RAD_S] * 7
    )


def test_the_watchdog_is_the_one_of_every_arm_and_the_arm_holds_itself_once_latched(
    arm: tuple[FrankaRobot, StandIn],
) -> None:
    robot, stand_in = arm
    robot.arm()
    robot.command(command(robot, 1, 2.0))
    seen: list[State] = []
    robot.on_step = lambda _, state, __: seen.append(state)
    drive(robot, 300)
    assert list(dict.fromkeys(seen)) == [State.RUN, State.HOLD, State.SAFE, State.LATCHED]
    assert [torques.motion_finished for torques in stand_in.written].index(True) == len(
        stand_in.written
    ) - 1
    assert not np.any(stand_in.written[-1].tau_J)  # The arm takes over from no torque.
    robot.arm()
    drive(robot, 1)
    assert not stand_in.written[-1].motion_finished
    assert np.abs(stand_in.written[-1].tau_J).max() <= 0.99


def test_after_a_reflex_the_arm_stays_up_and_its_operator_recovers_it(
    arm: tuple[FrankaRobot, StandIn],
) -> None:
    robot, stand_in = arm
    robot.arm()
    robot.command(command(robot, 1, 2.0))
    drive(robot, 40)
    stand_in.fails = True
    drive(robot, 1)
    reason = "the arm stopped itself: motion aborted by reflex: joint_reflex"
    assert (robot.fault, robot.stop_reason, robot.state) == (reason, reason, State.SAFE)
    drive(robot, 60)
    assert robot.state is State.LATCHED

    written = len(stand_in.written)
    robot.arm()  # Nobody but its operator can recover it.
    drive(robot, 5)
    assert (robot.state, len(stand_in.written)) == (State.LATCHED, written)
    robot.recover()
    assert (robot.fault, stand_in.recoveries, robot.state) == (None, 1, State.LATCHED)
    robot.arm()
    drive(robot, 1)
    assert robot.state is State.RUN


def test_an_arm_that_refuses_torque_control_has_a_fault_and_stays_at_rest(
    arm: tuple[FrankaRobot, StandIn],
) -> None:
    robot, stand_in = arm
    stand_in.refuses = True
    robot.arm()
    assert robot.fault == "the arm refused torque control: Move command rejected"
    drive(robot, 5)
    assert (robot.state, stand_in.written) == (State.DISARMED, [])


def test_an_arm_whose_user_stop_is_pressed_keeps_its_fault_until_it_is_released(
    arm: tuple[FrankaRobot, StandIn],
) -> None:
    robot, stand_in = arm
    stand_in.mode = pylibfranka.RobotMode.UserStopped
    drive(robot, 1)
    assert robot.fault == "the arm is in the mode UserStopped"
    robot.recover()
    assert robot.fault == "the arm is in the mode UserStopped"
    stand_in.mode = pylibfranka.RobotMode.Idle
    drive(robot, 1)
    assert robot.fault is not None  # Its own operator has not allowed it yet.
    robot.recover()
    assert (robot.fault, stand_in.recoveries) == (None, 0)


def test_a_stop_leaves_the_hand_as_it_is(
    arm: tuple[FrankaRobot, StandIn], link: tuple[socket.socket, socket.socket]
) -> None:
    robot, _ = arm
    robot.arm()
    robot.command(command(robot, 1, 0.0, width_m=0.08))
    drive(robot, 200)
    assert robot.state is State.LATCHED
    link[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        link[1].recv(100)


def test_contact_and_load_are_set_before_anybody_may_arm(
    arm: tuple[FrankaRobot, StandIn],
) -> None:
    robot, stand_in = arm
    assert stand_in.thresholds[2] == [40.0] * 6
    assert stand_in.load == (0.0, [0.0, 0.0, 0.0], [0.0] * 9)
    assert robot.setup[0] == "100% of the arm's states arrived in time"


@pytest.mark.parametrize("work_us", [0, 200, 500, 800])
def test_the_motion_is_finished_exactly_once_when_the_arm_is_at_rest(
    arm: tuple[FrankaRobot, StandIn], work_us: int
) -> None:
    robot, stand_in = arm
    stand_in.work_ns = work_us * 1_000
    robot.arm()
    robot.command(command(robot, 1, 2.0))
    drive(robot, 40)
    while robot.state is not State.LATCHED:
        robot.stop()  # Either call may be the first to find the arm at rest.
        robot.advance()
        robot.stop()
    robot.close()
    robot.close()
    assert [torques.motion_finished for torques in stand_in.written].index(True) == len(
        stand_in.written
    ) - 1


def test_closing_fades_an_arm_that_is_driven_and_finishes_its_motion(
    arm: tuple[FrankaRobot, StandIn],
) -> None:
    robot, stand_in = arm
    robot.arm()
    robot.command(command(robot, 1, 2.0))
    drive(robot, 40)
    driven = len(stand_in.written)
    robot.close()
    faded_nm = [torques.tau_J[0] for torques in stand_in.written[driven:]]
    assert np.abs(np.diff(faded_nm)).max() <= 0.99
    assert min(faded_nm) == pytest.approx(CORIOLIS_NM - 3.0 * SPEED_RAD_S, abs=0.1)
    assert faded_nm[-1] == 0.0
    assert stand_in.written[-1].motion_finished


def test_an_arm_that_stops_itself_while_it_is_closed_leaves_no_hand_open(
    arm: tuple[FrankaRobot, StandIn], link: tuple[socket.socket, socket.socket]
) -> None:
    robot, stand_in = arm
    robot.arm()
    stand_in.fails = True
    robot.close()
    assert link[0].fileno() == -1
    robot.close()


def test_an_arm_that_is_not_ready_has_a_fault_from_the_start(
    clock: VirtualClock, link: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = StandIn(clock, mode=pylibfranka.RobotMode.Reflex)
    monkeypatch.setattr(driver_franka, "_import_pylibfranka", lambda: stand_in)
    monkeypatch.setattr(driver_franka, "start_hand", lambda *_: Hand(link[0], clock, 0.08))
    robot = FrankaRobot(CONFIG, clock)
    assert robot.fault == "the arm is in the mode Reflex"
    robot.recover()
    assert (robot.fault, stand_in.recoveries) == (None, 1)


def test_an_arm_whose_states_are_lost_on_the_way_is_refused(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_franka, "_import_pylibfranka", lambda: StandIn(clock, arrives=0.8))
    with pytest.raises(RobotError, match="at least 90% of its states to arrive in time, found 80%"):
        FrankaRobot(CONFIG, clock)


def test_an_arm_without_a_hand_offers_neither_a_width_nor_an_actuator_for_it(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_franka, "_import_pylibfranka", lambda: StandIn(clock))
    robot = FrankaRobot(FrankaConfig(address="stand-in", hand="none"), clock)
    assert len(robot.interface.actuators) == 7
    robot.arm()
    stamp_ns = robot.observe().stamp_ns
    robot.command(Command(1, 1, stamp_ns + 25 * MS, 60 * MS, np.full(7, 2.0)))
    drive(robot, 40)
    assert len(robot.observe().values) == 2
    assert robot.inner_loop.in_effect.tolist() == [2.0] * 7
    robot.close()


def test_a_policy_that_reads_more_than_the_arm_senses_is_refused_by_the_keys_name(
    arm: tuple[FrankaRobot, StandIn],
) -> None:
    robot, _ = arm
    observation = robot.observe()
    assert [value.shape for value in observation.values] == [
        key.shape for key in robot.interface.observations
    ]
    assert [value.dtype.name for value in observation.values] == ["float32"] * 3
    with pytest.raises(SpecError, match="lacks observation key 'blocks/blue_from_red'"):
        select_keys(STACK_SPEC, robot.interface)
    with pytest.raises(SpecError, match="lacks observation key 'camera/front'"):
        select_keys(CAMERA_SPEC, robot.interface)


def test_pylibfranka_has_every_name_that_the_driver_uses() -> None:
    asked = {
        "Robot": [
            "automatic_error_recovery",
            "load_model",
            "read_once",
            "set_collision_behavior",
            "set_load",
            "start_torque_control",
        ],
        "ActiveControlBase": ["readOnce", "writeOnce"],
        "Model": ["coriolis"],
        "RobotState": ["q", "dq", "m_ee", "m_load", "robot_mode", "time"],
        "Torques": ["tau_J", "motion_finished"],
        "Gripper": ["read_once", "move", "grasp", "homing"],
        "GripperState": ["width"],
    }
    for name, members in asked.items():
        assert set(members) <= set(dir(getattr(pylibfranka, name)))
    for name in ("ControlException", "NetworkException", "CommandException", "RealtimeException"):
        assert issubclass(getattr(pylibfranka, name), RuntimeError)


def test_an_address_without_an_arm_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["robot", "franka", "--address", NOBODY, "--bind", "tcp://127.0.0.1:0"]) == 2
    assert (
        "gatort: no Franka arm can be driven at 127.0.0.9: libfranka: Connection"
        in capsys.readouterr().err
    )


def test_an_address_without_a_hand_is_refused() -> None:
    with pytest.raises(
        RobotError,
        match=r"no hand can be driven at 127.0.0.9: the hand failed: libfranka: Connection",
    ):
        start_hand(NOBODY, MonotonicClock())


def test_without_pylibfranka_the_install_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pylibfranka", None)
    with pytest.raises(MissingDependency, match=r"pip install 'gatort\[franka\]'"):
        FrankaRobot(FrankaConfig(address="127.0.0.1"), MonotonicClock())


# -- The hand --------------------------------------------------------------------------------------


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


def test_the_arms_cycles_take_the_hands_reports_even_if_nobody_observes(
    arm: tuple[FrankaRobot, StandIn], link: tuple[socket.socket, socket.socket]
) -> None:
    robot, _ = arm
    link[1].settimeout(1)
    for armed in (False, True):
        if armed:
            robot.arm()
        for _ in range(1_000):  # A socket keeps some 280, and sending more would time out.
            link[1].send(struct.pack("<Qd", 0, 0.04))
            robot.advance()


def test_an_arm_whose_hand_has_failed_is_still_faded(
    arm: tuple[FrankaRobot, StandIn], link: tuple[socket.socket, socket.socket]
) -> None:
    robot, stand_in = arm
    robot.arm()
    robot.command(command(robot, 1, 2.0))
    drive(robot, 40)
    link[1].close()
    with pytest.raises(RobotError, match="the hand failed: its process ended"):
        robot.observe()
    robot.stop()
    drive(robot, 60)
    assert robot.state is State.LATCHED
    assert stand_in.written[-1].motion_finished


def test_arming_moves_no_hand_before_the_first_command_takes_effect_and_a_stop_leaves_it(
    arm: tuple[FrankaRobot, StandIn], link: tuple[socket.socket, socket.socket]
) -> None:
    robot, _ = arm
    link[1].setblocking(False)

    def orders() -> list[float]:
        """Return the orders sent to the hand, which does each at once."""
        widths_m = []
        with suppress(BlockingIOError):
            while True:
                packet = link[1].recv(1_024)
                widths_m.append(struct.unpack("<Qd", packet)[1])
                link[1].send(packet)
                drive(robot, 1)
        return widths_m

    robot.arm()
    drive(robot, 30)
    robot.stop()
    drive(robot, 60)
    assert orders() == []
    robot.arm()
    robot.command(command(robot, 1, 2.0, width_m=0.04))
    drive(robot, 20)
    assert orders() == []
    drive(robot, 10)
    assert orders() == [0.04]
    robot.arm()  # Armed anew: there has been no command since.
    drive(robot, 30)
    assert orders() == []
    robot.command(command(robot, 1, 2.0, width_m=0.04))
    drive(robot, 30)
    robot.stop()
    drive(robot, 60)
    assert orders() == []
