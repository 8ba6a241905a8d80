"""The judgement of traces: each forbidden one is caught, and a real inner loop passes."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from gatort.faults.trace import Excerpt, Trace
from gatort.runtime.clock import VirtualClock
from gatort.runtime.remote.robot_socket import RobotSocket
from gatort.runtime.remote.server import RobotServer
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.safety import Command, State
from gatort.runtime.spec import PolicySpec

MS = 1_000_000
START_MS = 1_000


def written(path: Path, spec: PolicySpec, steps: Iterable[tuple[State, float]]) -> Excerpt:
    """A trace of one step a millisecond with the same value on each of three joints."""
    trace = Trace(path, spec)
    for index, (state, value) in enumerate(steps):
        at_ns = (START_MS + index) * MS
        trace.add(at_ns, at_ns, state, np.full(3, value))
    return Trace(path, spec).since(0)


def stopping(values: Iterable[float]) -> list[tuple[State, float]]:
    return [
        (State.RUN, 1.0),
        *((State.SAFE, value) for value in values),
        (State.LATCHED, 0.0),
        (State.LATCHED, 0.0),
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trace"


def test_what_one_process_writes_another_reads(path: Path, spec: PolicySpec) -> None:
    steps = written(path, spec, [(State.RUN, 1.0), (State.RUN, 2.0), (State.HOLD, 2.0)])
    assert steps.sequence == [State.RUN, State.HOLD]
    assert steps.values[:, 0].tolist() == [1, 2, 2]
    assert steps.first(State.HOLD) == (START_MS + 2) * MS
    assert steps.first(State.SAFE) is None
    assert Trace(path, spec).newest is State.HOLD


def test_a_part_of_a_trace_begins_and_ends_where_it_is_asked_to(
    path: Path, spec: PolicySpec
) -> None:
    steps = written(path, spec, [(State.RUN, 0.0)] * 10)
    part = steps.since((START_MS + 2) * MS).until((START_MS + 5) * MS)
    assert part.taken_ns.tolist() == [(START_MS + each) * MS for each in (2, 3, 4)]


def test_the_safe_command_is_in_effect_from_the_last_step_that_was_away_from_it(
    path: Path, spec: PolicySpec
) -> None:
    steps = written(path, spec, stopping([0.9, 0.5, 0.1]))
    assert steps.fault() is None
    assert steps.safe_ns == (START_MS + 4) * MS


def test_an_arm_that_never_latched_was_never_safe(path: Path, spec: PolicySpec) -> None:
    assert written(path, spec, [(State.RUN, 1.0), (State.SAFE, 0.5)]).safe_ns is None


@pytest.mark.parametrize(
    ("steps", "sentence"),
    [
        ([(State.RUN, 30.0), (State.RUN, 31.0)], "out of its range"),
        ([(State.RUN, 0.0), (State.RUN, 1.1)], "faster than its rate"),
        (stopping([0.9, 0.5, 0.6, 0.1]), "away from the safe command"),
        ([*stopping([0.5]), (State.RUN, 0.0)], "left SAFE or LATCHED"),
        ([*stopping([0.5]), (State.LATCHED, 0.5)], "away from the safe command"),
    ],
)
def test_what_no_trace_may_show_is_said(
    path: Path, spec: PolicySpec, steps: list[tuple[State, float]], sentence: str
) -> None:
    assert sentence in (written(path, spec, steps).fault() or "")


def test_the_trace_of_a_real_inner_loop_has_no_fault(path: Path, spec: PolicySpec) -> None:
    clock = VirtualClock(START_MS * MS)
    robot, trace = ScriptedRobot(spec, clock), Trace(path, spec)
    robot.on_step = lambda at_ns, state, values: trace.add(at_ns, at_ns, state, values)
    robot.arm()
    effect_ns = clock.now_ns() + 25 * MS
    robot.command(Command(1, 1, effect_ns, 60 * MS, np.full(3, 12.0)))
    clock.advance_ns(300 * MS)
    robot.observe()
    steps = trace.since(0)
    assert steps.fault() is None
    assert steps.sequence == [State.RUN, State.HOLD, State.SAFE, State.LATCHED]
    assert steps.first(State.SAFE) == effect_ns + 95 * MS
    assert steps.safe_ns == effect_ns + 135 * MS


def test_a_stop_that_an_arm_behind_its_time_is_asked_for_acts_once_it_has_caught_up(
    path: Path, spec: PolicySpec
) -> None:
    clock = VirtualClock(START_MS * MS)
    robot, trace = ScriptedRobot(spec, clock), Trace(path, spec)
    robot.on_step = lambda at_ns, state, values: trace.add(at_ns, at_ns, state, values)
    server = RobotServer(
        robot, clock, RobotSocket("tcp://127.0.0.1:0"), name="scripted", simulated=True
    )
    with closing(server):
        robot.arm()
        robot.command(Command(1, 1, clock.now_ns() + 25 * MS, 60 * MS, np.full(3, 30.0)))
        clock.advance_ns(30 * MS)
        server.turn()
        clock.advance_ns(
            20 * MS
        )  # No step was taken for so long, and the torque rises all the while.
        server.stop("a key")
        server.turn()
        clock.advance_ns(100 * MS)
        server.turn()
    steps = trace.since(0)
    assert steps.fault() is None
    assert steps.sequence == [State.RUN, State.SAFE, State.LATCHED]
    assert steps.values[:, 0].max() == pytest.approx(25, abs=1)
