"""A robot's server and its controllers on a link in memory: every turn and instant is exact.

Sockets and keys are tried in test_sockets.py, rules of a session in test_session.py.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import pytest

from gatort.runtime.clock import Clock, VirtualClock
from gatort.runtime.errors import ObservationError, RobotError
from gatort.runtime.inner_loop import FADE_NS
from gatort.runtime.remote import wire
from gatort.runtime.remote.bad_link import BadLink
from gatort.runtime.remote.client import CONSENT_NS, RemoteRobot
from gatort.runtime.remote.link import LinkConditions
from gatort.runtime.remote.memory import MemoryControllerTransport, MemoryRobotTransport
from gatort.runtime.remote.server import FAREWELL_NS, RobotServer, RobotStatus
from gatort.runtime.remote.trial_keeper import TrialKeeper
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.safety import STOPPED, Command, State
from gatort.runtime.spec import PolicySpec

MS = 1_000_000
START_NS = 1_000 * MS
AN_HOUR_NS = 3_600_000 * MS
TORQUES = (1.0, 2.0, 3.0)


class AheadClock:
    """Another host's clock, an hour ahead of a virtual one."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock

    def now_ns(self) -> int:
        return self._clock.now_ns() + AN_HOUR_NS

    def sleep_until_ns(self, deadline_ns: int) -> None:
        self._clock.sleep_until_ns(deadline_ns - AN_HOUR_NS)


class Desk:
    """A scripted arm, its server, and controllers, all on one virtual clock in one thread."""

    def __init__(
        self,
        spec: PolicySpec,
        *,
        read: Callable[[int], list[Any]] | None = None,
        robot_clock: Callable[[VirtualClock], Clock] = lambda clock: clock,
        conditions: LinkConditions | None = None,
    ) -> None:
        self.clock = VirtualClock(START_NS)
        clock = robot_clock(self.clock)
        self.arm = ScriptedRobot(spec, clock, read)
        self.arm.on_step = self._see
        self.steps: list[tuple[int, State, float]] = []
        self.statuses: list[RobotStatus] = []
        self.failure: Exception | None = None
        self.link = MemoryRobotTransport(self.clock)
        self.trials = TrialKeeper(self.arm, clock)
        self.server = RobotServer(
            self.arm,
            clock,
            BadLink(self.link, conditions, clock) if conditions else self.link,
            name="scripted",
            simulated=True,
            trials=self.trials,
            on_change=self.statuses.append,
        )

    def _see(self, at_ns: int, state: State, values: np.ndarray) -> None:
        self.steps.append((at_ns, state, float(values[0])))

    def turn(self) -> None:
        """Let the server take a turn. When it fails, its process ends."""
        if self.link.closed:
            return
        try:
            self.server.turn()
        except Exception as error:  # noqa: BLE001  # whatever it is, the process ends with it
            self.failure = error
            self.server.close()

    def pass_ms(self, duration_ms: int) -> None:
        until_ns = self.clock.now_ns() + duration_ms * MS
        while self.clock.now_ns() < until_ns:
            self.turn()

    def connect(self) -> RemoteRobot:
        return RemoteRobot("memory", self.clock, transport=self.link.connect(self.turn))

    def stranger(self) -> MemoryControllerTransport:
        return self.link.connect(self.turn)

    @property
    def states(self) -> list[State]:
        """The watchdog's states in their order, without repetitions."""
        seen: list[State] = []
        for _, state, _ in self.steps:
            if seen[-1:] != [state]:
                seen.append(state)
        return seen


def act(robot: RemoteRobot, sequence: int, *values: float) -> int:
    """Take one tick: observe and command. Return when the command takes effect."""
    observation = robot.observe()
    apply_at_ns = observation.stamp_ns + robot.interface.action_delay_ns
    torques = np.array(values or TORQUES)
    robot.command(Command(sequence, observation.sequence, apply_at_ns, 60 * MS, torques))
    return apply_at_ns


@pytest.fixture
def desk(spec: PolicySpec) -> Desk:
    return Desk(spec)


# -- A session ---------------------------------------------------------------------------------


def test_a_controller_learns_the_robots_name_and_interface(desk: Desk, spec: PolicySpec) -> None:
    robot = desk.connect()
    assert (robot.name, robot.simulated, robot.state) == ("scripted", True, State.DISARMED)
    assert robot.interface.model_dump() == spec.model_dump(exclude={"window_frames"})


def test_a_command_takes_effect_exactly_one_action_delay_after_its_observation(desk: Desk) -> None:
    robot = desk.connect()
    robot.arm()
    apply_at_ns = act(robot, 1)
    desk.pass_ms(40)
    first_ns = next(at_ns for at_ns, _, value in desk.steps if value > 0)
    # The slew begins at that instant, so the step after it is the first above zero.
    assert first_ns == apply_at_ns + MS
    assert robot.observe().applied.tolist() == list(TORQUES)
    assert robot.state is State.RUN
    assert robot.dropped == 0


def test_a_stop_fades_the_arm_and_latches_it(desk: Desk) -> None:
    robot = desk.connect()
    robot.arm()
    act(robot, 1)
    desk.pass_ms(30)
    robot.stop()
    stopped_ns = desk.clock.now_ns()
    assert robot.state is State.SAFE
    desk.pass_ms(60)
    latched_ns = next(at_ns for at_ns, state, _ in desk.steps if state is State.LATCHED)
    assert latched_ns == stopped_ns + FADE_NS


def test_silence_after_a_command_latches_the_arm_and_only_new_consent_leaves_it(
    desk: Desk,
) -> None:
    robot = desk.connect()
    robot.arm()
    apply_at_ns = act(robot, 1)
    desk.pass_ms(200)
    assert desk.states[-4:] == [State.RUN, State.HOLD, State.SAFE, State.LATCHED]
    safe_ns = next(at_ns for at_ns, state, _ in desk.steps if state is State.SAFE)
    assert safe_ns == apply_at_ns + 95 * MS

    act(robot, 2)
    assert robot.observe().applied.tolist() == [0, 0, 0]
    assert (robot.state, robot.dropped) == (State.LATCHED, 1)
    robot.arm()
    assert robot.state is State.RUN


def test_a_fade_that_has_begun_ends_before_the_arm_is_armed_again(desk: Desk) -> None:
    robot = desk.connect()
    robot.arm()
    act(robot, 1, 20.0, 20.0, 20.0)
    desk.pass_ms(50)
    robot.stop()
    robot.arm()
    assert robot.state is State.RUN
    desk.pass_ms(1)
    assert desk.states[-4:] == [State.RUN, State.SAFE, State.LATCHED, State.RUN]
    fade = [value for _, state, value in desk.steps if state is State.SAFE]
    assert fade == pytest.approx([20 - 0.5 * step for step in range(1, 40)])


def test_each_change_of_state_is_reported_once(desk: Desk) -> None:
    robot = desk.connect()
    robot.arm()
    desk.pass_ms(200)
    seen = [status.state for status in desk.statuses if status.controlled]
    assert seen == [State.DISARMED, State.RUN, State.HOLD, State.SAFE, State.LATCHED]


def test_successes_of_the_session_are_told_apart_from_earlier_ones(desk: Desk) -> None:
    desk.trials.successes = 3
    robot = desk.connect()
    robot.observe()
    assert not robot.succeeded
    desk.trials.successes = 4
    robot.observe()
    assert (robot.succeeded, robot.successes) == (True, 1)


def test_an_answer_whose_successes_fell_is_malformed(desk: Desk) -> None:
    robot = desk.connect()
    desk.trials.successes = 3
    robot.observe()
    desk.trials.successes = 0
    with pytest.raises(ObservationError):
        robot.observe()
    assert robot.malformed > 0
    assert robot.successes == 0

    desk.trials.successes = 4
    robot.observe()
    assert robot.successes == 1


class RealDesk:
    """An arm without a simulated task, its server, and one controller."""

    def __init__(self, spec: PolicySpec) -> None:
        self.clock = VirtualClock(START_NS)
        self.link = MemoryRobotTransport(self.clock)
        arm = ScriptedRobot(spec, self.clock)
        self.server = RobotServer(arm, self.clock, self.link, name="real", simulated=False)
        self.robot = self.connect()

    def connect(self) -> RemoteRobot:
        return RemoteRobot("memory", self.clock, transport=self.link.connect(self.server.turn))

    def stop(self) -> None:
        self.robot.stop()
        self.clock.advance_ns(2 * FADE_NS)
        self.robot.observe()


@pytest.fixture
def real(spec: PolicySpec) -> RealDesk:
    return RealDesk(spec)


def test_a_real_arm_succeeds_when_its_operator_says_so_and_until_it_is_armed_again(
    real: RealDesk,
) -> None:
    robot = real.robot
    robot.observe()
    robot.arm()
    act(robot, 1)
    assert not robot.succeeded
    assert real.server.report_success() == "success, as the operator says"
    for sequence in (2, 3):
        act(robot, sequence)
        assert (robot.succeeded, robot.successes) == (True, 1)
    robot.arm()  # Consent that is repeated begins no new trial.
    act(robot, 1)
    assert robot.succeeded

    real.stop()
    assert robot.succeeded
    robot.arm()
    assert not robot.succeeded
    act(robot, 1)
    assert not robot.succeeded
    real.server.report_success()
    act(robot, 2)
    assert (robot.successes, real.server.status.successes) == (1, 2)


def test_one_trial_of_a_real_arm_succeeds_once(real: RealDesk) -> None:
    real.robot.arm()
    for sequence in (1, 2, 3):
        real.server.report_success()
        act(real.robot, sequence)
    assert real.server.report_success().startswith("counted already")
    assert real.server.status.successes == 1


def test_a_success_counts_only_while_a_controller_drives_the_arm(real: RealDesk) -> None:
    assert real.server.report_success() == "not counted: no controller drives the arm"
    real.robot.arm()
    act(real.robot, 1)
    real.stop()
    assert real.server.report_success() == "not counted: no controller drives the arm"
    real.robot.arm()
    act(real.robot, 1)
    assert not real.robot.succeeded


def test_the_next_controller_does_not_inherit_a_success(real: RealDesk) -> None:
    real.robot.observe()
    real.robot.arm()
    real.server.report_success()
    act(real.robot, 1)
    assert real.robot.succeeded
    real.robot.close()
    real.clock.advance_ns(2 * FADE_NS)
    robot = real.connect()
    robot.observe()
    robot.arm()
    act(robot, 1)
    assert not robot.succeeded


def test_no_key_says_that_a_simulated_task_is_done(desk: Desk) -> None:
    robot = desk.connect()
    robot.arm()
    assert "the simulated task tells itself" in desk.server.report_success()
    act(robot, 1)
    assert not robot.succeeded


# -- The robot's own side ----------------------------------------------------------------------


def test_after_a_stop_at_the_robot_only_its_console_allows_arming(desk: Desk) -> None:
    robot = desk.connect()
    robot.arm()
    desk.server.stop("a key")
    desk.pass_ms(60)
    assert desk.arm.state is State.LATCHED
    refusal = "stopped on the robot's own side: only its console allows arming again"
    with pytest.raises(RobotError, match=refusal):
        robot.arm()
    desk.server.allow_arming()
    desk.turn()
    assert not desk.server.status.blocked
    assert desk.arm.state is State.LATCHED
    robot.arm()
    assert desk.arm.state is State.RUN


def test_a_stop_after_arming_was_allowed_still_counts(desk: Desk) -> None:
    desk.server.allow_arming()
    desk.server.stop("a key")
    desk.turn()
    assert desk.server.status.blocked
    desk.server.allow_arming()
    desk.turn()
    assert not desk.server.status.blocked


def test_a_stop_acts_after_the_steps_that_are_overdue(desk: Desk) -> None:
    robot = desk.connect()
    robot.arm()
    act(robot, 1, 30.0, 30.0, 30.0)
    desk.pass_ms(30)
    desk.clock.advance_ns(20 * MS)  # The process was held up for so long, while the torque rises.
    desk.server.stop("a key")
    desk.pass_ms(100)
    assert max(value for _, _, value in desk.steps) == pytest.approx(26, abs=1)
    assert desk.states[-3:] == [State.RUN, State.SAFE, State.LATCHED]


def test_a_server_that_is_to_end_fades_the_arm_first(desk: Desk) -> None:
    robot = desk.connect()
    robot.arm()
    desk.server.end()
    desk.server.serve()
    assert desk.arm.state is State.LATCHED
    with pytest.raises(RobotError, match="stopped on the robot's own side"):
        robot.arm()


# -- Failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [RobotError("joint 3 hit the table"), ValueError("nobody expected this")]
)
def test_an_arm_that_fails_is_faded_and_its_controller_told_why(
    spec: PolicySpec, error: Exception
) -> None:
    broken = []

    def read(_: int) -> list[Any]:
        if broken:
            raise error
        return [np.zeros(3, np.float32), np.zeros(2, np.float32)]

    desk = Desk(spec, read=read)
    robot = desk.connect()
    robot.arm()
    act(robot, 1, 20.0, 20.0, 20.0)
    desk.pass_ms(50)
    broken.append(True)
    with pytest.raises(RobotError, match=f"^memory: {error}$"):
        robot.observe()
    assert desk.failure is error
    assert desk.states[-3:] == [State.RUN, State.SAFE, State.LATCHED]
    fade = [value for _, state, value in desk.steps if state is State.SAFE]
    assert fade == pytest.approx([20 - 0.5 * step for step in range(1, 40)])


def test_a_failed_robot_waits_a_while_for_its_controller_to_hang_up(spec: PolicySpec) -> None:
    def fail(_: int) -> list[Any]:
        raise RobotError("joint 3 hit the table")

    desk = Desk(spec, read=fail)
    robot = desk.connect()
    failed_ns = desk.clock.now_ns()
    with pytest.raises(RobotError, match="joint 3"):
        robot.observe()
    assert desk.clock.now_ns() == failed_ns + FAREWELL_NS


def test_a_failure_during_the_fade_does_not_hide_the_first_one(desk: Desk) -> None:
    failures = count(1)

    def fail(*_: object) -> None:
        raise RobotError(f"failure {next(failures)}")

    desk.arm.arm()
    desk.arm.on_step = fail
    with pytest.raises(RobotError, match="failure 1"):
        desk.server.serve()
    assert next(failures) > 2  # The fade was tried.


# -- Connections that end ----------------------------------------------------------------------


def test_a_controller_that_hangs_up_leaves_the_arm_stopped_at_once(desk: Desk) -> None:
    robot = desk.connect()
    robot.arm()
    act(robot, 1)
    desk.pass_ms(30)
    robot.close()
    desk.turn()
    assert desk.arm.state is State.SAFE
    desk.pass_ms(60)
    assert State.HOLD not in desk.states  # The end of the connection stopped it, not age.
    assert not desk.server.status.controlled


def test_another_controllers_hanging_up_stops_nothing(desk: Desk) -> None:
    robot = desk.connect()
    robot.arm()
    stranger = desk.stranger()
    stranger.send(b"\x00")
    desk.turn()
    stranger.close()
    desk.turn()
    assert desk.server.status.malformed == 1
    assert robot.observe().sequence > 0
    assert robot.state is State.RUN


def test_an_end_that_came_before_a_message_of_a_new_connection_is_seen_first(desk: Desk) -> None:
    robot = desk.connect()
    robot.close()
    stranger = desk.stranger()
    stranger.send(wire.encode(wire.Hello(wire.VERSION)))
    desk.turn()
    assert desk.server.status.controlled


def test_a_robot_that_hangs_up_is_noticed_and_a_stop_then_raises_nothing(desk: Desk) -> None:
    robot = desk.connect()
    desk.server.close()
    with pytest.raises(RobotError, match="the robot hung up"):
        robot.observe()
    robot.stop()


# -- Clocks ------------------------------------------------------------------------------------


def test_clocks_an_hour_apart_change_nothing(spec: PolicySpec) -> None:
    desk = Desk(spec, robot_clock=AheadClock)
    robot = desk.connect()
    robot.arm()
    apply_at_ns = act(robot, 1)
    assert robot.clock_offset_ns == AN_HOUR_NS
    assert apply_at_ns == desk.clock.now_ns() + 25 * MS
    desk.pass_ms(40)
    first_ns = next(at_ns for at_ns, _, value in desk.steps if value > 0)
    assert first_ns == apply_at_ns + AN_HOUR_NS + MS
    assert robot.observe().applied.tolist() == list(TORQUES)


def test_nothing_is_read_after_its_answer_has_arrived_whatever_the_offset(desk: Desk) -> None:
    robot = desk.connect()
    # A shorter round trip than any real one makes the robot's clock seem a second behind.
    sent_ns = desk.clock.now_ns()
    robot._offset.measure(sent_ns, sent_ns - 1_000 * MS, sent_ns - 1_000 * MS, sent_ns)
    assert robot.clock_offset_ns == -1_000 * MS
    assert robot.observe().stamp_ns == desk.clock.now_ns()


# -- Bad links ---------------------------------------------------------------------------------


def test_each_way_of_a_slow_link_takes_its_delay(spec: PolicySpec) -> None:
    desk = Desk(spec, conditions=LinkConditions(delay_ms=4))
    robot = desk.connect()
    asked_ns = desk.clock.now_ns()
    robot.arm()
    assert desk.clock.now_ns() == asked_ns + 8 * MS
    assert robot.observe().stamp_ns == asked_ns + 12 * MS
    assert robot.round_trips.p50_ms == pytest.approx(8, rel=0.01)


def test_lost_requests_are_sent_again(spec: PolicySpec) -> None:
    desk = Desk(spec, conditions=LinkConditions(loss=0.2, link_seed=1))
    robot = desk.connect()
    answered = 0
    for _ in range(100):
        try:
            robot.observe()
        except ObservationError:
            continue
        answered += 1
    # Each of five requests is answered with probability 0.64: 0.6 of 100 ticks get no answer.
    assert answered >= 98
    assert robot.retries > 20


def test_a_tick_without_any_answer_is_given_up_after_the_action_delay(desk: Desk) -> None:
    robot = desk.connect()
    desk.link.send = lambda *_: None  # type: ignore[method-assign]  # every answer is lost
    asked_ns = desk.clock.now_ns()
    with pytest.raises(ObservationError, match="within 25 ms, found none to 5 requests"):
        robot.observe()
    assert desk.clock.now_ns() == asked_ns + 25 * MS
    assert robot.retries == 4


def test_an_answer_to_an_earlier_ticks_request_is_not_this_ticks_observation(
    spec: PolicySpec,
) -> None:
    desk = Desk(spec, conditions=LinkConditions(delay_ms=20))
    robot = desk.connect()
    for _ in range(4):  # An answer takes 40 ms and a tick waits for 25.
        with pytest.raises(ObservationError, match="within 25 ms, found none to 5 requests"):
            robot.observe()
    assert robot.outdated > 0


def test_an_older_answer_that_was_overtaken_is_dropped(desk: Desk) -> None:
    transport = desk.stranger()
    robot = RemoteRobot("memory", desk.clock, transport=transport)
    first = robot.observe()
    held: list[bytes] = []
    transport.receive = lambda: _hold_first(transport, held)  # type: ignore[method-assign]
    newer = robot.observe()
    transport.arriving.extend(held)
    del transport.receive  # type: ignore[misc]
    before = robot.outdated
    assert robot.observe().sequence > newer.sequence > first.sequence
    assert robot.outdated == before + 1


def _hold_first(transport: MemoryControllerTransport, held: list[bytes]) -> bytes | None:
    """Keep the first answer back, so that the robot asks again and the next answer overtakes it."""
    if not transport.arriving:
        return None
    frame = transport.arriving.popleft()
    if held:
        return frame
    held.append(frame)
    return None


def test_consent_that_nobody_answers_is_an_error(desk: Desk) -> None:
    robot = desk.connect()
    desk.link.send = lambda *_: None  # type: ignore[method-assign]  # every answer is lost
    asked_ns = desk.clock.now_ns()
    with pytest.raises(RobotError, match="memory: no answer to Arm within 500 ms"):
        robot.arm()
    assert desk.clock.now_ns() == asked_ns + CONSENT_NS
    assert desk.arm.state in {*STOPPED, State.RUN}


def test_answers_that_are_malformed_or_of_another_session_are_counted(desk: Desk) -> None:
    transport = desk.stranger()
    robot = RemoteRobot("memory", desk.clock, transport=transport)
    transport.arriving.append(b"\x00")
    transport.arriving.append(wire.encode(wire.Armed(robot._session ^ 1, 1)))
    assert robot.observe().sequence == 1
    assert (robot.malformed, robot.outdated) == (1, 1)


def test_strangers_write_at_most_a_line_a_second_and_a_change_of_state_is_told_at_once(
    desk: Desk,
) -> None:
    for _ in range(3_000):
        desk.link.refused.handshakes += 1
        desk.server.turn()
    assert len(desk.statuses) <= 4
    assert desk.statuses[-1].handshakes > 2_000
    told = len(desk.statuses)
    desk.arm.arm()
    desk.server.turn()
    assert len(desk.statuses) == told + 1
    assert desk.statuses[-1].state is State.RUN


def test_each_turn_tells_its_status_although_no_change_is_asked_for(spec: PolicySpec) -> None:
    clock = VirtualClock(START_NS)
    told: list[RobotStatus] = []
    server = RobotServer(
        ScriptedRobot(spec, clock),
        clock,
        MemoryRobotTransport(clock),
        name="scripted",
        simulated=True,
        on_turn=told.append,
    )
    for _ in range(3):
        server.turn()
    assert [each.state for each in told] == [State.DISARMED] * 3
