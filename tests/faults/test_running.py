"""`gatort fault --robot`: faults of a controller, injected into an arm that is running already."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from threading import Thread

import pytest

from gatort.faults import injecting
from gatort.faults.bench import Bench
from gatort.faults.rows import ROWS
from gatort.launch import cli
from gatort.runtime.clock import MonotonicClock
from gatort.runtime.remote.robot_socket import RobotSocket
from gatort.runtime.remote.server import RobotServer
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.safety import State
from gatort.runtime.spec import PolicySpec


@pytest.fixture
def real_arm(spec: PolicySpec) -> Iterator[str]:
    """It says that it is real; nothing moves."""
    clock = MonotonicClock()
    server = RobotServer(
        ScriptedRobot(spec, clock),
        clock,
        RobotSocket("tcp://127.0.0.1:0"),
        name="real",
        simulated=False,
    )

    def serve() -> None:
        with closing(server):
            server.serve()

    thread = Thread(target=serve)
    thread.start()
    yield server.endpoint
    server.end()
    thread.join()


def test_a_fault_of_a_controller_is_injected_into_a_running_arm(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(injecting, "ALONE_NS", 0)
    arm = bench.arm
    began_ns = bench.clock.now_ns()
    # 1 and 3: the arm may also stop too late here, which is for `gatort faults` to judge.
    assert cli.main(["fault", "torque", "inf", "--robot", arm.endpoint]) in (0, 1, 3)
    arm.rest()
    steps = arm.trace.since(began_ns)
    assert steps.sequence.count(State.SAFE) >= 2  # It is injected twice.
    assert steps.sequence[-1] is State.LATCHED


def test_a_real_arm_is_left_alone_unless_forced(
    real_arm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["fault", "policy", "late", "--robot", real_arm]) == 2
    assert "is a real arm: expected --force" in capsys.readouterr().err


def test_faults_inside_the_arm_s_process_are_not_for_a_running_arm(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["fault", "camera", "frozen", "--robot", "tcp://127.0.0.1:1"]) == 2
    assert "leave out --robot" in capsys.readouterr().err


def test_only_faults_of_the_policy_and_its_torques_are_for_a_running_arm() -> None:
    assert {each.component for row in ROWS for each in row.faults if each.anywhere} == {
        "policy",
        "torque",
    }
