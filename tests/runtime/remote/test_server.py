"""Controller and robot over real sockets on this machine, each refusal by name, and clocks that do not agree."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import zmq

from gatort.runtime.clock import (
    Clock,
    MonotonicClock,
)
from gatort.runtime.errors import (
    ConfigError,
    GatortError,
    ObservationError,
    RobotError,
)
from gatort.runtime.remote import wire
from gatort.runtime.remote.client import (
    EXCHANGES,
    RemoteRobot,
)
from gatort.runtime.remote.keys import (
    ControllerKeys,
    RobotKeys,
    make_keys,
)
from gatort.runtime.remote.link import LinkConditions
from gatort.runtime.remote.server import (
    REQUESTS_PER_TURN,
    RobotServer,
    Status,
)
from gatort.runtime.robot import Observation
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.safety import (
    STOPPED,
    Command,
    State,
)
from gatort.runtime.spec import PolicySpec

MS = 1_000_000
LONGEST_WAIT_NS = 5_000 * MS
AN_HOUR_NS = 3_600_000 * MS


class AheadClock(MonotonicClock):
    """Another host's: an hour ahead."""

    def now_ns(self) -> int:
        return super().now_ns() + AN_HOUR_NS


def eventually(true: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do."""
    clock = MonotonicClock()
    deadline_ns = clock.now_ns() + LONGEST_WAIT_NS
    while not true():
        assert clock.now_ns() < deadline_ns, "it never became true"
        clock.sleep_until_ns(clock.now_ns() + MS)


@dataclass
class Served:
    """A robot in a thread of its own."""

    driver: ScriptedRobot
    server: RobotServer
    states: list[Status]

    @property
    def endpoint(self) -> str:
        return self.server.endpoint


Serve = Callable[..., Served]


@pytest.fixture
def serve(spec: PolicySpec) -> Iterator[Serve]:
    running: list[tuple[RobotServer, Thread]] = []

    def start(clock: Clock | None = None, read: Any = None, **options: Any) -> Served:
        clock = clock or MonotonicClock()
        driver, states = ScriptedRobot(spec, clock, read), []
        server = RobotServer(
            driver,
            clock,
            "tcp://127.0.0.1:0",
            name="scripted",
            simulated=True,
            on_change=states.append,
            **options,
        )
        thread = Thread(target=_serve, args=(server,))
        thread.start()
        running.append((server, thread))
        return Served(driver, server, states)

    yield start
    for server, thread in running:
        server.end()
        thread.join()


def _serve(server: RobotServer) -> None:
    with closing(server), suppress(GatortError):
        server.serve()


Connect = Callable[..., RemoteRobot]


@pytest.fixture
def connect() -> Iterator[Connect]:
    made: list[RemoteRobot] = []

    def start(endpoint: str, keys: ControllerKeys | None = None) -> RemoteRobot:
        made.append(RemoteRobot(endpoint, MonotonicClock(), keys))
        return made[-1]

    yield start
    for robot in made:
        robot.close()


@dataclass
class Stranger:
    """Someone with a socket of his own who says whatever he likes."""

    socket: zmq.Socket[bytes]

    def say(self, message: wire.Request | bytes) -> None:
        self.socket.send(message if isinstance(message, bytes) else wire.encode(message))

    def hear(self) -> wire.Answer:
        assert self.socket.poll(2_000), "no answer"
        return wire.decode_answer(self.socket.recv())


@pytest.fixture
def stranger() -> Iterator[Callable[[str], Stranger]]:
    context = zmq.Context()
    sockets = []

    def start(endpoint: str) -> Stranger:
        sockets.append(wire.bounded_socket(context, zmq.DEALER, wire.LARGEST_ANSWER_BYTES))
        sockets[-1].connect(endpoint)
        return Stranger(sockets[-1])

    yield start
    for each in sockets:
        each.close()
    context.term()


def observe(robot: RemoteRobot) -> Observation:
    """What a crowded machine may answer too late is asked again, as the next tick would."""
    for _ in range(100):
        with suppress(ObservationError):
            return robot.observe()
    raise AssertionError("no answer came")


def observe_until_it_fails(robot: RemoteRobot) -> None:
    while True:
        with suppress(ObservationError):
            robot.observe()


def act(robot: RemoteRobot, sequence: int, *values: float) -> None:
    """One tick of a controller: observe and command."""
    observation = observe(robot)
    apply_at_ns = observation.stamp_ns + robot.interface.action_delay_ns
    robot.command(
        Command(
            sequence,
            observation.sequence,
            apply_at_ns,
            60 * MS,
            np.array(values or (1.0, 2.0, 3.0)),
        )
    )


# -- A session -------------------------------------------------------------------------------------------------------


def test_a_robot_is_known_by_its_name_and_its_interface(
    serve: Serve, connect: Connect, spec: PolicySpec
) -> None:
    robot = connect(serve().endpoint)
    assert (robot.name, robot.simulated, robot.state) == ("scripted", True, State.DISARMED)
    assert robot.interface.model_dump() == spec.model_dump(exclude={"window_frames"})


def test_what_is_commanded_is_in_effect_after_the_action_delay(
    serve: Serve, connect: Connect
) -> None:
    served = serve()
    robot = connect(served.endpoint)
    observe(robot)
    robot.arm()
    act(robot, 1)
    eventually(lambda: observe(robot).applied.tolist() == [1.0, 2.0, 3.0])
    assert robot.state in (State.RUN, State.HOLD)
    assert (
        served.driver.inner_loop.dropped.total() == 0
    )  # The second copy of a command is no fault.
    robot.stop()
    assert robot.state in STOPPED
    eventually(lambda: served.driver.state is State.LATCHED)


def test_observations_are_read_when_they_are_asked_for_and_never_earlier(
    serve: Serve, connect: Connect
) -> None:
    readings: list[int] = []

    def read(sequence: int) -> list[Any]:
        readings.append(sequence)
        return [np.full(3, sequence, np.float32), np.zeros(2, np.float32)]

    robot = connect(serve(read=read).endpoint)
    clock = MonotonicClock()
    clock.sleep_until_ns(clock.now_ns() + 50 * MS)
    assert readings == []
    before_ns = clock.now_ns()
    observation = observe(robot)
    assert before_ns - 5 * MS < observation.stamp_ns <= clock.now_ns()
    assert observation.values[0].tolist() == [readings[-1]] * 3


def test_a_command_without_a_session_and_before_arming_moves_nothing(
    serve: Serve, connect: Connect
) -> None:
    served = serve()
    robot = connect(served.endpoint)
    act(robot, 1)
    eventually(lambda: served.server.status.dropped == 1)
    assert observe(robot).applied.tolist() == [0, 0, 0]


def test_silence_after_a_command_ends_in_latched_and_only_a_new_consent_leaves_it(
    serve: Serve, connect: Connect
) -> None:
    served = serve()
    robot = connect(served.endpoint)
    robot.arm()
    act(robot, 1)
    eventually(lambda: served.driver.state is State.LATCHED)
    assert [status.state for status in served.states if status.controlled] == [
        *(State.DISARMED, State.RUN, State.HOLD, State.SAFE, State.LATCHED)
    ]
    act(robot, 2)
    eventually(lambda: served.server.status.dropped > 0)
    assert observe(robot).applied.tolist() == [0, 0, 0]
    robot.arm()
    assert robot.state is State.RUN


def test_consent_that_is_repeated_does_not_arm_again(
    serve: Serve, stranger: Callable[[str], Stranger]
) -> None:
    served = serve()
    someone = stranger(served.endpoint)
    someone.say(wire.Hello(wire.VERSION))
    welcome = someone.hear()
    assert isinstance(welcome, wire.Welcome)
    someone.say(wire.Arm(welcome.session, 1))
    assert someone.hear() == wire.Armed(welcome.session, 1)
    someone.say(wire.Stop(welcome.session, 2))
    assert someone.hear() == wire.Stopped(welcome.session, 2)
    someone.say(wire.Arm(welcome.session, 1))
    assert someone.hear() == wire.Armed(welcome.session, 1)
    assert served.driver.state in STOPPED


def test_a_copy_that_was_overtaken_is_an_old_command_and_a_copy_that_follows_is_none(
    serve: Serve, stranger: Callable[[str], Stranger]
) -> None:
    served, clock = serve(), MonotonicClock()
    someone = stranger(served.endpoint)
    someone.say(wire.Hello(wire.VERSION))
    welcome = someone.hear()
    assert isinstance(welcome, wire.Welcome)
    someone.say(wire.Arm(welcome.session, 1))
    someone.hear()
    now_ns = clock.now_ns()
    for sequence in (1, 2, 1, 2):
        apply_at_ns = now_ns + (10 + 20 * sequence) * MS
        someone.say(
            wire.Command(welcome.session, sequence, 1, apply_at_ns, 60 * MS, [float(sequence)] * 3)
        )
    eventually(lambda: served.driver.inner_loop.in_effect.tolist() == [2.0] * 3)
    assert served.server.status.dropped == 1


def test_hello_that_is_repeated_gives_the_same_session(
    serve: Serve, stranger: Callable[[str], Stranger]
) -> None:
    someone = stranger(serve().endpoint)
    someone.say(wire.Hello(wire.VERSION))
    someone.say(wire.Hello(wire.VERSION))
    assert someone.hear() == someone.hear()


def test_of_several_requests_that_wait_the_newest_is_answered(
    serve: Serve, stranger: Callable[[str], Stranger]
) -> None:
    someone = stranger(serve(conditions=LinkConditions(delay_ms=50)).endpoint)
    someone.say(wire.Hello(wire.VERSION))
    welcome = someone.hear()
    assert isinstance(welcome, wire.Welcome)
    for sequence in range(1, 11):
        someone.say(wire.Observe(welcome.session, sequence, 0))
    answers = [someone.hear()]
    while someone.socket.poll(100):
        answers.append(wire.decode_answer(someone.socket.recv()))
    requests = [answer.request for answer in answers if isinstance(answer, wire.Observation)]
    assert requests[-1] == 10
    assert len(requests) <= 3  # They were sent at once, but one turn may have ended between them.


# -- Who is refused, and how -----------------------------------------------------------------------------------------


def test_where_nobody_listens_the_refusal_says_how_to_start_one(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with pytest.raises(RobotError, match="no robot listens there; `gatort robot` starts one"):
        connect(f"tcp://127.0.0.1:{port}")


@pytest.mark.parametrize(
    "endpoint",
    [
        *(
            "127.0.0.1:5555",
            "tcp://127.0.0.1",
            "tcp://:5555",
            "tcp://127.0.0.1:99999",
            "x",
            "tcp://[::1]:5555",
        ),
        *(
            "tcp://a@127.0.0.1:5555",
            "tcp://127.0.0.1:5555?x",
            "tcp://127.0.0.1:5555#x",
            "tcp://127.0.0.1:5555/",
        ),
    ],
)
def test_what_is_no_address_is_refused(connect: Connect, endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"expected an address such as tcp://127.0.0.1:5555"):
        connect(endpoint)


def test_another_version_is_refused_naming_both(
    serve: Serve, stranger: Callable[[str], Stranger]
) -> None:
    someone = stranger(serve().endpoint)
    someone.say(wire.Hello(wire.VERSION + 1))
    answer = someone.hear()
    assert isinstance(answer, wire.Refused)
    assert answer.reason == "protocol version: the robot speaks 1, the controller 2"


def test_a_robot_that_is_armed_takes_no_second_controller(serve: Serve, connect: Connect) -> None:
    served = serve()
    first = connect(served.endpoint)
    first.arm()
    act(first, 1)
    with pytest.raises(
        RobotError, match="refuses: scripted is taken: another controller has armed it"
    ):
        connect(served.endpoint)
    assert observe(first).sequence > 0


def test_a_robot_that_is_not_armed_takes_the_newer_controller(
    serve: Serve, connect: Connect
) -> None:
    served = serve()
    first = connect(served.endpoint)
    second = connect(served.endpoint)
    assert observe(second).sequence > 0
    with pytest.raises(
        ObservationError, match=r"from tcp://.* within 25 ms, found none to [1-5] requests"
    ):
        first.observe()
    eventually(lambda: served.server.status.foreign > 0)


def test_messages_of_another_session_are_dropped_and_counted(
    serve: Serve, connect: Connect, stranger: Callable[[str], Stranger]
) -> None:
    served = serve()
    robot = connect(served.endpoint)
    robot.arm()
    someone = stranger(served.endpoint)
    # Even who has read the session's number has not its connection.
    for session in (robot._session, secrets.randbits(63)):
        someone.say(
            wire.Command(
                session, 1, 1, MonotonicClock().now_ns() + 20 * MS, 60 * MS, [9.0, 9.0, 9.0]
            )
        )
        someone.say(wire.Stop(session, 9))
        someone.say(wire.Observe(session, 9, 0))
    eventually(lambda: served.server.status.foreign == 6)
    assert not someone.socket.poll(20)
    assert observe(robot).applied.tolist() == [0, 0, 0]


def test_after_a_stop_at_the_robot_only_its_console_allows_arming(
    serve: Serve, connect: Connect
) -> None:
    served = serve()
    robot = connect(served.endpoint)
    robot.arm()
    served.server.stop()
    eventually(lambda: served.driver.state is State.LATCHED)
    with pytest.raises(
        RobotError, match="stopped on the robot's own side: only its console allows arming again"
    ):
        robot.arm()
    served.server.allow_arming()
    eventually(lambda: not served.server.status.blocked)
    assert served.driver.state is State.LATCHED
    robot.arm()
    assert observe(robot).sequence > 0


def test_an_arm_stopped_after_arming_was_allowed_stays_stopped(spec: PolicySpec) -> None:
    clock = MonotonicClock()
    server = RobotServer(
        ScriptedRobot(spec, clock), clock, "tcp://127.0.0.1:0", name="scripted", simulated=True
    )
    with closing(server):
        server.allow_arming()
        server.stop()
        server.turn()
        assert server.status.blocked
        server.allow_arming()
        server.turn()
        assert not server.status.blocked


def test_a_late_copy_of_consent_that_was_refused_does_not_arm(
    serve: Serve, stranger: Callable[[str], Stranger]
) -> None:
    served = serve()
    someone = stranger(served.endpoint)
    someone.say(wire.Hello(wire.VERSION))
    welcome = someone.hear()
    assert isinstance(welcome, wire.Welcome)
    served.server.stop()
    eventually(lambda: served.server.status.blocked)
    someone.say(wire.Arm(welcome.session, 1))
    refused = someone.hear()
    assert isinstance(refused, wire.Refused)
    served.server.allow_arming()
    eventually(lambda: not served.server.status.blocked)
    someone.say(wire.Arm(welcome.session, 1))
    assert someone.hear() == refused
    assert served.driver.state is State.DISARMED
    someone.say(wire.Arm(welcome.session, 2))
    assert someone.hear() == wire.Armed(welcome.session, 2)


def test_what_has_begun_to_fade_fades_out_before_it_is_armed_again(
    serve: Serve, connect: Connect
) -> None:
    served, seen = serve(), []
    served.driver.on_step = lambda _, state, values: seen.append((state, float(values[0])))
    robot = connect(served.endpoint)
    robot.arm()
    act(robot, 1, 20.0, 20.0, 20.0)
    eventually(lambda: served.driver.inner_loop.in_effect[0] == 20.0)
    robot.stop()
    robot.arm()
    stopped = [state for state, _ in seen].index(State.SAFE)
    eventually(lambda: State.RUN in [state for state, _ in seen[stopped:]])
    assert next(value for state, value in seen[stopped:] if state is State.RUN) == 0.0
    fade = [value for state, value in seen if state is State.SAFE]
    assert 20.0 >= fade[0] > 18.0
    assert fade[-1] < 2.0  # To its last steps.


def test_an_arm_that_fails_tells_its_controller_why(serve: Serve, connect: Connect) -> None:
    def read(sequence: int) -> list[Any]:
        if sequence > 1:
            raise RobotError("joint 3 hit the table")
        return [np.zeros(3, np.float32), np.zeros(2, np.float32)]

    robot = connect(serve(read=read).endpoint)
    observe(robot)
    with pytest.raises(RobotError, match="refuses: joint 3 hit the table"):
        observe_until_it_fails(robot)


@pytest.mark.parametrize(
    "error", [RobotError("joint 3 hit the table"), ValueError("nobody expected this")]
)
def test_whatever_fails_the_arm_is_faded_and_the_controller_told(
    spec: PolicySpec, connect: Connect, error: Exception
) -> None:
    clock, broken = MonotonicClock(), Event()

    def read(_: int) -> list[Any]:
        if broken.is_set():
            raise error
        return [np.zeros(3, np.float32), np.zeros(2, np.float32)]

    driver = ScriptedRobot(spec, clock, read)
    seen: list[tuple[State, float]] = []
    driver.on_step = lambda _, state, values: seen.append((state, values[0]))
    server = RobotServer(driver, clock, "tcp://127.0.0.1:0", name="scripted", simulated=True)

    def fail() -> None:
        with closing(server), pytest.raises(type(error), match=str(error)):
            server.serve()

    thread = Thread(target=fail)
    thread.start()
    robot = connect(server.endpoint)
    robot.arm()
    act(robot, 1, 20.0, 20.0, 20.0)
    eventually(lambda: driver.inner_loop.in_effect[0] == 20.0)
    broken.set()
    with pytest.raises(RobotError, match=f"refuses: {error}"):
        observe_until_it_fails(robot)
    thread.join()
    assert driver.state is State.LATCHED
    fade = [value for state, value in seen if state is State.SAFE]
    assert len(fade) > 32  # Of its 40 steps.
    assert fade == sorted(fade, reverse=True)
    assert driver.inner_loop.in_effect.tolist() == [0, 0, 0]


def test_an_arm_that_fails_while_it_is_faded_fails_with_the_first_reason(spec: PolicySpec) -> None:
    clock = MonotonicClock()
    driver, failures = ScriptedRobot(spec, clock), count(1)
    server = RobotServer(driver, clock, "tcp://127.0.0.1:0", name="scripted", simulated=True)

    def fail(*_: object) -> None:
        raise RobotError(f"failure {next(failures)}")

    driver.arm()
    driver.on_step = fail
    with closing(server), pytest.raises(RobotError, match="failure 1"):
        server.serve()
    assert next(failures) > 2  # It was tried.


def test_an_address_that_is_in_use_is_refused(serve: Serve, spec: PolicySpec) -> None:
    clock = MonotonicClock()
    endpoint = serve().endpoint
    with pytest.raises(ConfigError, match=r"cannot listen on .*: Address already in use"):
        RobotServer(ScriptedRobot(spec, clock), clock, endpoint, name="second", simulated=True)


# -- Connections that end --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keyed", [False, True])
def test_a_controller_that_hangs_up_leaves_the_arm_stopped(
    serve: Serve, connect: Connect, directory: Path, keyed: bool
) -> None:
    served = serve(keys=RobotKeys.load(directory) if keyed else None)
    robot = connect(served.endpoint, ControllerKeys.load(directory) if keyed else None)
    robot.arm()
    act(robot, 1)
    eventually(lambda: served.driver.inner_loop.in_effect.tolist() == [1.0, 2.0, 3.0])
    robot.close()
    eventually(lambda: served.driver.state in STOPPED)
    assert State.HOLD not in [
        status.state for status in served.states
    ]  # Stopped by the connection's end, not by age.
    eventually(lambda: not served.server.status.controlled)


def test_another_s_hanging_up_stops_nothing(
    serve: Serve, connect: Connect, stranger: Callable[[str], Stranger]
) -> None:
    served = serve()
    robot = connect(served.endpoint)
    robot.arm()
    someone = stranger(served.endpoint)
    someone.say(b"\x00")
    eventually(lambda: served.server.status.malformed == 1)
    someone.socket.close()
    for sequence in range(1, 4):
        act(robot, sequence)
    assert robot.state is State.RUN


def test_a_robot_that_hangs_up_is_noticed_at_once(serve: Serve, connect: Connect) -> None:
    served = serve()
    robot = connect(served.endpoint)
    observe(robot)
    served.server.end()
    with pytest.raises(
        RobotError, match="the robot hung up; its process has ended or the network is broken"
    ):
        observe_until_it_fails(robot)
    robot.stop()  # There is nobody to tell, which must not raise in a loop's last breath.


# -- Clocks ----------------------------------------------------------------------------------------------------------


def test_clocks_an_hour_apart_change_nothing(serve: Serve, connect: Connect) -> None:
    served = serve(clock=AheadClock())
    robot, clock = connect(served.endpoint), MonotonicClock()
    for _ in range(20):
        observe(robot)
    assert abs(robot.clock_offset_ns - AN_HOUR_NS) <= robot.round_trips.max_ms * MS
    robot.arm()
    before_ns = clock.now_ns()
    observation = observe(robot)
    assert before_ns - 2 * MS <= observation.stamp_ns <= clock.now_ns()
    act(robot, 1)
    eventually(lambda: observe(robot).applied.tolist() == [1.0, 2.0, 3.0])
    assert served.driver.inner_loop.dropped.total() == 0


def exchange(sent_ns: int, there_ns: int, back_ns: int) -> tuple[wire.Observation, int]:
    """An answer by a clock an hour ahead, after so long on the way there and back, and when it arrived."""
    received_ns = sent_ns + there_ns + AN_HOUR_NS
    answered_ns = received_ns + 2 * MS
    answer = wire.Observation(
        1, 1, sent_ns, received_ns, 1, received_ns, answered_ns, State.RUN, 0, 0, [], []
    )
    return answer, answered_ns - AN_HOUR_NS + back_ns


def test_the_offset_is_that_of_the_shortest_of_the_last_round_trips(
    serve: Serve, connect: Connect
) -> None:
    robot = connect(serve().endpoint)
    robot._measure(*exchange(0, there_ns=9 * MS, back_ns=MS))
    assert robot.clock_offset_ns == AN_HOUR_NS + 4 * MS
    robot._measure(*exchange(20 * MS, there_ns=MS, back_ns=MS))
    robot._measure(*exchange(40 * MS, there_ns=MS, back_ns=9 * MS))
    assert robot.clock_offset_ns == AN_HOUR_NS
    for tick in range(EXCHANGES):
        robot._measure(*exchange(60 * MS + tick, there_ns=3 * MS, back_ns=5 * MS))
    assert robot.clock_offset_ns == AN_HOUR_NS - MS
    assert (robot.round_trips.count, round(robot.round_trips.max_ms)) == (EXCHANGES + 3, 10)


def test_nothing_is_read_after_it_has_arrived_whatever_the_offset(
    serve: Serve, connect: Connect
) -> None:
    robot, clock = connect(serve().endpoint), MonotonicClock()
    wrong_ns = AN_HOUR_NS + 1_000 * MS  # The robot's clock seems to be a second behind, and is not.
    robot._measure(*exchange(clock.now_ns(), there_ns=-wrong_ns, back_ns=wrong_ns))
    assert robot.clock_offset_ns == -1_000 * MS
    assert observe(robot).stamp_ns <= clock.now_ns()


# -- Bad links and floods --------------------------------------------------------------------------------------------


def test_requests_that_are_lost_are_sent_again(serve: Serve, connect: Connect) -> None:
    robot = connect(serve(conditions=LinkConditions(loss=0.2, link_seed=1)).endpoint)
    answered = 0
    for _ in range(100):
        with suppress(ObservationError):
            robot.observe()
            answered += 1
    assert (
        answered > 95
    )  # Five requests, each answered with probability 0.64: 0.6 of 100 stay without an answer.
    assert robot.retries > 20


def test_an_answer_to_an_earlier_tick_s_request_is_not_this_tick_s_observation(
    serve: Serve, connect: Connect
) -> None:
    robot = connect(serve(conditions=LinkConditions(delay_ms=20)).endpoint)
    for _ in range(
        4
    ):  # An answer takes 40 ms, and a tick waits for 25: each comes in the middle of the next one.
        with pytest.raises(ObservationError, match="within 25 ms"):
            robot.observe()
    assert robot.outdated > 0


def test_garbage_is_counted_and_holds_the_arm_up_for_less_than_a_tick(
    serve: Serve, connect: Connect, stranger: Callable[[str], Stranger]
) -> None:
    served, clock = serve(), MonotonicClock()
    behind_ns: list[int] = []
    served.driver.on_step = lambda at_ns, _, __: behind_ns.append(clock.now_ns() - at_ns)
    robot = connect(served.endpoint)
    robot.arm()
    someone = stranger(served.endpoint)
    for sequence in range(1, 6):
        for _ in range(8 * REQUESTS_PER_TURN):
            with suppress(zmq.Again):
                someone.socket.send(secrets.token_bytes(200), zmq.NOBLOCK)
        act(robot, sequence)
    eventually(lambda: served.server.status.malformed > REQUESTS_PER_TURN)
    assert robot.state is State.RUN
    assert max(behind_ns) < 50 * MS


def test_a_message_of_a_hundred_megabytes_costs_its_sender_the_connection_and_nothing_else(
    serve: Serve, connect: Connect, stranger: Callable[[str], Stranger]
) -> None:
    served = serve()
    robot, someone, huge = connect(served.endpoint), stranger(served.endpoint), bytes(100_000_000)
    robot.arm()
    with closing(someone.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)) as monitor:
        someone.socket.send(huge, copy=False)
        for sequence in range(1, 500):
            act(robot, sequence)
            if monitor.poll(10):
                break
        else:
            pytest.fail("the sender is still connected")
    assert served.server.status.controlled
    assert served.server.status.malformed == 0


def test_a_message_in_several_frames_is_none(
    serve: Serve, stranger: Callable[[str], Stranger]
) -> None:
    served = serve()
    someone = stranger(served.endpoint)
    someone.socket.send_multipart([wire.encode(wire.Hello(wire.VERSION)), b"more"])
    eventually(lambda: served.server.status.malformed == 1)


READY = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(16 + 1 + 31)
HANDSHAKE = GREETING + b"\x04" + bytes([len(READY)]) + READY
"""Of a DEALER without keys (ZMTP 3.1)."""
EMPTY_PART, EMPTY_LAST_PART = b"\x01\x00", b"\x00\x00"


@pytest.mark.parametrize("ending", [EMPTY_LAST_PART, b""], ids=["whole", "never ending"])
def test_a_message_of_very_many_parts_holds_neither_the_arm_nor_its_watchdog_up(
    serve: Serve, connect: Connect, ending: bytes
) -> None:
    served, clock = serve(), MonotonicClock()
    behind_ns: list[int] = []
    served.driver.on_step = lambda at_ns, _, __: behind_ns.append(clock.now_ns() - at_ns)
    robot = connect(served.endpoint)
    robot.arm()
    act(robot, 1)
    address = urlsplit(served.endpoint)
    # Without libzmq, so that the parts are sent at once and cost this process, which is the robot's too, nothing.
    with socket.create_connection((address.hostname, address.port)) as someone:
        someone.sendall(HANDSHAKE)
        assert len(someone.recv(len(HANDSHAKE), socket.MSG_WAITALL)) == len(HANDSHAKE)
        someone.sendall(EMPTY_PART * 100_000 + ending)
        eventually(lambda: served.driver.state is State.LATCHED)
        eventually(lambda: served.server.status.malformed == bool(ending))
    assert max(behind_ns) < 50 * MS
    robot.arm()
    act(robot, 1)


# -- Keys ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    make_keys(tmp_path / "keys")
    return tmp_path / "keys"


def test_with_the_keys_of_one_directory_both_speak(
    serve: Serve, connect: Connect, directory: Path
) -> None:
    robot = connect(serve(keys=RobotKeys.load(directory)).endpoint, ControllerKeys.load(directory))
    robot.arm()
    act(robot, 1)
    assert robot.state is State.RUN


def test_a_key_that_the_robot_does_not_know_is_refused_counted_and_never_decoded(
    serve: Serve, connect: Connect, directory: Path, tmp_path: Path
) -> None:
    served = serve(keys=RobotKeys.load(directory))
    make_keys(tmp_path / "other")
    (tmp_path / "other" / "robot.pub").write_bytes((directory / "robot.pub").read_bytes())
    with pytest.raises(
        RobotError, match=r"does not let in .*other/controller.key: it needs its controller.pub"
    ):
        connect(served.endpoint, ControllerKeys.load(tmp_path / "other"))
    eventually(lambda: served.server.status.unknown_keys == 1)
    status = served.server.status
    assert (status.malformed, status.foreign, status.controlled) == (0, 0, False)
    eventually(
        lambda: served.states[-1:] != [] and served.states[-1].unknown_keys == 1
    )  # The console shows it.


def test_a_second_controller_s_public_key_in_the_directory_is_let_in(
    serve: Serve, connect: Connect, directory: Path, tmp_path: Path
) -> None:
    make_keys(tmp_path / "other")
    (tmp_path / "other" / "robot.pub").write_bytes((directory / "robot.pub").read_bytes())
    (directory / "controller-laptop.pub").write_bytes(
        (tmp_path / "other" / "controller.pub").read_bytes()
    )
    served = serve(keys=RobotKeys.load(directory))
    assert connect(served.endpoint, ControllerKeys.load(tmp_path / "other")).name == "scripted"


def test_a_robot_with_another_key_is_refused_naming_the_file(
    serve: Serve, connect: Connect, directory: Path, tmp_path: Path
) -> None:
    served = serve(keys=RobotKeys.load(directory))
    (directory / "robot.pub").write_bytes(zmq.curve_keypair()[0])
    with pytest.raises(RobotError, match=r"keys/robot.pub is not the key of the robot there"):
        connect(served.endpoint, ControllerKeys.load(directory))
    eventually(lambda: served.server.status.handshakes == 1)


def test_without_keys_a_keyed_robot_is_not_spoken_with(
    serve: Serve, connect: Connect, directory: Path, stranger: Callable[[str], Stranger]
) -> None:
    served = serve(keys=RobotKeys.load(directory))
    with pytest.raises(RobotError, match=r"speaks only with keys \(--keys DIR\), or is none"):
        connect(served.endpoint)
    stranger(served.endpoint).say(wire.Hello(wire.VERSION))
    eventually(lambda: served.server.status.handshakes == 2)
    assert served.server.status.malformed == 0


def test_with_keys_a_plain_robot_is_not_spoken_with(
    serve: Serve, connect: Connect, directory: Path
) -> None:
    with pytest.raises(RobotError, match="speaks without keys"):
        connect(serve().endpoint, ControllerKeys.load(directory))


@pytest.mark.parametrize(
    "endpoint", ["tcp://*:0", "tcp://0.0.0.0:0", "tcp://192.0.2.1:5555", "tcp://arm.local:5555"]
)
def test_beyond_this_machine_nothing_is_spoken_without_keys(
    spec: PolicySpec, connect: Connect, endpoint: str
) -> None:
    clock = MonotonicClock()
    with pytest.raises(
        ConfigError, match="beyond this machine, where nothing is spoken without keys"
    ):
        RobotServer(ScriptedRobot(spec, clock), clock, endpoint, name="open", simulated=True)
    with pytest.raises(
        ConfigError, match="beyond this machine, where nothing is spoken without keys"
    ):
        connect(endpoint)


def test_a_layout_without_success_is_given_up_in_time_and_only_while_the_arm_is_armed(
    serve: Serve, connect: Connect
) -> None:
    laid: list[int] = []
    served = serve(next_trial=lambda: laid.append(1), trial_ns=60 * MS)
    robot = connect(served.endpoint)
    MonotonicClock().sleep_until_ns(MonotonicClock().now_ns() + 100 * MS)
    assert not laid
    robot.arm()
    eventually(lambda: served.server.status.given_up == 1)
    assert laid == [1]
    assert served.server.status.successes == 0
