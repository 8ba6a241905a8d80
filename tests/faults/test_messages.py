"""Row 12 without a wall clock: floods at a server whose arm lives in virtual time.

A virtual millisecond passes with each turn, however long the turn takes. A server that
spends too many turns on a flood shows in the trace, and too many messages in one turn are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import zmq

from gatort.faults.judging import must_go_on, seeded
from gatort.faults.messages import Flood, no_message
from gatort.faults.trace import Trace
from gatort.runtime.clock import MonotonicClock, VirtualClock
from gatort.runtime.remote.robot_socket import REQUESTS_PER_TURN, RobotSocket
from gatort.runtime.remote.server import RobotServer
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.safety import Command, State
from gatort.runtime.spec import PolicySpec

MS = 1_000_000
PERIOD_MS = 50
MESSAGES = 100
EVENTUALLY_NS = 60_000 * MS


class FloodedArm:
    """A driven arm whose server gets messages from a stranger."""

    def __init__(self, spec: PolicySpec, folder: Path) -> None:
        self.clock = VirtualClock(1_000 * MS)
        self.robot = ScriptedRobot(spec, self.clock)
        self.trace = Trace(folder / "trace", spec)
        self.robot.on_step = lambda at_ns, state, values: self.trace.add(
            at_ns, at_ns, state, values
        )
        self.server = RobotServer(
            self.robot,
            self.clock,
            RobotSocket("tcp://127.0.0.1:0"),
            name="flooded",
            simulated=True,
        )
        self.turns = 0
        self.robot.arm()

    def turn(self) -> None:
        """One virtual millisecond; a new command every period, as from a controller in time."""
        if self.turns % PERIOD_MS == 0:
            effect_ns = self.clock.now_ns() + 25 * MS
            sequence = self.turns // PERIOD_MS + 1
            self.robot.command(Command(sequence, sequence, effect_ns, 60 * MS, np.ones(3)))
        self.turns += 1
        self.clock.advance_ns(MS)
        self.server.turn()


@pytest.fixture
def flooded(spec: PolicySpec, tmp_path: Path) -> Iterator[FloodedArm]:
    arm = FloodedArm(spec, tmp_path)
    with closing(arm.server):
        yield arm


@pytest.fixture
def stranger(flooded: FloodedArm) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.set(zmq.LINGER, 0)
        socket.connect(flooded.server.endpoint)
        yield socket


@pytest.mark.parametrize("kind", ["random", "nested", "parts"])
def test_messages_that_are_none_are_counted_and_the_arm_goes_on(
    flooded: FloodedArm, stranger: zmq.Socket[bytes], kind: Flood
) -> None:
    draw, clock = seeded(3), MonotonicClock()
    for _ in range(MESSAGES):
        stranger.send_multipart(no_message(kind, draw))
    deadline_ns = clock.now_ns() + EVENTUALLY_NS
    while flooded.server.status.malformed < MESSAGES and clock.now_ns() < deadline_ns:
        before = flooded.server.status.malformed
        flooded.turn()
        assert flooded.server.status.malformed - before <= REQUESTS_PER_TURN

    assert flooded.server.status.malformed == MESSAGES
    result = must_go_on(flooded.trace.since(0))
    assert (result.wrong, result.late) == (None, None)


def test_who_sends_a_huge_message_is_hung_up_on_and_the_arm_goes_on(
    flooded: FloodedArm, stranger: zmq.Socket[bytes]
) -> None:
    with stranger.get_monitor_socket(zmq.EVENT_DISCONNECTED) as monitor:
        stranger.send_multipart(no_message("huge", seeded(0)))
        clock = MonotonicClock()
        deadline_ns = clock.now_ns() + EVENTUALLY_NS
        while not monitor.poll(0) and clock.now_ns() < deadline_ns:
            flooded.turn()

        assert monitor.poll(0)
        stranger.disable_monitor()
    for _ in range(2 * PERIOD_MS):
        flooded.turn()
    assert flooded.trace.since(0).sequence == [State.RUN]
