"""The door's process and the arm's: one of them ends, stops or floods, and the other goes on.

The arm's clock moves only when a test moves it, so no watchdog trips because a machine is busy.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from tests.waiting import eventually

from gatort.runtime.clock import MonotonicClock, VirtualClock
from gatort.runtime.errors import ConfigError, GatortError, ObservationError, RobotError
from gatort.runtime.remote.client import RemoteRobot
from gatort.runtime.remote.door import FIRST_PAUSE_NS, SILENT_NS, Door
from gatort.runtime.remote.door_link import DoorSettings, Kind, Packet
from gatort.runtime.remote.keys import ControllerKeys, make_keys
from gatort.runtime.remote.robot_socket import RobotSocket
from gatort.runtime.remote.server import RobotServer
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.safety import Command, State
from gatort.runtime.spec import PolicySpec

MS = 1_000_000
ANY_PORT = DoorSettings("tcp://127.0.0.1:0")


class Served:
    """An arm behind a door, served in a thread on a virtual clock."""

    def __init__(self, spec: PolicySpec, settings: DoorSettings) -> None:
        self.clock = VirtualClock(1_000 * MS)
        self.news: list[str] = []
        self.door = Door(settings, self.clock, self.news.append)
        self.arm = ScriptedRobot(spec, self.clock)
        self.server = RobotServer(self.arm, self.clock, self.door, name="scripted", simulated=True)
        self._thread = Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with closing(self.server), suppress(GatortError):
            self.server.serve()

    def door_pid(self) -> int:
        return self.door._process.pid

    def has_news(self, sentences: int) -> bool:
        return len(self.news) >= sentences

    def pass_time(self, ns: int) -> None:
        for _ in range(ns // MS):
            self.clock.advance_ns(MS)

    def end(self) -> None:
        self.server.end()
        while self._thread.is_alive():
            self.clock.advance_ns(10 * MS)
            self._thread.join(0.01)


Serve = Callable[..., Served]


@pytest.fixture
def serve(spec: PolicySpec) -> Iterator[Serve]:
    running: list[Served] = []

    def start(settings: DoorSettings = ANY_PORT) -> Served:
        running.append(Served(spec, settings))
        return running[-1]

    yield start
    for served in running:
        served.end()


def drive(robot: RemoteRobot) -> None:
    """Arm the robot and command torques of 1, 2 and 3 N·m."""
    robot.arm()
    observation = robot.observe()
    apply_at_ns = observation.stamp_ns + robot.interface.action_delay_ns
    robot.command(Command(1, observation.sequence, apply_at_ns, 60 * MS, np.array([1.0, 2.0, 3.0])))
    robot.observe()


def observe_until_it_fails(robot: RemoteRobot) -> None:
    while True:
        with suppress(ObservationError):
            robot.observe()


def test_a_controller_drives_an_arm_through_its_door(serve: Serve, tmp_path: Path) -> None:
    make_keys(tmp_path)
    served = serve(DoorSettings("tcp://127.0.0.1:0", str(tmp_path)))
    keys = ControllerKeys.load(tmp_path)
    with closing(RemoteRobot(served.door.endpoint, MonotonicClock(), keys)) as robot:
        drive(robot)
        served.clock.advance_ns(30 * MS)
        eventually(lambda: served.arm.inner_loop.in_effect.tolist() == [1.0, 2.0, 3.0])
        assert served.arm.state is State.RUN
    eventually(lambda: served.arm.state is State.SAFE)  # The controller hung up.


def test_a_door_that_is_killed_stops_the_arm_and_the_next_one_arms_nobody(serve: Serve) -> None:
    served = serve()
    endpoint = served.door.endpoint
    with closing(RemoteRobot(endpoint, MonotonicClock())) as robot:
        drive(robot)
        os.kill(served.door_pid(), signal.SIGKILL)
        eventually(lambda: served.arm.state is State.SAFE)
        with pytest.raises(RobotError):
            observe_until_it_fails(robot)
    served.pass_time(50 * MS)
    eventually(lambda: served.arm.state is State.LATCHED)
    eventually(partial(served.has_news, 1))
    assert "SIGKILL" in served.news[0]

    served.pass_time(FIRST_PAUSE_NS)
    eventually(lambda: served.news[-1] == f"the door listens again at {endpoint}")
    with closing(RemoteRobot(endpoint, MonotonicClock())) as robot:
        assert robot.observe().stamp_ns
        assert served.arm.state is State.LATCHED
        drive(robot)
        assert served.arm.state is State.RUN


def test_a_door_that_hangs_is_killed_and_replaced(serve: Serve) -> None:
    served = serve()
    first = served.door_pid()
    os.kill(first, signal.SIGSTOP)
    eventually(lambda: served.clock.advance_ns(SILENT_NS // 4) or bool(served.news))
    assert "was silent for 2 s" in served.news[0]
    served.pass_time(FIRST_PAUSE_NS)
    eventually(lambda: served.news[-1].startswith("the door listens again"))
    assert served.door_pid() != first


def test_doors_that_end_early_are_started_later_each_time(serve: Serve) -> None:
    served = serve()
    pauses = []
    for news in range(1, 8, 2):
        os.kill(served.door_pid(), signal.SIGKILL)
        eventually(partial(served.has_news, news))
        pauses.append(served.news[-1].rpartition(" in ")[2])
        served.pass_time(2_000 * MS)
        eventually(lambda: served.news[-1].startswith("the door listens again"))
    assert pauses == ["0.25 s", "0.5 s", "1 s", "2 s"]


def test_a_door_that_cannot_be_started_costs_no_step_and_is_tried_again(
    serve: Serve,
) -> None:
    served = serve()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.kill(served.door_pid(), signal.SIGKILL)
    eventually(partial(served.has_news, 1))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # Every descriptor is taken.
    try:
        served.pass_time(FIRST_PAUSE_NS)
        eventually(partial(served.has_news, 2))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "cannot be started: Too many open files" in served.news[1]
    served.pass_time(2 * FIRST_PAUSE_NS)
    eventually(lambda: served.news[-1].startswith("the door listens again"))


@pytest.mark.parametrize(
    ("packet", "words"),
    [
        (Packet(Kind.COUNTS, b"\x81\xa1x" + b"\x91" * 200), "broke the link"),
        (Packet(Kind.COUNTS, bytes(5_000)), "expected counts"),
        (Packet(Kind.LISTENING, b"tcp://\x1b[2J"), "found another"),
        (Packet(Kind.REFUSAL, b"bad \x1b[31mwords\xff"), "broke the link"),
        (Packet(Kind.REFUSAL, b"bad \x1b[31mwords"), "ended: bad [31mwords"),
        (Packet(Kind.ANSWER, b"x"), "found an answer"),
    ],
    ids=["nested counts", "long counts", "another address", "no UTF-8", "escapes", "an answer"],
)
def test_a_door_that_sends_nonsense_is_replaced(serve: Serve, packet: Packet, words: str) -> None:
    served = serve()
    link = served.door._link
    assert link is not None
    link.receive = lambda: packet  # type: ignore[method-assign]  # of this one link
    eventually(partial(served.has_news, 1))
    assert words in served.news[0]
    assert served.news[0].isprintable()
    served.pass_time(FIRST_PAUSE_NS)
    eventually(lambda: served.news[-1].startswith("the door listens again"))


def test_a_door_that_a_nameless_signal_ends_is_replaced(serve: Serve) -> None:
    served = serve()
    os.kill(served.door_pid(), 36)
    eventually(partial(served.has_news, 1))
    assert "was ended by signal 36" in served.news[0]


def test_an_address_in_use_is_refused_at_once() -> None:
    with closing(RobotSocket(ANY_PORT.bind)) as first, pytest.raises(ConfigError, match="in use"):
        Door(DoorSettings(first.endpoint), VirtualClock())


def test_a_door_whose_address_is_taken_meanwhile_is_tried_again_until_it_is_free(
    serve: Serve,
) -> None:
    served = serve()
    os.kill(served.door_pid(), signal.SIGKILL)
    eventually(partial(served.has_news, 1))
    with closing(RobotSocket(served.door.endpoint)):
        served.pass_time(FIRST_PAUSE_NS)
        eventually(partial(served.has_news, 2))
        assert "Address already in use" in served.news[1]
    served.pass_time(2 * FIRST_PAUSE_NS)
    eventually(lambda: served.news[-1].startswith("the door listens again"))


def test_keys_that_cannot_be_used_are_refused_by_their_own_sentence(tmp_path: Path) -> None:
    settings = DoorSettings(ANY_PORT.bind, str(tmp_path))
    with pytest.raises(ConfigError, match=r"robot\.key"):
        Door(settings, VirtualClock())


OWNER = """
from gatort.runtime.clock import MonotonicClock
from gatort.runtime.remote.door import Door
from gatort.runtime.remote.door_link import DoorSettings, Kind, Packet
import time
print(Door(DoorSettings("tcp://127.0.0.1:0"), MonotonicClock())._process.pid, flush=True)
time.sleep(60)
"""


def test_a_door_ends_with_the_arms_process_even_if_it_is_stopped() -> None:
    with subprocess.Popen([sys.executable, "-P", "-c", OWNER], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        door = int(owner.stdout.readline())
        os.kill(door, signal.SIGSTOP)
        owner.kill()
    eventually(lambda: not _is_alive(door))


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
