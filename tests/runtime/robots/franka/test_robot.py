"""Franka's driver and its inner loop's process, against a control box that speaks its protocol.

All of it runs on the wall clock. The tests assert torques, orders and sentences, and no times: the
arm's watchdog here waits as long as it may.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from tests.runtime.robots.franka.control_box import SPEED_RAD_S, ControlBox
from tests.waiting import eventually

from gatort.runtime.clock import MonotonicClock
from gatort.runtime.errors import MissingDependency, RobotError, SpecError
from gatort.runtime.facts import Fact
from gatort.runtime.robots.franka import robot as franka
from gatort.runtime.robots.franka.fci import ERRORS, Ask, Mode
from gatort.runtime.robots.franka.hand import Hand
from gatort.runtime.robots.franka.robot import FrankaConfig, FrankaRobot
from gatort.runtime.safety import LONGEST_VALIDITY_NS, STOPPED, Command, State
from gatort.runtime.spec import select_keys
from gatort.sim.tasks.stacking.specifications import CAMERA_SPEC, STACK_SPEC

MS = 1_000_000
DAMPING = 3.0
STEP_NM = 0.99
CLOCK = MonotonicClock()
ADDRESS = f"127.0.6.{1 + int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0')[2:])}"
"""Each worker of the tests has its own, since the port is fixed."""


@pytest.fixture
def box() -> Iterator[ControlBox]:
    with closing(ControlBox(ADDRESS)) as box:
        yield box


def config(**settings: object) -> FrankaConfig:
    values = {"address": ADDRESS, "require_realtime_kernel": False, "hand": "none"}
    return FrankaConfig.model_validate({**values, **settings})


@pytest.fixture
def make(box: ControlBox) -> Iterator[Callable[..., FrankaRobot]]:
    made = []

    def make(**settings: object) -> FrankaRobot:
        made.append(FrankaRobot(config(**settings), CLOCK, LONGEST_VALIDITY_NS))
        return made[-1]

    yield make
    for robot in made:
        robot.close()


@pytest.fixture
def robot(make: Callable[..., FrankaRobot]) -> FrankaRobot:
    return make()


def pump(robot: FrankaRobot, until: Callable[[], bool]) -> None:
    """Advance the arm until a condition holds."""

    def holds() -> bool:
        robot.advance()
        return until()

    eventually(holds)


def drive(robot: FrankaRobot, torque_nm: float, until: Callable[[], bool]) -> None:
    """Arm the arm, again where a pause has stopped it, and command a torque until it holds."""
    sequence = count(1)

    def holds() -> bool:
        if robot.state in STOPPED:
            robot.arm()
        observation = robot.observe()
        values = np.full(len(robot.interface.actuators), torque_nm)
        apply_ns = observation.stamp_ns + 25 * MS
        robot.command(Command(next(sequence), 1, apply_ns, 150 * MS, values))
        return until()

    eventually(holds)


def test_an_answer_that_was_lost_makes_no_torque_jump_for_the_arm(
    robot: FrankaRobot, box: ControlBox
) -> None:
    box.hears_every = 3  # One answer of three reaches the arm.
    drive(robot, 10.0, lambda: bool(box.told) and box.told[-1].torque_nm[0] > 9)
    robot.stop("a test")
    pump(robot, lambda: bool(box.told[-1].is_finished))
    assert steps_nm(box) <= STEP_NM + 1e-5


def steps_nm(box: ControlBox) -> float:
    """Return the largest change of torque from one cycle to the next, from rest on."""
    torques = np.array([told.torque_nm for told in box.told])
    return float(np.abs(np.diff(torques, axis=0, prepend=np.zeros((1, 7)))).max())


def test_the_arm_gets_the_torque_in_effect_with_damping_and_coriolis_in_steps_of_its_rate(
    robot: FrankaRobot, box: ControlBox
) -> None:
    assert not box.told
    expected = 4.0 - DAMPING * SPEED_RAD_S

    def arrived() -> bool:
        in_effect = robot.inner_loop.in_effect.tolist() == [4.0] * 7
        return in_effect and abs(box.told[-1].torque_nm[0] - expected) < 0.01

    drive(robot, 4.0, arrived)
    assert steps_nm(box) <= STEP_NM + 1e-5


def test_without_commands_the_arm_holds_fades_latches_and_is_let_go_at_no_torque(
    robot: FrankaRobot, box: ControlBox
) -> None:
    drive(robot, 4.0, lambda: bool(box.told) and box.told[-1].torque_nm[0] > 3)
    seen: list[State] = []
    robot.on_step = lambda _, state, __: seen.append(state)
    pump(robot, lambda: robot.state is State.LATCHED and box.told[-1].is_finished)
    assert list(dict.fromkeys(seen)) == [State.RUN, State.HOLD, State.SAFE, State.LATCHED]
    assert robot.stop_reason == "no command for 200 ms"
    assert not np.any(box.told[-1].torque_nm)
    assert steps_nm(box) <= STEP_NM + 1e-5
    assert not any(told.is_finished for told in box.told if np.any(told.torque_nm))

    box.told.clear()
    robot.arm()
    assert robot.state is State.RUN
    assert robot.stop_reason is None


def test_an_arm_whose_process_ends_is_faded_and_let_go(robot: FrankaRobot, box: ControlBox) -> None:
    drive(robot, 4.0, lambda: bool(box.told) and box.told[-1].torque_nm[0] > 3)
    robot._loop._link.close()  # As the end of this process would.
    eventually(lambda: box.told[-1].is_finished)
    assert not np.any(box.told[-1].torque_nm)
    assert steps_nm(box) <= STEP_NM + 1e-5
    assert robot._loop.process.wait(20) == 0


def test_a_stop_counts_at_once_and_fades_by_the_arms_rate(
    make: Callable[..., FrankaRobot], box: ControlBox
) -> None:
    robot = make(torque_rate_nm_s=500.0)
    drive(robot, 20.0, lambda: bool(box.told) and box.told[-1].torque_nm[0] > 15)
    robot.stop("a test")
    assert robot.state is State.SAFE
    pump(robot, lambda: box.told[-1].is_finished)
    assert robot.stop_reason == "a test"
    assert steps_nm(box) <= STEP_NM / 2 + 1e-5


def test_after_a_reflex_the_arm_stays_up_and_its_operator_recovers_it(
    robot: FrankaRobot, box: ControlBox
) -> None:
    drive(robot, 4.0, lambda: bool(box.told) and box.told[-1].torque_nm[0] > 3)
    box.end_motion(ERRORS.index("joint_reflex"))
    pump(robot, lambda: robot.state is State.LATCHED)
    reason = "the arm stopped itself: joint_reflex"
    assert (robot.fault, robot.stop_reason) == (reason, reason)

    box.told.clear()
    robot.arm()  # Nobody but its operator can recover it.
    assert (robot.state, box.told) == (State.LATCHED, [])
    box.refuses[Ask.RECOVER] = 3
    robot.recover()
    assert robot.fault == (
        "the arm could not be recovered: the arm refused its recovery: "
        "the arm must be recovered by hand in Desk"
    )
    box.refuses.clear()
    robot.recover()
    assert (robot.fault, robot.state) == (None, State.LATCHED)
    robot.arm()
    assert robot.state is State.RUN


def test_an_arm_that_refuses_torque_control_has_a_fault_and_is_never_armed_by_it(
    robot: FrankaRobot, box: ControlBox
) -> None:
    box.refuses[Ask.MOVE] = 4
    robot.arm()
    assert robot.fault == (
        "the arm refused torque control: "
        "a safety function of the arm is active; switch it off in Desk"
    )
    box.refuses.clear()
    robot._fci.start_torque_control()  # A motion for which nobody gave consent.
    pump(robot, lambda: bool(box.told) and box.told[-1].is_finished)
    assert robot.state is State.DISARMED
    assert not np.any([told.torque_nm for told in box.told])


def test_an_arm_whose_user_stop_is_pressed_keeps_its_fault_until_it_is_released(
    robot: FrankaRobot, box: ControlBox
) -> None:
    box.mode = Mode.USER_STOPPED
    pump(robot, lambda: robot.fault == "the arm is in the mode user stopped")
    robot.recover()
    assert robot.fault == "the arm is in the mode user stopped"
    box.mode = Mode.IDLE
    pump(robot, lambda: robot._loop.newest.robot_mode == Mode.IDLE)
    assert robot.fault is not None  # Its own operator has not allowed it yet.
    robot.recover()
    assert robot.fault is None
    assert Ask.RECOVER not in [ask for ask, _ in box.asked]


def test_contact_and_load_are_set_and_printed_before_anybody_may_arm(
    make: Callable[..., FrankaRobot], box: ControlBox
) -> None:
    robot = make(collision_force_n=25.0, load_kg=0.4, load_at_m=(0.0, 0.0, 0.05))
    asked = dict(box.asked)
    assert struct.unpack("<52d", asked[Ask.SET_COLLISION_BEHAVIOR])[28:] == (25.0,) * 24
    assert struct.unpack("<13d", asked[Ask.SET_LOAD])[:4] == (0.4, 0.0, 0.0, 0.05)
    facts = {fact.name: fact.value for fact in robot.facts}
    assert facts["contact"].endswith("and at 25 N")


def test_the_success_rate_of_the_last_motion_is_told_and_a_poor_one_needs_attention(
    robot: FrankaRobot, box: ControlBox
) -> None:
    def link() -> Fact:
        return next(fact for fact in robot.facts if fact.name == "link")

    assert link().value.endswith("arrived; not driven yet")
    for rate, attention in ((0.89, "expected at least 90%"), (0.95, "")):
        box.success_rate = rate
        drive(robot, 0.0, lambda rate=rate: abs(robot._loop.newest.success_rate - rate) < 1e-6)
        pump(robot, lambda: bool(robot._loop.newest.is_driven))
        assert link().value == f"{rate:.0%} of the control commands arrived in the last motion"
        assert link().attention.startswith(attention)
        assert bool(link().attention) == bool(attention)


def test_a_reflex_for_late_torques_marks_the_link_whatever_its_rate(
    robot: FrankaRobot, box: ControlBox
) -> None:
    box.success_rate = 1.0
    drive(robot, 0.0, lambda: bool(box.told))
    box.end_motion(ERRORS.index("communication_constraints_violation"))
    pump(robot, lambda: robot.fault is not None)
    link = next(fact for fact in robot.facts if fact.name == "link")
    assert "`gatort doctor --address` names causes" in link.attention


def test_closing_fades_an_arm_that_is_driven_and_a_second_call_does_nothing(
    robot: FrankaRobot, box: ControlBox
) -> None:
    drive(robot, 4.0, lambda: bool(box.told) and box.told[-1].torque_nm[0] > 3)
    robot.close()
    assert box.told[-1].is_finished
    assert not np.any(box.told[-1].torque_nm)
    assert steps_nm(box) <= STEP_NM + 1e-5
    robot.close()


def test_datagrams_of_strangers_are_no_states_of_the_arm(
    robot: FrankaRobot, box: ControlBox
) -> None:
    port = robot._fci.udp.getsockname()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.6.66", 0))
        for size in (1_377, 1_377, 3, 60_000):
            stranger.sendto(b"\xff" * size, port)
    began = robot._loop.newest.number
    pump(robot, lambda: robot._loop.newest.number > began + 50)
    assert robot._loop.newest.robot_mode == Mode.IDLE
    assert robot._loop.newest.message_id < 1_000_000


# -- Refusals --------------------------------------------------------------------------------------


def test_states_that_are_lost_on_the_way_are_a_reason_to_refuse_the_arm(box: ControlBox) -> None:
    box.loses_every = 4
    with pytest.raises(RobotError, match=r"at least 90% of the arm's states to arrive, found 7\d%"):
        FrankaRobot(config(), CLOCK)


def test_an_arm_of_another_protocol_is_refused_with_the_one_that_fits(box: ControlBox) -> None:
    box.version = 5
    with pytest.raises(RobotError, match=r"speaks protocol 5, expected 10: .* FR3 .* no Panda"):
        FrankaRobot(config(), CLOCK)


def test_an_arm_that_another_program_holds_is_refused(
    box: ControlBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatort.runtime.robots.franka.fci.ANSWER_S", 0.1)
    box.is_deaf = True
    with pytest.raises(RobotError, match="another program may hold its control interface"):
        FrankaRobot(config(), CLOCK)


def test_an_arm_without_a_known_model_is_refused(box: ControlBox) -> None:
    box.model = "<robot><link name='link0'/></robot>"
    with pytest.raises(RobotError, match=r"expected a URDF with joint1 to joint8 .*\(joint1\)"):
        FrankaRobot(config(), CLOCK)


def test_settings_that_the_arm_refuses_are_named(box: ControlBox) -> None:
    box.refuses[Ask.SET_LOAD] = 2
    with pytest.raises(RobotError, match="the arm refused the load: a value is out of range"):
        FrankaRobot(config(load_kg=90.0), CLOCK)


def test_an_address_at_which_nobody_answers_is_refused_with_what_to_look_for() -> None:
    with pytest.raises(RobotError, match=r"no Franka arm answers at 127.0.0.9: .*FCI\) activated"):
        FrankaRobot(config(address="127.0.0.9"), CLOCK)


def test_an_arm_that_falls_silent_is_a_lost_link_and_not_a_reflex(
    robot: FrankaRobot, box: ControlBox
) -> None:
    box.is_silent = True
    with pytest.raises(RobotError, match="the link to the arm was lost: no state of the arm for"):
        pump(robot, lambda: False)


def test_the_scheduling_of_the_inner_loop_is_told_and_ordinary_scheduling_marked(
    robot: FrankaRobot,
) -> None:
    def loop() -> Fact:
        return next(fact for fact in robot.facts if fact.name == "inner loop")

    pid = robot._loop.process.pid
    is_fifo = os.sched_getscheduler(pid) & os.SCHED_FIFO
    assert loop().value == ("SCHED_FIFO 80" if is_fifo else "ordinary scheduling")
    os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))
    assert "SCHED_FIFO 80 was refused, so torques may come late" in loop().attention


def test_the_inner_loops_process_has_a_readable_name(robot: FrankaRobot) -> None:
    name = Path(f"/proc/{robot._loop.process.pid}/comm").read_text()
    assert name == "gatort-fci-loop\n"


def test_the_end_of_the_inner_loops_process_is_said(robot: FrankaRobot, box: ControlBox) -> None:
    robot._loop.process.kill()
    with pytest.raises(RobotError, match=r"the inner loop of the arm ended.* with status -9"):
        pump(robot, lambda: False)


def test_a_kernel_without_preempt_rt_is_refused_with_the_switch_that_accepts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(franka, "REALTIME_KERNEL", tmp_path / "absent")
    with pytest.raises(RobotError, match=r"PREEMPT_RT.*--no-require-realtime-kernel"):
        FrankaRobot(config(require_realtime_kernel=True), CLOCK)


def test_without_pylibfranka_the_install_line_and_the_arm_without_a_hand_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(franka, "find_spec", lambda _: None)
    with pytest.raises(MissingDependency, match=r"pip install 'gatort\[franka\]', or give --hand"):
        FrankaRobot(config(hand="franka"), CLOCK)


def test_a_policy_that_reads_more_than_the_arm_senses_is_refused_by_the_keys_name(
    robot: FrankaRobot,
) -> None:
    observation = robot.observe()
    assert [value.shape for value in observation.values] == [(7,), (7,)]
    with pytest.raises(SpecError, match="lacks observation key 'blocks/blue_from_red'"):
        select_keys(STACK_SPEC, robot.interface)
    with pytest.raises(SpecError, match="lacks observation key 'camera/front'"):
        select_keys(CAMERA_SPEC, robot.interface)


# -- The hand --------------------------------------------------------------------------------------


@pytest.fixture
def hand() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.setblocking(False)
        yield ours, theirs


@pytest.fixture
def handed(
    make: Callable[..., FrankaRobot],
    hand: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
) -> FrankaRobot:
    monkeypatch.setattr(franka, "start_hand", lambda *_: Hand(hand[0], CLOCK, 0.08))
    return make(hand="franka")


def keep(hand: socket.socket) -> list[float]:
    """Report an open hand, and return the orders that came."""
    orders = []
    hand.send(struct.pack("<Qd", 0, 0.08))
    try:
        while True:
            orders.append(struct.unpack("<Qd", hand.recv(1_024))[1])
    except BlockingIOError:
        return orders


def test_consent_alone_moves_no_hand_a_command_does_and_a_stop_leaves_it(
    handed: FrankaRobot, hand: tuple[socket.socket, socket.socket]
) -> None:
    handed.arm()
    pump(handed, lambda: keep(hand[1]) == [] and handed.state is State.LATCHED)
    ordered: list[float] = []

    def moved() -> bool:
        ordered.extend(keep(hand[1]))
        return bool(ordered)

    drive(handed, 0.02, moved)
    assert ordered == [0.02]
    handed.stop("a test")
    pump(handed, lambda: handed.state is State.LATCHED)
    assert keep(hand[1]) == []


def test_an_arm_whose_hand_has_failed_is_still_faded(
    handed: FrankaRobot, box: ControlBox, hand: tuple[socket.socket, socket.socket]
) -> None:
    def moves() -> bool:
        keep(hand[1])
        return bool(box.told) and box.told[-1].torque_nm[0] > 3

    drive(handed, 4.0, moves)
    hand[1].close()
    with pytest.raises(RobotError, match="the hand failed: its process ended"):
        handed.observe()
    handed.stop()
    pump(handed, lambda: box.told[-1].is_finished)
    assert steps_nm(box) <= STEP_NM + 1e-5
