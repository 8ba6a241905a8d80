"""Controller and robot over real sockets on this machine: addresses, keys, endings, and floods.

The robot's clock moves only when a test moves it, so no watchdog ever trips because a machine is
busy. The controller's clock is slow, so that each of its time-outs lasts for many seconds.
"""

from __future__ import annotations

import secrets
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import zmq
from tests.waiting import eventually

from gatort.runtime.clock import MonotonicClock, VirtualClock
from gatort.runtime.errors import ConfigError, GatortError, ObservationError, RobotError
from gatort.runtime.remote import wire
from gatort.runtime.remote.client import RemoteRobot
from gatort.runtime.remote.keys import ControllerKeys, RobotKeys, make_keys
from gatort.runtime.remote.robot_socket import PARTS_PER_TURN, REQUESTS_PER_TURN, RobotSocket
from gatort.runtime.remote.server import RobotServer, RobotStatus
from gatort.runtime.remote.transport import Arrival
from gatort.runtime.remote.zmq_sockets import bounded_socket
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.safety import Command, State
from gatort.runtime.spec import PolicySpec

MS = 1_000_000
START_NS = 1_000 * MS
LONGEST_WAIT_NS = 20_000 * MS
SLOWER = 20
ANY_PORT = "tcp://127.0.0.1:0"


class SlowClock(MonotonicClock):
    """A clock on which 20 seconds are one, so that no time-out of a controller is ever reached."""

    def now_ns(self) -> int:
        return super().now_ns() // SLOWER


class Served:
    """A robot served in a thread, on a virtual clock."""

    def __init__(self, spec: PolicySpec, keys: RobotKeys | None = None) -> None:
        self.clock = VirtualClock(START_NS)
        self.arm = ScriptedRobot(spec, self.clock)
        self.statuses: list[RobotStatus] = []
        self.server = RobotServer(
            self.arm,
            self.clock,
            RobotSocket(ANY_PORT, keys),
            name="scripted",
            simulated=True,
            on_change=self.statuses.append,
        )
        self.endpoint = self.server.endpoint
        self._thread = Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with closing(self.server), suppress(GatortError):
            self.server.serve()

    def end(self) -> None:
        self.server.end()
        while self._thread.is_alive():  # It ends when the arm has come to rest.
            self.clock.advance_ns(10 * MS)
            self._thread.join(0.01)


Serve = Callable[..., Served]
Connect = Callable[..., RemoteRobot]


@pytest.fixture
def serve(spec: PolicySpec) -> Iterator[Serve]:
    running: list[Served] = []

    def start(keys: RobotKeys | None = None) -> Served:
        running.append(Served(spec, keys))
        return running[-1]

    yield start
    for served in running:
        served.end()


@pytest.fixture
def connect() -> Iterator[Connect]:
    made: list[RemoteRobot] = []

    def start(endpoint: str, keys: ControllerKeys | None = None) -> RemoteRobot:
        made.append(RemoteRobot(endpoint, SlowClock(), keys))
        return made[-1]

    yield start
    for robot in made:
        robot.close()


class Stranger:
    """Someone with a socket of their own, who may send anything."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self.socket = socket

    def say(self, message: wire.Request | bytes) -> None:
        self.socket.send(message if isinstance(message, bytes) else wire.encode(message))

    def hear(self) -> wire.Answer:
        assert self.socket.poll(LONGEST_WAIT_NS // MS), "no answer"
        return wire.decode_answer(self.socket.recv())


@pytest.fixture
def stranger() -> Iterator[Callable[[str], Stranger]]:
    context = zmq.Context()
    sockets = []

    def start(endpoint: str) -> Stranger:
        sockets.append(bounded_socket(context, zmq.DEALER, wire.LARGEST_ANSWER_BYTES))
        sockets[-1].connect(endpoint)
        return Stranger(sockets[-1])

    yield start
    for each in sockets:
        each.close()
    context.term()


def drive(robot: RemoteRobot) -> None:
    """Arm the robot, and command torques of 1, 2 and 3 N·m."""
    robot.arm()
    observation = robot.observe()
    apply_at_ns = observation.stamp_ns + robot.interface.action_delay_ns
    torques = np.array([1.0, 2.0, 3.0])
    robot.command(Command(1, observation.sequence, apply_at_ns, 60 * MS, torques))
    robot.observe()  # Messages keep their order: with this answer the command is there too.


def observe_until_it_fails(robot: RemoteRobot) -> None:
    while True:
        with suppress(ObservationError):
            robot.observe()


# -- Addresses ---------------------------------------------------------------------------------


def test_where_nobody_listens_the_error_says_how_to_start_a_robot(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with pytest.raises(RobotError, match="no robot listens there; start one with `gatort robot`"):
        connect(f"tcp://127.0.0.1:{port}")


@pytest.mark.parametrize(
    "endpoint",
    [
        "127.0.0.1:5555",
        "tcp://127.0.0.1",
        "tcp://:5555",
        "tcp://127.0.0.1:99999",
        "x",
        "tcp://[::1]:5555",
        "tcp://a@127.0.0.1:5555",
        "tcp://127.0.0.1:5555?x",
        "tcp://127.0.0.1:5555#x",
        "tcp://127.0.0.1:5555/",
    ],
)
def test_an_address_that_is_not_valid_is_refused(connect: Connect, endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"expected an address such as tcp://127.0.0.1:5555"):
        connect(endpoint)
    with pytest.raises(ConfigError, match=r"expected an address such as tcp://127.0.0.1:5555"):
        RobotSocket(endpoint)


def test_an_address_in_use_is_refused() -> None:
    with (
        closing(RobotSocket(ANY_PORT)) as first,
        pytest.raises(ConfigError, match=r"cannot listen on .*: Address already in use"),
    ):
        RobotSocket(first.endpoint)


@pytest.mark.parametrize(
    "endpoint", ["tcp://*:0", "tcp://0.0.0.0:0", "tcp://192.0.2.1:5555", "tcp://arm.local:5555"]
)
def test_other_machines_need_keys(connect: Connect, endpoint: str) -> None:
    refusal = "reaches beyond this machine, which requires keys"
    with pytest.raises(ConfigError, match=refusal):
        RobotSocket(endpoint)
    with pytest.raises(ConfigError, match=refusal):
        connect(endpoint)


# -- Endings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("keyed", [False, True], ids=["plain", "keyed"])
def test_a_robot_is_driven_and_a_controller_that_hangs_up_stops_it(
    serve: Serve, connect: Connect, keys: Path, keyed: bool
) -> None:
    served = serve(RobotKeys.load(keys) if keyed else None)
    robot = connect(served.endpoint, ControllerKeys.load(keys) if keyed else None)
    drive(robot)
    served.clock.advance_ns(40 * MS)
    eventually(lambda: served.arm.inner_loop.in_effect.tolist() == [1.0, 2.0, 3.0])
    assert robot.observe().applied.tolist() == [1.0, 2.0, 3.0]
    assert robot.state is State.RUN
    robot.close()
    eventually(lambda: served.arm.state is State.SAFE)
    eventually(lambda: not served.server.status.controlled)


def test_a_robot_that_hangs_up_is_noticed_and_a_stop_then_raises_nothing(
    serve: Serve, connect: Connect
) -> None:
    served = serve()
    robot = connect(served.endpoint)
    served.server.end()
    with pytest.raises(
        RobotError, match="the robot hung up; its process has ended or the network is broken"
    ):
        observe_until_it_fails(robot)
    robot.stop()


def test_the_sessions_number_alone_is_not_enough_over_another_connection(
    serve: Serve, connect: Connect, stranger: Callable[[str], Stranger]
) -> None:
    served = serve()
    robot = connect(served.endpoint)
    drive(robot)
    someone = stranger(served.endpoint)
    for session in (robot._session, secrets.randbits(63)):
        someone.say(wire.Stop(session, 9))
        someone.say(wire.Observe(session, 9, 0))
    eventually(lambda: served.server.status.foreign == 4)
    assert robot.observe().sequence > 0
    assert robot.state is State.RUN
    assert not someone.socket.poll(0)


# -- Floods ------------------------------------------------------------------------------------


class CountingSocket(RobotSocket):
    """Counts the parts and messages that each turn reads, and the connections that ended."""

    def __init__(self) -> None:
        self.parts: list[int] = []
        self.messages: list[int] = []
        self.ends = 0
        super().__init__(ANY_PORT)

    def receive(self) -> list[Arrival]:
        self.parts.append(0)
        before = self.refused.malformed
        arrivals = self._reader.read(self._next_part)
        self.messages.append(len(arrivals) + self.refused.malformed - before)
        return arrivals

    def ended(self) -> list[int]:
        descriptors = super().ended()
        self.ends += len(descriptors)
        return descriptors

    def _next_part(self) -> zmq.Frame:
        part = self._socket.recv(zmq.NOBLOCK, copy=False)
        self.parts[-1] += 1
        return part


class Stepped:
    """A robot whose turns the test takes, one a millisecond."""

    def __init__(self, spec: PolicySpec) -> None:
        self.clock = VirtualClock(START_NS)
        self.arm = ScriptedRobot(spec, self.clock)
        self.arm.on_step = lambda at_ns, state, _: self.steps.append((at_ns, state))
        self.steps: list[tuple[int, State]] = []
        self.socket = CountingSocket()
        self.server = RobotServer(
            self.arm, self.clock, self.socket, name="scripted", simulated=True
        )

    def turn(self) -> None:
        self.clock.advance_ns(MS)
        self.server.turn()

    def turn_until(self, true: Callable[[], bool]) -> None:
        """Take turns until a condition is true, for at most 20 s."""
        clock = MonotonicClock()
        deadline_ns = clock.now_ns() + LONGEST_WAIT_NS
        while not true():
            assert clock.now_ns() < deadline_ns, "it never became true"
            self.turn()

    def first(self, state: State) -> int:
        """Return the instant of the first step in a state."""
        return next(at_ns for at_ns, seen in self.steps if seen is state)


@pytest.fixture
def stepped(spec: PolicySpec) -> Iterator[Stepped]:
    stepped = Stepped(spec)
    with closing(stepped.server):
        yield stepped


READY = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(16 + 1 + 31)
HANDSHAKE = GREETING + b"\x04" + bytes([len(READY)]) + READY
"""Handshake of a DEALER without keys (ZMTP 3.1)."""
EMPTY_PART, EMPTY_LAST_PART = b"\x01\x00", b"\x00\x00"
PARTS = 20_000


@contextmanager
def raw_connection(endpoint: str) -> Iterator[socket.socket]:
    """Connect without libzmq, so that any sequence of parts can be sent."""
    address = urlsplit(endpoint)
    with socket.create_connection((address.hostname, address.port)) as someone:
        someone.sendall(HANDSHAKE)
        assert len(someone.recv(len(HANDSHAKE), socket.MSG_WAITALL)) == len(HANDSHAKE)
        yield someone


def test_a_message_of_very_many_parts_costs_each_turn_a_bounded_number_and_no_inner_step(
    stepped: Stepped,
) -> None:
    parts = 1 + PARTS + 1  # The routing id comes first.
    with raw_connection(stepped.server.endpoint) as someone:
        someone.sendall(EMPTY_PART * PARTS + EMPTY_LAST_PART)
        stepped.turn_until(lambda: sum(stepped.socket.parts) > 0)
        stepped.arm.arm()
        armed_ns = stepped.clock.now_ns()
        stepped.turn_until(lambda: sum(stepped.socket.parts) == parts)

    turns = len(stepped.socket.parts)
    assert max(stepped.socket.parts) == PARTS_PER_TURN
    assert turns >= parts / PARTS_PER_TURN
    assert [at_ns for at_ns, _ in stepped.steps] == [
        START_NS + turn * MS for turn in range(1, turns + 1)
    ]
    # The watchdog latched the arm to the millisecond in the midst of it.
    assert stepped.first(State.SAFE) == armed_ns + 95 * MS
    assert stepped.first(State.LATCHED) == armed_ns + 135 * MS
    assert stepped.server.status.malformed == 1


def test_a_message_that_never_ends_is_never_read_and_others_are_served(
    stepped: Stepped, stranger: Callable[[str], Stranger]
) -> None:
    with raw_connection(stepped.server.endpoint) as someone:
        someone.sendall(EMPTY_PART * PARTS)
        controller = stranger(stepped.server.endpoint)
        controller.say(wire.Hello(wire.VERSION))
        stepped.turn_until(lambda: controller.socket.poll(0) != 0)
    assert isinstance(controller.hear(), wire.Welcome)
    assert sum(stepped.socket.parts) == 2  # The routing id and the frame of `Hello`.
    assert len(stepped.steps) == len(stepped.socket.parts)
    assert stepped.server.status.malformed == 0


def test_a_flood_of_garbage_is_counted_a_bounded_number_a_turn_and_the_controller_is_served(
    stepped: Stepped, stranger: Callable[[str], Stranger]
) -> None:
    controller = stranger(stepped.server.endpoint)
    controller.say(wire.Hello(wire.VERSION))
    stepped.turn_until(lambda: controller.socket.poll(0) != 0)
    welcome = controller.hear()
    assert isinstance(welcome, wire.Welcome)

    flood = stranger(stepped.server.endpoint)
    sent = 0
    for sequence in range(1, 6):
        with suppress(zmq.Again):
            for _ in range(8 * REQUESTS_PER_TURN):
                flood.socket.send(secrets.token_bytes(200), zmq.NOBLOCK)
                sent += 1
        controller.say(wire.Observe(welcome.session, sequence, 0))
        stepped.turn_until(lambda: controller.socket.poll(0) != 0)
        answer = controller.hear()
        assert isinstance(answer, wire.WireObservation)
        assert answer.request == sequence

    stepped.turn_until(lambda: stepped.server.status.malformed == sent)
    assert max(stepped.socket.messages) <= REQUESTS_PER_TURN
    assert len(stepped.steps) == len(stepped.socket.messages)  # One inner step a turn.
    assert stepped.server.status.controlled


def test_another_connections_end_stops_nothing(
    stepped: Stepped, stranger: Callable[[str], Stranger]
) -> None:
    controller = stranger(stepped.server.endpoint)
    controller.say(wire.Hello(wire.VERSION))
    stepped.turn_until(lambda: stepped.server.status.controlled)
    someone = stranger(stepped.server.endpoint)
    someone.say(b"\x00")
    stepped.turn_until(lambda: stepped.server.status.malformed == 1)
    stepped.arm.arm()
    someone.socket.close()
    stepped.turn_until(lambda: stepped.socket.ends == 1)
    assert stepped.server.status.controlled


def test_a_message_in_several_frames_is_malformed(
    stepped: Stepped, stranger: Callable[[str], Stranger]
) -> None:
    someone = stranger(stepped.server.endpoint)
    someone.socket.send_multipart([wire.encode(wire.Hello(wire.VERSION)), b"more"])
    stepped.turn_until(lambda: stepped.server.status.malformed == 1)
    assert not stepped.server.status.controlled


def test_a_message_that_is_too_large_costs_its_sender_the_connection_and_nothing_else(
    stepped: Stepped, stranger: Callable[[str], Stranger]
) -> None:
    controller = stranger(stepped.server.endpoint)
    controller.say(wire.Hello(wire.VERSION))
    stepped.turn_until(lambda: stepped.server.status.controlled)
    someone = stranger(stepped.server.endpoint)
    with closing(someone.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)) as monitor:
        someone.socket.send(bytes(10_000_000), copy=False)
        stepped.turn_until(lambda: monitor.poll(0) != 0)
        someone.socket.disable_monitor()
    assert stepped.server.status.controlled
    assert stepped.server.status.malformed == 0


# -- Keys --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the keys of a robot and its controller, and those of a stranger who knows the robot."""
    folder = tmp_path_factory.mktemp("keys")
    make_keys(folder / "keys")
    make_keys(folder / "other")
    (folder / "other" / "robot.pub").write_bytes((folder / "keys" / "robot.pub").read_bytes())
    return folder


@pytest.fixture
def keys(two_pairs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(two_pairs / "keys", tmp_path / "keys"))


@pytest.fixture
def other(two_pairs: Path) -> Path:
    return two_pairs / "other"


def test_an_unknown_key_is_refused_and_counted_and_nothing_of_it_is_decoded(
    serve: Serve, connect: Connect, keys: Path, other: Path
) -> None:
    served = serve(RobotKeys.load(keys))
    with pytest.raises(
        RobotError, match=r"does not accept .*other/controller.key: copy its controller.pub"
    ):
        connect(served.endpoint, ControllerKeys.load(other))
    eventually(lambda: served.server.status.unknown_keys == 1)
    status = served.server.status
    assert (status.malformed, status.foreign, status.controlled) == (0, 0, False)
    # The console shows it.
    eventually(lambda: any(shown.unknown_keys == 1 for shown in served.statuses))


def test_a_second_controllers_public_key_in_the_directory_is_accepted(
    serve: Serve, connect: Connect, keys: Path, other: Path
) -> None:
    shutil.copy(other / "controller.pub", keys / "controller-laptop.pub")
    served = serve(RobotKeys.load(keys))
    assert connect(served.endpoint, ControllerKeys.load(other)).name == "scripted"


def test_a_robot_with_another_key_is_refused_naming_the_file(
    serve: Serve, connect: Connect, keys: Path
) -> None:
    served = serve(RobotKeys.load(keys))
    (keys / "robot.pub").write_bytes(zmq.curve_keypair()[0])
    with pytest.raises(RobotError, match=r"keys/robot.pub is not the key of the robot there"):
        connect(served.endpoint, ControllerKeys.load(keys))
    eventually(lambda: served.server.status.handshakes == 1)


def test_without_keys_a_keyed_robot_accepts_nobody(
    serve: Serve, connect: Connect, keys: Path, stranger: Callable[[str], Stranger]
) -> None:
    served = serve(RobotKeys.load(keys))
    with pytest.raises(RobotError, match=r"the robot requires keys \(use --keys DIR\)"):
        connect(served.endpoint)
    stranger(served.endpoint).say(wire.Hello(wire.VERSION))
    eventually(lambda: served.server.status.handshakes == 2)
    assert served.server.status.malformed == 0


def test_with_keys_a_plain_robot_is_refused(serve: Serve, connect: Connect, keys: Path) -> None:
    with pytest.raises(RobotError, match="speaks without keys"):
        connect(serve().endpoint, ControllerKeys.load(keys))


def test_a_transport_that_is_closed_twice_does_nothing_more(connect: Connect, serve: Serve) -> None:
    robot = connect(serve().endpoint)
    robot.close()
    robot.close()
    listening: Any = RobotSocket(ANY_PORT)
    listening.close()
    listening.close()
