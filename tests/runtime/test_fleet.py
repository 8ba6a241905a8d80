"""A fleet of robots behind links in memory. Each robot has a virtual clock of its own, so that its
ticks are the same in each run, however the threads take turns.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread

import numpy as np
import pytest

from gatort.policies.loading import PolicyOptions, load_policies
from gatort.runtime import fleet as fleet_module
from gatort.runtime.clock import VirtualClock
from gatort.runtime.engines.turns import Turns
from gatort.runtime.errors import RecordingError, RobotError, RobotRefusal
from gatort.runtime.fleet import Fleet, Member
from gatort.runtime.loop import TickRecord
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.remote.client import MOST_ANSWERS, RemoteRobot
from gatort.runtime.remote.memory import MemoryControllerTransport, MemoryRobotTransport
from gatort.runtime.remote.server import RobotServer
from gatort.runtime.robots.scripted import scripted_robot
from gatort.runtime.safety import State

TICKS = 30
PATIENCE_S = 20.0


class Lying(MemoryControllerTransport):
    """An end that receives random bytes without end."""

    random = np.random.default_rng(0)

    def receive(self) -> bytes | None:
        return self.random.bytes(50)


class DeskClock(VirtualClock):
    """A clock on which the robot takes its turns while the member sleeps."""

    def __init__(self, turn: Callable[[], None]) -> None:
        super().__init__()
        self._turn = turn
        self.meanwhile: Callable[[], None] = lambda: None
        """Called before each sleep."""

    def sleep_until_ns(self, deadline_ns: int) -> None:
        self.meanwhile()
        while self.now_ns() < deadline_ns:
            self._turn()


class Desk:
    """A robot, its link, and an accident that happens to it after some ticks."""

    def __init__(self, seed: int = 0, then: Callable[[Desk], None] | None = None) -> None:
        self.clock = DeskClock(self.turn)
        self.seed = seed
        self.then = then
        self.tokens: list[list[int]] = []
        self.enough = Event()
        self.refusals = 0
        """Number of attempts to connect that fail at first."""
        self.silent = False
        self.lies = False
        self.refusal: RobotError | None = None
        """Refusal of the next attempt to connect."""
        self.make()

    def make(self) -> None:
        """Start the robot, for the first time or again."""
        link = MemoryRobotTransport(self.clock)
        self.arm = scripted_robot(SPEC, self.clock, seed=self.seed)
        self.server = RobotServer(
            self.arm, self.clock, link, name=f"desk {self.seed}", simulated=True
        )
        self.link = link  # Last: the member's thread connects to it as soon as it is there.

    def turn(self) -> None:
        if self.silent or self.link.closed:
            self.clock.advance_ns(1_000_000)
        else:
            self.server.turn()

    def connect(self) -> RemoteRobot:
        if self.refusals:
            self.refusals -= 1
            raise RobotError("no robot listens there")
        if self.link.closed:
            raise RobotError("no robot listens there")
        if self.refusal is not None:
            refusal = self.refusal
            self.refusal = None
            raise refusal
        end = self.link.connect(self.turn)
        if self.lies:
            end.__class__ = Lying
        return RemoteRobot("memory", self.clock, transport=end)

    def look(self, record: TickRecord) -> None:
        if record.decision is not None:
            self.tokens.append(record.decision.tokens.tolist())
        if len(self.tokens) == TICKS // 2 and self.then is not None:
            self.then(self)
        if len(self.tokens) == TICKS:
            self.enough.set()


OPTIONS = PolicyOptions(engine="onnx", threads=1)
SPEC = load_policies(OPTIONS, 1, Turns(1, VirtualClock()))[0][0].spec


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "RETRY_S", 0.01)


def fleet(
    *desks: Desk, consent: bool = True, record: Callable[[RemoteRobot], Recorder] | None = None
) -> Fleet:
    turns = Turns(1, VirtualClock())
    return Fleet(
        [
            Member(
                f"desk {number}",
                policy,
                engine,
                desk.connect,
                desk.clock,
                consent=consent,
                record=record,
                on_tick=desk.look,
            )
            for number, (desk, (policy, engine)) in enumerate(
                zip(desks, load_policies(OPTIONS, len(desks), turns), strict=True)
            )
        ]
    )


def wait(event: Event) -> None:
    assert event.wait(PATIENCE_S)


def until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    waited = Event()
    for _ in range(round(PATIENCE_S / 0.01)):
        if holds():
            return
        waited.wait(0.01)
    raise TimeoutError


def kill(desk: Desk) -> None:
    desk.link.close()


def stall(desk: Desk) -> None:
    desk.silent = True


def lie(desk: Desk) -> None:
    desk.lies = True
    for end in desk.link.controllers.values():
        end.__class__ = Lying


@pytest.fixture(scope="module")
def alone() -> list[list[int]]:
    """Tokens of the first robot when it is the only one."""
    desk = Desk()
    with fleet(desk).driven():
        wait(desk.enough)
    return desk.tokens[:TICKS]


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        (kill, "hung up"),
        (stall, "observation refused"),
        (lie, f"more than {MOST_ANSWERS} messages"),
    ],
)
def test_a_robot_that_fails_changes_nothing_for_another_one(
    alone: list[list[int]], then: Callable[[Desk], None], reason: str
) -> None:
    good, bad = Desk(), Desk(1, then)
    team = fleet(good, bad)
    with team.driven():
        wait(good.enough)
        until(lambda: len(bad.tokens) >= TICKS // 2)
        until(lambda: not team.statuses[1].driven and team.statuses[1].state is None)
        first, second = team.statuses
    assert good.tokens[:TICKS] == alone
    assert first.driven
    assert first.reason is None
    assert not second.consent
    assert second.state is None


def test_a_robot_joins_as_soon_as_it_answers() -> None:
    desk = Desk()
    desk.refusals = 3
    team = fleet(desk)
    with team.driven():
        wait(desk.enough)
        status = team.statuses[0]
    assert (status.name, status.state) == ("desk 0", State.RUN)


def test_a_robot_is_armed_again_only_with_new_consent() -> None:
    desk = Desk(then=kill)
    team = fleet(desk)
    member = team.members[0]
    with team.driven():
        until(lambda: desk.link.closed and member.status.state is None)
        desk.then = None
        desk.make()
        until(lambda: member.status.state is not None)
        ticks = member.status.ticks
        Event().wait(0.2)
        assert (member.status.ticks, member.status.consent) == (ticks, False)

        member.arm()
        wait(desk.enough)


def assert_stays_at_rest(member: Member) -> None:
    """Check that a robot that answers is not armed by itself."""
    until(lambda: member.status.state is not None)
    ticks = member.status.ticks
    Event().wait(0.2)
    status = member.status
    assert (status.ticks, status.driven, status.consent) == (ticks, False, False)


def test_consent_given_while_a_robot_is_driven_does_not_arm_it_after_a_stop() -> None:
    stopped = Event()

    def stop_with_consent(desk: Desk) -> None:
        member.arm()
        desk.arm.stop("a test stopped it")
        desk.then = None
        stopped.set()

    desk = Desk(then=stop_with_consent)
    team = fleet(desk)
    (member,) = team.members
    with team.driven():
        wait(stopped)
        until(lambda: not member.status.driven)
        assert_stays_at_rest(member)
        assert "a test stopped it" in (member.status.reason or "")


def test_a_robot_that_refused_is_armed_only_with_new_consent() -> None:
    desk = Desk()
    desk.refusal = RobotRefusal("desk is taken: another controller has armed it")
    team = fleet(desk)
    (member,) = team.members
    with team.driven():
        assert_stays_at_rest(member)
        assert member.status.reason == "desk is taken: another controller has armed it"
        member.arm()
        wait(desk.enough)


def test_a_robot_whose_recording_cannot_begin_is_not_armed_and_the_reason_stays() -> None:
    def fail(_: RemoteRobot) -> Recorder:
        raise RecordingError("cannot record: the disk is full")

    desk = Desk()
    team = fleet(desk, record=fail)
    (member,) = team.members
    with team.driven():
        until(lambda: member.status.reason is not None)
        assert_stays_at_rest(member)
        assert member.status.reason == "cannot record: the disk is full"
    assert desk.arm.state is State.DISARMED


def test_the_reason_why_a_first_observation_did_not_arm_stays() -> None:
    def fall_silent() -> None:
        desk.silent = not member.status.ticks and member.status.reason is None

    desk = Desk()
    team = fleet(desk)
    (member,) = team.members
    desk.clock.meanwhile = fall_silent
    with team.driven():
        until(lambda: member.status.reason is not None)
        desk.silent = False
        assert_stays_at_rest(member)
        assert "expected an answer" in (member.status.reason or "")


def test_a_robot_is_not_armed_once_the_end_has_been_asked_for() -> None:
    desk = Desk()
    team = fleet(desk)
    desk.clock.meanwhile = team.members[0].end
    with team.driven():
        team.members[0].join(PATIENCE_S)
    assert desk.arm.state is State.DISARMED
    assert not desk.tokens


def test_an_end_in_the_instant_of_consent_is_not_lost() -> None:
    class Late(Event):
        def clear(self) -> None:
            member.end()
            super().clear()

    desk = Desk()
    team = fleet(desk)
    (member,) = team.members
    member._consent = Late()
    member._consent.set()
    with team.driven():
        member.join(PATIENCE_S)
        assert not member._thread.is_alive()


def test_a_number_typed_for_a_robot_that_is_away_arms_nothing() -> None:
    desk = Desk()
    desk.refusals = 10**6
    team = fleet(desk, consent=False)
    (member,) = team.members
    with team.driven():
        until(lambda: member.status.reason is not None)
        member.arm()
        desk.refusals = 0
        until(lambda: member.status.state is not None)
        assert_stays_at_rest(member)


def test_a_fleet_without_a_thread_for_each_robot_stops_those_that_began(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desks = [Desk(), Desk(1)]
    team = fleet(*desks)

    def start(_: Thread) -> None:
        wait(desks[0].enough)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(team.members[1]._thread, "start", start.__get__(team.members[1]._thread))
    with pytest.raises(RuntimeError, match="start new thread"), team.driven():
        pytest.fail("expected no fleet")
    assert desks[0].arm.state in {State.SAFE, State.LATCHED}


def test_nothing_moves_without_consent() -> None:
    desk = Desk()
    team = fleet(desk, consent=False)
    with team.driven():
        until(lambda: team.statuses[0].state is not None)
        assert not team.statuses[0].consent
    assert team.statuses[0].ticks == 0
    assert desk.arm.state is State.DISARMED


def test_at_the_end_every_robot_is_stopped() -> None:
    desks = [Desk(seed) for seed in range(3)]
    with fleet(*desks).driven():
        for desk in desks:
            wait(desk.enough)
    assert {desk.arm.state for desk in desks} <= {State.SAFE, State.LATCHED}


def test_a_fault_of_gatort_in_one_thread_lets_the_others_go_on_and_is_raised_at_the_end() -> None:
    def fail(_: Desk) -> None:
        raise ZeroDivisionError

    good, bad = Desk(), Desk(1, fail)
    team = fleet(good, bad)
    with pytest.raises(ZeroDivisionError), team.driven():
        until(lambda: team.members[1].fault is not None and good.enough.is_set())
