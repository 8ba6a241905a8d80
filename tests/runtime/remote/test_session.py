"""Rules of a session, request by request, on a clock that only the test moves."""

from __future__ import annotations

import numpy as np
import pytest

from gatort.runtime.clock import VirtualClock
from gatort.runtime.errors import ObservationError
from gatort.runtime.facts import LONGEST_FACT, MOST_FACTS, Fact
from gatort.runtime.remote import wire
from gatort.runtime.remote.session import LOCAL_STOP, Sessions
from gatort.runtime.remote.transport import Arrival, Connection
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.safety import State
from gatort.runtime.spec import PolicySpec

MS = 1_000_000
HERE, ELSEWHERE = Connection(b"here", 1), Connection(b"elsewhere", 2)


class Desk:
    """A scripted arm, its sessions, and the requests of one controller."""

    def __init__(self, spec: PolicySpec) -> None:
        self.clock = VirtualClock(1_000 * MS)
        self.arm = ScriptedRobot(spec, self.clock)
        self.sessions = Sessions(self.arm, self.clock, name="scripted", simulated=True)
        self.session = self.greet(HERE).session

    def greet(self, connection: Connection) -> wire.Welcome:
        answer = self.ask(wire.Hello(wire.VERSION), connection)
        assert isinstance(answer, wire.Welcome)
        return answer

    def ask(self, request: wire.Request, connection: Connection = HERE) -> wire.Answer | None:
        return self.sessions.answer(Arrival(connection, wire.encode(request)))

    def arm_it(self, sequence: int) -> wire.Answer | None:
        return self.ask(wire.Arm(self.session, sequence))

    def command(self, sequence: int, value: float = 1.0, *, in_ms: int = 25) -> None:
        at_ns = self.clock.now_ns() + in_ms * MS
        self.ask(wire.WireCommand(self.session, sequence, 1, at_ns, 60 * MS, [value] * 3))

    def pass_ms(self, duration_ms: int) -> None:
        self.clock.advance_ns(duration_ms * MS)
        self.arm.advance()

    @property
    def dropped(self) -> int:
        return self.arm.inner_loop.dropped.total()


@pytest.fixture
def desk(spec: PolicySpec) -> Desk:
    return Desk(spec)


# -- Holder of the session -----------------------------------------------------------------------


def test_hello_gives_a_session_with_the_robots_name_and_interface(
    desk: Desk, spec: PolicySpec
) -> None:
    welcome = desk.greet(HERE)
    assert (welcome.name, welcome.simulated) == ("scripted", True)
    assert welcome.interface == desk.arm.interface.model_dump_json(exclude={"window_frames"})


def test_a_repeated_hello_gives_the_same_session(desk: Desk) -> None:
    assert desk.greet(HERE) == desk.greet(HERE)


def test_facts_of_the_arm_come_with_the_session_and_are_bounded(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert desk.greet(HERE).facts == [Fact("state", "disarmed")]
    many = (Fact("load", "0 kg", "x" * 999),) * 99
    monkeypatch.setattr(ScriptedRobot, "facts", many)
    desk.pass_ms(2_000)
    facts = desk.greet(ELSEWHERE).facts
    assert len(facts) == MOST_FACTS
    assert facts[1] == Fact("load", "0 kg", "x" * LONGEST_FACT)


def test_another_version_is_refused_naming_both(desk: Desk) -> None:
    assert desk.ask(wire.Hello(wire.VERSION + 1)) == wire.Refused(
        "protocol version: the robot speaks 3, the controller 4"
    )


def test_a_controller_that_has_been_silent_for_two_seconds_loses_an_arm_at_rest(
    desk: Desk,
) -> None:
    desk.pass_ms(2_000)
    desk.greet(ELSEWHERE)
    desk.ask(wire.Observe(desk.session, 1, 0))
    assert desk.sessions.foreign == 1
    assert desk.sessions.observation(0) is None


def test_a_controller_that_asks_keeps_its_place_while_others_greet(desk: Desk) -> None:
    for tick in range(100):
        desk.ask(wire.Observe(desk.session, tick, 0))
        answer = desk.ask(wire.Hello(wire.VERSION), Connection(b"greeter", 3 + tick))
        assert isinstance(answer, wire.Refused)
        assert "another controller is connected" in answer.reason
        desk.pass_ms(50)
    assert isinstance(desk.arm_it(1), wire.Armed)


def test_greeting_again_and_again_keeps_nobody_away(desk: Desk) -> None:
    for _ in range(40):
        desk.greet(HERE)
        desk.pass_ms(50)
    assert desk.greet(ELSEWHERE).session != desk.session


def test_an_armed_arm_takes_no_second_controller(desk: Desk) -> None:
    desk.arm_it(1)
    assert desk.ask(wire.Hello(wire.VERSION), ELSEWHERE) == wire.Refused(
        "scripted is taken: another controller has armed it; end that run, or stop the arm at its "
        "console, and start again"
    )
    assert desk.arm.state is State.RUN


@pytest.mark.parametrize("connection", [HERE, ELSEWHERE])
def test_requests_with_another_sessions_number_are_foreign(
    desk: Desk, connection: Connection
) -> None:
    desk.arm_it(1)
    assert desk.ask(wire.Stop(desk.session ^ 1, 2), connection) is None
    assert (desk.sessions.foreign, desk.arm.state) == (1, State.RUN)


def test_the_sessions_number_alone_is_not_enough_without_its_connection(desk: Desk) -> None:
    desk.arm_it(1)
    for request in (
        wire.WireCommand(desk.session, 1, 1, desk.clock.now_ns() + MS, 60 * MS, [9.0] * 3),
        wire.Stop(desk.session, 2),
        wire.Observe(desk.session, 1, 0),
    ):
        assert desk.ask(request, ELSEWHERE) is None
    desk.pass_ms(20)
    assert desk.sessions.foreign == 3
    assert desk.arm.state is State.RUN
    assert desk.arm.inner_loop.in_effect.tolist() == [0, 0, 0]


def test_a_frame_that_is_no_request_is_counted(desk: Desk) -> None:
    assert desk.sessions.answer(Arrival(HERE, b"\x00")) is None
    assert desk.sessions.malformed == 1


def test_the_end_of_the_sessions_connection_stops_the_arm(desk: Desk) -> None:
    desk.arm_it(1)
    desk.sessions.connection_ended(HERE.descriptor)
    assert desk.arm.state is State.SAFE
    assert desk.sessions.current is None


def test_the_end_of_another_connection_stops_nothing(desk: Desk) -> None:
    desk.arm_it(1)
    desk.sessions.connection_ended(ELSEWHERE.descriptor)
    assert desk.arm.state is State.RUN
    assert desk.sessions.current is not None


# -- Consent -----------------------------------------------------------------------------------


def test_repeated_consent_is_answered_and_does_not_arm_again(desk: Desk) -> None:
    assert desk.arm_it(1) == wire.Armed(desk.session, 1)
    assert desk.ask(wire.Stop(desk.session, 2)) == wire.Stopped(desk.session, 2)
    assert desk.arm_it(1) == wire.Armed(desk.session, 1)
    desk.pass_ms(100)
    assert desk.arm_it(1) == wire.Armed(desk.session, 1)
    assert desk.arm.state is State.LATCHED


def test_new_consent_arms_an_arm_that_latched(desk: Desk) -> None:
    desk.arm_it(1)
    desk.ask(wire.Stop(desk.session, 2))
    desk.pass_ms(100)
    assert desk.arm_it(3) == wire.Armed(desk.session, 3)
    assert desk.arm.state is State.RUN


def test_a_stop_is_followed_whatever_its_number(desk: Desk) -> None:
    desk.arm_it(5)
    assert desk.ask(wire.Stop(desk.session, 1)) == wire.Stopped(desk.session, 1)
    assert desk.arm.state is State.SAFE


def test_consent_during_the_fade_is_left_unanswered_and_counts_once_the_arm_is_latched(
    desk: Desk,
) -> None:
    desk.arm_it(1)
    desk.ask(wire.Stop(desk.session, 2))
    assert desk.arm_it(3) is None
    assert desk.arm.state is State.SAFE
    desk.pass_ms(100)
    assert desk.arm_it(3) == wire.Armed(desk.session, 3)


@pytest.mark.parametrize("reason", ["blocked", "ending"])
def test_after_a_stop_on_the_robots_own_side_consent_is_refused(desk: Desk, reason: str) -> None:
    setattr(desk.sessions, reason, True)
    assert desk.arm_it(1) == wire.Refused(LOCAL_STOP)
    assert desk.arm.state is State.DISARMED


def test_the_state_of_an_arm_at_rest_says_why_and_whether_it_may_be_armed(desk: Desk) -> None:
    desk.arm_it(1)
    desk.arm.stop("a test")
    desk.pass_ms(2_000)
    latched = Fact("state", "latched (a test); it may be armed again")
    assert desk.greet(ELSEWHERE).facts == [latched]
    desk.sessions.blocked = True
    desk.pass_ms(2_000)
    assert desk.greet(HERE).facts == [Fact("state", "latched (a test)", LOCAL_STOP)]


def test_late_copies_of_refused_consent_never_arm(desk: Desk) -> None:
    desk.sessions.blocked = True
    desk.arm_it(2)
    desk.sessions.blocked = False
    assert desk.arm_it(1) == wire.Refused(LOCAL_STOP)
    assert desk.arm_it(2) == wire.Refused(LOCAL_STOP)
    assert desk.arm.state is State.DISARMED
    assert desk.arm_it(3) == wire.Armed(desk.session, 3)


def test_a_copy_of_consent_from_before_a_refused_one_never_arms(desk: Desk) -> None:
    desk.arm_it(4)
    desk.sessions.blocked = True
    desk.arm_it(3)
    desk.sessions.blocked = False
    assert desk.arm_it(4) == wire.Refused(LOCAL_STOP)


# -- Commands ----------------------------------------------------------------------------------


def test_a_command_before_consent_is_dropped(desk: Desk) -> None:
    desk.command(1)
    desk.pass_ms(50)
    assert desk.dropped == 1
    assert desk.arm.inner_loop.in_effect.tolist() == [0, 0, 0]


def test_the_second_copy_of_a_command_is_no_fault(desk: Desk) -> None:
    desk.arm_it(1)
    desk.command(1)
    desk.command(1)
    assert desk.dropped == 0


def test_a_copy_that_was_overtaken_is_an_old_command(desk: Desk) -> None:
    desk.arm_it(1)
    desk.command(1, 1.0, in_ms=10)
    desk.command(2, 2.0, in_ms=30)
    desk.command(1, 1.0, in_ms=10)
    desk.command(2, 2.0, in_ms=30)
    assert desk.dropped == 1
    desk.pass_ms(40)
    assert desk.arm.inner_loop.in_effect.tolist() == [2.0] * 3


def test_commands_are_counted_anew_after_consent(desk: Desk) -> None:
    desk.arm_it(1)
    desk.command(7)
    desk.arm_it(2)
    desk.command(7, 3.0)
    desk.pass_ms(40)
    assert desk.dropped == 0
    assert desk.arm.inner_loop.in_effect.tolist() == [3.0] * 3


# -- Observations ------------------------------------------------------------------------------


def test_only_the_newest_of_several_waiting_requests_is_answered(desk: Desk) -> None:
    for sequence in range(1, 11):
        desk.ask(wire.Observe(desk.session, sequence, 100 * sequence))
    desk.clock.advance_ns(3 * MS)
    answer = desk.sessions.observation(successes=4)
    assert answer is not None
    assert (answer.request, answer.sent_ns, answer.successes) == (10, 1_000, 4)
    assert answer.answered_ns - answer.received_ns == 3 * MS
    assert desk.sessions.observation(successes=4) is None


def test_sensors_are_read_for_a_request_and_never_earlier(spec: PolicySpec) -> None:
    readings: list[int] = []

    def read(sequence: int) -> list[np.ndarray]:
        readings.append(sequence)
        return [np.full(3, 7, np.float32), np.zeros(2, np.float32)]

    desk = Desk(spec)
    desk.arm._script = read
    desk.pass_ms(50)
    assert desk.sessions.observation(0) is None
    assert readings == []
    desk.ask(wire.Observe(desk.session, 1, 0))
    answer = desk.sessions.observation(0)
    assert answer is not None
    assert readings == [1]
    assert answer.stamp_ns == desk.clock.now_ns()
    assert np.frombuffer(answer.values[0], "<f4").tolist() == [7, 7, 7]


def test_a_sensor_that_fails_gives_no_answer_and_the_next_request_may_succeed(
    desk: Desk,
) -> None:
    def fail(_: int) -> list[np.ndarray]:
        raise ObservationError("the camera gives nothing")

    good = desk.arm._script
    desk.arm._script = fail
    desk.ask(wire.Observe(desk.session, 1, 0))
    assert desk.sessions.observation(0) is None
    desk.arm._script = good
    desk.ask(wire.Observe(desk.session, 2, 0))
    assert desk.sessions.observation(0) is not None
