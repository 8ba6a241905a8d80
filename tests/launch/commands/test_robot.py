"""`gatort robot` and `gatort run --robot tcp://…` as two processes, and what either makes of the other's end."""

from __future__ import annotations

import json
import os
import pty
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gatort.launch import cli
from gatort.launch.commands import robot as launch_robot
from gatort.launch.commands.robot import RobotOptions
from gatort.runtime.clock import MonotonicClock
from gatort.runtime.errors import (
    ObservationError,
    RobotError,
)
from gatort.runtime.recording.reader import Recording
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.remote.client import RemoteRobot
from gatort.runtime.remote.keys import (
    RobotKeys,
    make_keys,
)
from gatort.runtime.remote.server import RobotServer
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.safety import (
    STOPPED,
    State,
)
from gatort.runtime.spec import PolicySpec
from gatort.sim import graphics
from gatort.sim.simulators.mujoco import MujocoRobot

MS = 1_000_000
LONGEST_WAIT_NS = 30_000 * MS
ATTEMPTS = 3
GATORT = [sys.executable, "-c", "import sys; from gatort.launch.cli import main; sys.exit(main())"]


@pytest.fixture(autouse=True)
def in_an_empty_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


class Process:
    """A command of gatort's whose output goes into a file."""

    def __init__(self, name: str, *arguments: str, stdin: int = subprocess.DEVNULL) -> None:
        self.output = Path(name)
        with self.output.open("wb") as file:
            self.process = subprocess.Popen(
                [*GATORT, *arguments], stdin=stdin, stdout=file, stderr=subprocess.STDOUT
            )

    @property
    def text(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def wait_for(self, pattern: str, while_running: Process | None = None) -> re.Match[str]:
        """Wait until it has printed this; it, or another process, must not end before."""
        clock, running = MonotonicClock(), while_running or self
        deadline_ns = clock.now_ns() + LONGEST_WAIT_NS
        while (found := re.search(pattern, self.text)) is None:
            assert running.process.poll() is None, running.text
            assert clock.now_ns() < deadline_ns, self.text
            clock.sleep_until_ns(clock.now_ns() + 5 * MS)
        return found

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def status(self) -> int:
        """Wait for its end."""
        return self.process.wait(LONGEST_WAIT_NS * 1e-9)


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    running: list[Process] = []

    def begin(name: str, *arguments: str, **options: Any) -> Process:
        running.append(Process(name, *arguments, **options))
        return running[-1]

    yield begin
    for each in running:
        with suppress(ProcessLookupError):
            each.process.send_signal(signal.SIGCONT)
        each.process.kill()
        each.process.wait()


Start = Callable[..., Process]


@contextmanager
def ignored(number: signal.Signals) -> Iterator[None]:
    """What is started meanwhile begins with the signal ignored."""
    handler = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, handler)


def start_robot(start: Start, *arguments: str, **options: Any) -> tuple[Process, str]:
    robot = start(
        "robot.log", "robot", "mujoco", "--bind", "tcp://127.0.0.1:0", *arguments, **options
    )
    return robot, robot.wait_for(r"mujoco at (tcp://[\d.:]+), (plain|keyed), disarmed\n")[1]


def start_controller(start: Start, endpoint: str, *arguments: str) -> Process:
    return start(
        "controller.log",
        "run",
        "--robot",
        endpoint,
        "--arm",
        "--until",
        "time",
        "--seconds",
        "60",
        *arguments,
    )


# -- Two processes ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_with_keys_stack_a_block(start: Start) -> None:
    make_keys(Path("keys"))
    robot, endpoint = start_robot(start, "--keys", "keys", "--realtime")
    flags = ("--arm", "--keys", "keys", "--json", "r.json")
    # A crowded machine may be late twice in a row, and is stopped; an operator would try again.
    statuses = (
        start("controller.log", "run", "--robot", endpoint, *flags).status()
        for _ in range(ATTEMPTS)
    )
    assert 0 in statuses
    record = json.loads(Path("r.json").read_text())
    assert record["succeeded"]
    assert record["wire"]["successes"] == 1
    assert record["wire"]["robot"] == "mujoco"
    assert record["wire"]["round_trip_ms"]["p50"] < record["wire"]["round_trip_ms"]["max"]
    robot.send(signal.SIGTERM)
    assert robot.status() == 0
    assert "latched" in robot.text


@pytest.mark.slow
def test_after_a_success_the_blocks_are_laid_out_anew_while_the_arm_goes_on(start: Start) -> None:
    robot, endpoint = start_robot(start, "--again")
    for _ in range(ATTEMPTS):  # See above.
        controller = start_controller(start, endpoint, "--json", "r.json")
        with suppress(AssertionError):
            robot.wait_for(r"successes: [2-9]", while_running=controller)
            break
    controller.send(signal.SIGTERM)
    assert controller.status() == 130
    assert json.loads(Path("r.json").read_text())["wire"]["successes"] >= 1


@pytest.mark.slow
def test_the_end_of_the_controller_and_the_loss_of_its_console_stop_the_arm(start: Start) -> None:
    robot, endpoint = start_robot(start, "--record", "steps.mcap")
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with ignored(signal.SIGINT):  # As a script's background jobs begin.
            controller = start_controller(start, endpoint)
        robot.wait_for(r"run, controlled(?![^$]*latched, free)")
        controller.send(ending)
        assert controller.status() == 130, controller.text
        robot.wait_for("latched, free[^\n]*\n$")
    robot.send(signal.SIGINT)
    assert robot.status() == 0
    states = Recording(Path("steps.mcap")).steps().states
    ends = [before for before, after in pairwise(states) if before != after == State.SAFE]
    # It was told, and did not have to find out; a signal may have come while a crowded machine held.
    assert len(ends) == 3
    assert ends.count(State.RUN) >= 2


@pytest.mark.slow
def test_a_controller_that_is_suspended_finds_the_arm_latched_and_sends_no_burst(
    start: Start,
) -> None:
    robot, endpoint = start_robot(start, "--record", "steps.mcap")
    controller = start_controller(start, endpoint)
    robot.wait_for("run, controlled")
    controller.send(signal.SIGSTOP)
    robot.wait_for("latched, controlled")
    controller.send(signal.SIGCONT)
    assert controller.status() == 1, controller.text
    assert "stopped in" in controller.text
    robot.send(signal.SIGTERM)
    assert robot.status() == 0
    states = Recording(Path("steps.mcap")).steps().states
    assert states[-1] == State.LATCHED
    latched = states.index(State.LATCHED)
    assert set(states[latched:]) == {
        State.LATCHED
    }  # Nothing that was left over has armed or moved it.


@pytest.mark.slow
def test_a_robot_that_is_killed_ends_the_run_with_its_reason(start: Start) -> None:
    robot, endpoint = start_robot(start)
    controller = start_controller(start, endpoint, "--json", "r.json")
    robot.wait_for("run, controlled")
    robot.send(signal.SIGKILL)
    assert controller.status() == 1
    record = json.loads(Path("r.json").read_text())
    assert record["failure"].endswith(
        "the robot hung up; its process has ended or the network is broken)"
    )
    assert record["stopped"]


@pytest.mark.slow
def test_a_robot_that_comes_back_is_disarmed_and_can_be_driven(start: Start) -> None:
    robot, endpoint = start_robot(start)
    robot.send(signal.SIGKILL)
    robot.status()
    again = start("again.log", "robot", "mujoco", "--bind", endpoint)
    again.wait_for(r"disarmed\n")
    controller = start_controller(start, endpoint)
    again.wait_for("run, controlled")
    controller.send(signal.SIGTERM)
    assert controller.status() == 130


def test_pictures_cross_the_wire(start: Start) -> None:
    if graphics.choose_gl() is None:
        pytest.skip(graphics.INSTALL_HINT)
    _, endpoint = start_robot(start, "--interface", "gato")
    with closing(RemoteRobot(endpoint, MonotonicClock())) as robot:
        seen = next(several_observations(robot))
    assert [value.shape for value in seen[:2]] == [(128, 128, 3)] * 2
    assert all(value.std() > 0 for value in seen[:2])


def several_observations(robot: RemoteRobot) -> Iterator[tuple[Any, ...]]:
    """Those that come in time: the first picture of all takes longer than an action delay."""
    for _ in range(100):
        with suppress(ObservationError):
            yield robot.observe().values


# -- kill -9 while a block is in the air -----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_controller_killed_while_it_carries_a_block_leaves_it_safe_in_the_hand(
    start: Start,
) -> None:
    make_keys(Path("keys"))
    clock = MonotonicClock()
    with closing(MujocoRobot(clock, 5000)) as robot:
        keys = RobotKeys.load(Path("keys"))
        server = RobotServer(
            robot, clock, "tcp://127.0.0.1:0", name="mujoco", simulated=True, keys=keys
        )
        with closing(server):
            controller = start_controller(start, server.endpoint, "--keys", "keys")
            turn_until(server, clock, lambda: red_m(robot)[2] > 0.08)
            controller.send(signal.SIGKILL)
            turn_until(server, clock, lambda: robot.state in STOPPED)
            stopped_ns = clock.now_ns()
            carried_m, last_command_ns = red_from_tool_m(robot), robot.inner_loop._effect_ns
            speeds_m_s = [turned(server, robot) for _ in range(1_000)]
    assert stopped_ns - last_command_ns <= 100 * MS
    assert robot.state is State.LATCHED
    assert np.linalg.norm(red_from_tool_m(robot) - carried_m) < 0.01  # The hand has it still.
    assert (
        max(speeds_m_s) < 1.0
    )  # Carried, it goes at half of that; from where it is it would fall at 1.25 m/s.
    assert (
        speeds_m_s[-1] < max(speeds_m_s) / 4
    )  # Joint damping brings the arm to rest, 20 to 30 cm farther on.


def turn_until(server: RobotServer, clock: MonotonicClock, true: Callable[[], bool]) -> None:
    deadline_ns = clock.now_ns() + LONGEST_WAIT_NS
    while not true():
        assert clock.now_ns() < deadline_ns
        server.turn()


def turned(server: RobotServer, robot: MujocoRobot) -> float:
    server.turn()
    return float(np.linalg.norm(robot.data.body("red").cvel[3:]))


def red_m(robot: MujocoRobot) -> np.ndarray[Any, np.dtype[np.float64]]:
    return robot.data.body("red").xpos.copy()


def red_from_tool_m(robot: MujocoRobot) -> np.ndarray[Any, np.dtype[np.float64]]:
    return red_m(robot) - robot.data.site("tool").xpos


# -- Consent ---------------------------------------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(arguments) == 2
    return capsys.readouterr().err


def test_without_consent_nothing_is_even_connected(capsys: pytest.CaptureFixture[str]) -> None:
    sentence = refused(capsys, "run", "--robot", "tcp://127.0.0.1:1")
    assert "moves an arm: consent with --arm, or run it on a terminal to be asked" in sentence


def test_a_robot_elsewhere_is_neither_watched_in_a_window_nor_filmed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for flag in (("--viewer",), ("--video", "run.mp4")):
        sentence = refused(capsys, "run", "--robot", "tcp://127.0.0.1:1", "--arm", *flag)
        assert "--viewer and --video show a robot that is simulated in this process" in sentence


def test_a_policy_that_the_robot_does_not_suit_is_refused_by_the_key_s_name_and_nothing_moves(
    start: Start, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["spec"]["observations"][0]["unit"] = "deg"
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    robot, endpoint = start_robot(start)
    sentence = refused(capsys, "run", "--bundle", str(bundle), "--robot", endpoint, "--arm")
    assert (
        "observation key 'arm/joint_position': the policy expects unit deg, the robot has rad"
        in sentence
    )
    robot.wait_for("disarmed, free")
    assert "run," not in robot.text


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        with suppress(OSError):
            os.close(theirs)


@pytest.mark.parametrize(
    ("answer", "status"), [(b"n\n", 2), (b"\x04", 2), (b"y\n", 0)], ids=["no", "Ctrl-D", "yes"]
)
def test_on_a_terminal_the_operator_is_asked(start: Start, answer: bytes, status: int) -> None:
    robot, endpoint = start_robot(start)
    with terminal() as (ours, theirs):
        controller = start(
            "controller.log", "run", "--robot", endpoint, "--seconds", "0.2", stdin=theirs
        )
        controller.wait_for("will move. Arm it")
        assert "run," not in robot.text
        os.write(ours, answer)
        assert controller.status() == status, controller.text
    robot.wait_for(r"run, controlled" if status == 0 else "disarmed, free")


# -- The robot's own side --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_signal_stops_the_arm_and_no_controller_arms_it_until_another_allows_it(
    start: Start,
) -> None:
    robot, endpoint = start_robot(start)
    controller = start_controller(start, endpoint)
    robot.wait_for("run, controlled")
    robot.send(signal.SIGUSR1)
    assert controller.status() == 1, controller.text
    text = " ".join(controller.text.split())
    assert re.search(
        r"stopped in (safe|latched) \(by the robot: its watchdog, or the operator beside it", text
    )
    again = start_controller(start, endpoint, "--record", "again.mcap")
    assert again.status() == 2
    assert "only its console allows arming again" in again.text
    outcome = Recording(Path("again.mcap")).outcome
    assert outcome is not None
    assert outcome.result.startswith("nothing ran: ")
    robot.send(signal.SIGUSR2)
    robot.wait_for("latched, free")
    start_controller(start, endpoint)
    robot.wait_for(r"(?s)latched, free.*run, controlled")


@pytest.mark.parametrize("end", [b"\x03", b"\x1c"], ids=["Ctrl-C", "Ctrl-backslash"])
def test_keys_on_the_robot_s_terminal_stop_it_and_allow_arming_again(end: bytes) -> None:
    child, terminal_ = pty.fork()
    if child == 0:  # A process of its own in the terminal's foreground.
        os.execv(  # noqa: S606 it replaces the fork of this process
            sys.executable, [*GATORT, "robot", "mujoco", "--bind", "tcp://127.0.0.1:0"]
        )
    try:
        read_until(terminal_, rb"disarmed\r\n")
        os.write(terminal_, b" ")
        read_until(terminal_, rb"stopped here, `a` allows arming")
        os.write(terminal_, b"a")
        read_until(terminal_, rb"disarmed, free")
        os.write(terminal_, b"\x1a")  # Ctrl-Z, which would suspend the watchdog with the process.
        read_until(terminal_, rb"stopped here, `a` allows arming")
        os.write(terminal_, b"a")
        read_until(terminal_, rb"disarmed, free")
        os.write(terminal_, b"\n")
        read_until(terminal_, rb"stopped here, `a` allows arming")
        os.write(terminal_, end)  # Which the terminal turns into the signal.
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        os.close(terminal_)


def read_until(descriptor: int, pattern: bytes) -> bytes:
    text = b""
    while not re.search(pattern, text):
        text += os.read(descriptor, 4096)
    return text


def test_no_signal_of_a_terminal_suspends_the_robot_s_process(start: Start) -> None:
    robot, _ = start_robot(start)
    robot.send(signal.SIGTSTP)
    robot.wait_for("stopped here")
    robot.send(signal.SIGTTIN)
    robot.send(signal.SIGTTOU)
    robot.send(signal.SIGUSR2)
    robot.wait_for("(?s)stopped here.*disarmed, free")


def test_every_connection_that_the_system_allows_may_be_open(start: Start) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        robot, _ = start_robot(start)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert resource.prlimit(robot.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)


def test_the_arm_is_let_go_of_before_its_recording_is_finished(
    monkeypatch: pytest.MonkeyPatch, spec: PolicySpec
) -> None:
    order: list[str] = []

    class FailingArm(ScriptedRobot):
        def advance(self) -> None:
            raise RobotError("joint 3 hit the table")

        def close(self) -> None:
            order.append("arm")

    class LateRecorder(Recorder):
        def close(self, result: str | None = None) -> None:
            order.append("recording")
            super().close(result)

    monkeypatch.setattr(launch_robot, "Recorder", LateRecorder)
    clock = MonotonicClock()
    options = RobotOptions(bind="tcp://127.0.0.1:0", record=Path("steps.mcap"))
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        with pytest.raises(RobotError, match="joint 3 hit the table"):
            launch_robot.serve("mujoco", FailingArm(spec, clock), clock, options)
    assert order[:2] == ["arm", "recording"]


def test_a_terminal_that_is_lost_ends_the_robot_s_process(start: Start) -> None:
    robot, _ = start_robot(start)
    robot.send(signal.SIGHUP)
    assert robot.status() == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("--bind", "tcp://*:5555"),
            "tcp://*:5555 is beyond this machine, where nothing is spoken without keys",
        ),
        (
            ("--bind", "5555"),
            "expected an address such as tcp://127.0.0.1:5555 (IPv4 or a name), found '5555'",
        ),
        (("--keys", "."), "robot.key: expected a secret key, found none that can be read"),
        (("--safe-after-ms", "201"), "expected 50 ms (one period) to 200 ms, found 201 ms"),
        (("--loss", "2"), "loss: input should be less than or equal to 1"),
        (("--record", "nowhere/steps.mcap"), "there is no directory nowhere"),
    ],
)
def test_a_robot_that_cannot_be_started_as_asked_says_why(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], sentence: str
) -> None:
    assert sentence in refused(capsys, "robot", "mujoco", *arguments)


def test_a_bad_link_is_for_a_simulated_arm(capsys: pytest.CaptureFixture[str]) -> None:
    sentence = refused(capsys, "robot", "franka", "--loss", "0.1")
    assert "a bad link is for a simulated arm: expected none of --delay-ms" in sentence
    assert 'found {"loss":0.1}' in sentence


@pytest.mark.parametrize("arm", ["pybullet", "franka"])
def test_cameras_are_mujoco_s(capsys: pytest.CaptureFixture[str], arm: str) -> None:
    sentence = refused(capsys, "robot", arm, "--interface", "camera")
    assert f"expected --interface stack for {arm}, found camera" in sentence


def test_keys_are_for_a_robot_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--keys are for a robot at tcp://HOST:PORT: mujoco is simulated" in refused(
        capsys, "run", "--keys", "k"
    )


def test_an_address_in_use_costs_no_recording(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    _, endpoint = start_robot(start)
    Path("steps.mcap").write_bytes(b"what was recorded before")
    sentence = refused(capsys, "robot", "mujoco", "--bind", endpoint, "--record", "steps.mcap")
    assert f"cannot listen on {endpoint}: Address already in use" in sentence
    assert Path("steps.mcap").read_bytes() == b"what was recorded before"


def test_keys_are_made_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["keys", "pair"]) == 0
    assert (
        capsys.readouterr().out.split("\n")[0]
        == "pair/robot.key (secret: it stays on its own host)"
    )
    assert sorted(path.name for path in Path("pair").iterdir()) == [
        *("controller.key", "controller.pub", "robot.key", "robot.pub")
    ]
    assert "none is replaced" in refused(capsys, "keys", "pair")
