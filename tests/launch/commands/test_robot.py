"""`gatort robot`: an arm in a process of its own, and `gatort run` or a controller that drives it.

Tests of motion run in this process, on a virtual clock. Tests of processes assert only eventual
states. Their arms stop 200 ms after the last command, and a controller here has a slow clock.
"""

from __future__ import annotations

import json
import os
import pty
import re
import resource
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.launch.conftest import published

from gatort.launch import cli
from gatort.launch.commands import robot as launch_robot
from gatort.launch.robot_options import RobotOptions
from gatort.runtime.clock import MonotonicClock, VirtualClock
from gatort.runtime.errors import ObservationError, RobotError
from gatort.runtime.facts import Fact
from gatort.runtime.remote.client import RemoteRobot
from gatort.runtime.remote.console import BURST_NS
from gatort.runtime.remote.memory import MemoryRobotTransport
from gatort.runtime.remote.server import RobotServer
from gatort.runtime.remote.trial_keeper import TrialKeeper
from gatort.runtime.robots.kinematics import tool_pose
from gatort.runtime.robots.panda import HOME_RAD
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.safety import Command, State
from gatort.runtime.spec import PolicySpec
from gatort.sim import graphics

MS = 1_000_000
PERIOD_NS = 50 * MS
LONGEST_WAIT_NS = 60_000 * MS
SLOWER = 20
SHIPPED = Path(cli.__file__).parents[1] / "policies" / "stack"
GATORT = [sys.executable, "-m", "gatort"]


@pytest.fixture(autouse=True)
def in_an_empty_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


# -- An arm in this process, on a virtual clock ------------------------------------------------


class Desk:
    """The arm of `gatort robot mujoco`, its server, and a scripted expert that drives it."""

    def __init__(self, **options: Any) -> None:
        self.options = RobotOptions(**options)
        self.clock = VirtualClock(1_000 * MS)
        self.arm = launch_robot._simulated_arm("mujoco", self.options, self.clock)
        self.link = MemoryRobotTransport(self.clock)
        self.trials = TrialKeeper(
            self.arm, self.clock, launch_robot._next_layout(self.arm, self.options.seed)
        )
        self.server = RobotServer(
            self.arm, self.clock, self.link, name="mujoco", simulated=True, trials=self.trials
        )
        self.robot = RemoteRobot(
            "memory", self.clock, transport=self.link.connect(self.server.turn)
        )

    def pass_ms(self, duration_ms: int) -> None:
        for _ in range(duration_ms):
            self.server.turn()

    def drive_until(self, true: Callable[[], bool], longest_ticks: int = 600) -> None:
        """Let the expert act, 20 times a second, until a condition is true."""
        for _ in range(longest_ticks):
            if true():
                return
            next_ns = self.clock.now_ns() + PERIOD_NS
            observation = self.robot.observe()
            at_ns = observation.stamp_ns + self.robot.interface.action_delay_ns
            values = self.arm.expert_action()
            sequence = observation.sequence
            self.robot.command(Command(sequence, sequence, at_ns, 60 * MS, values))
            while self.clock.now_ns() < next_ns:
                self.server.turn()
        raise AssertionError("it never became true")

    @property
    def red_m(self) -> np.ndarray:
        return self.arm.simulator.data.body("red").xpos.copy()

    @property
    def red_from_tool_m(self) -> np.ndarray:
        return self.red_m - self.arm.simulator.data.site("tool").xpos

    @property
    def red_speed_m_s(self) -> float:
        return float(np.linalg.norm(self.arm.simulator.data.body("red").cvel[3:]))


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    with closing(desk.arm):
        yield desk


def test_after_a_success_the_blocks_are_laid_out_anew_while_the_arm_goes_on(desk: Desk) -> None:
    first = desk.arm.layout
    desk.robot.arm()
    desk.drive_until(lambda: desk.trials.successes == 1)
    assert desk.arm.layout != first
    joints_rad = desk.arm.simulator.data.qpos[:7].copy()
    desk.drive_until(lambda: desk.robot.succeeded)
    assert (
        np.abs(desk.arm.simulator.data.qpos[:7] - joints_rad).max() < 0.5
    )  # The arm stays where it was.
    assert desk.robot.state is State.RUN
    assert (desk.robot.successes, desk.trials.given_up) == (1, 0)


def test_a_controller_lost_while_it_carries_a_block_leaves_the_block_safe_in_the_hand(
    desk: Desk,
) -> None:
    desk.robot.arm()
    desk.drive_until(lambda: desk.red_m[2] > 0.08)
    carried_m = desk.red_from_tool_m
    desk.robot.close()
    speeds_m_s = []
    for _ in range(1_000):
        desk.pass_ms(1)
        speeds_m_s.append(desk.red_speed_m_s)
    assert desk.arm.state is State.LATCHED
    assert np.linalg.norm(desk.red_from_tool_m - carried_m) < 0.01  # The hand still holds it.
    # The carried block moves at half of that. Let fall from its height it would reach 1.25 m/s.
    assert max(speeds_m_s) < 1.0
    # Joint damping brings the arm to rest, 20 to 30 cm farther on.
    assert speeds_m_s[-1] < max(speeds_m_s) / 4


def test_pictures_cross_the_wire() -> None:
    if graphics.choose_gl() is None:
        pytest.skip(graphics.INSTALL_HINT)
    desk = Desk(interface="gato")
    with closing(desk.arm):
        seen = desk.robot.observe().values
    assert [value.shape for value in seen[:2]] == [(128, 128, 3)] * 2
    assert all(value.std() > 0 for value in seen[:2])


# -- Processes ---------------------------------------------------------------------------------


class Process:
    """A command of gatort's whose output goes into a file."""

    def __init__(self, output: Path, *arguments: str, stdin: int = subprocess.DEVNULL) -> None:
        self.output = output
        with self.output.open("wb") as file:
            self.process = subprocess.Popen(
                [*GATORT, *arguments], stdin=stdin, stdout=file, stderr=subprocess.STDOUT
            )

    @property
    def text(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def wait_for(self, pattern: str, after: int = 0) -> re.Match[str]:
        """Wait until the output matches a pattern, from a position on. The process must not end."""
        clock = MonotonicClock()
        deadline_ns = clock.now_ns() + LONGEST_WAIT_NS
        while (found := re.search(pattern, self.text[after:])) is None:
            assert self.process.poll() is None, self.text
            assert clock.now_ns() < deadline_ns, self.text
            clock.sleep_until_ns(clock.now_ns() + 5 * MS)
        return found

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def status(self) -> int:
        """Wait for the end and return the exit status."""
        return self.process.wait(LONGEST_WAIT_NS * 1e-9)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


Start = Callable[..., Process]
PATIENT = ("--safe-after-ms", "200")
"""An arm that a busy machine does not stop: its controller may be silent for 200 ms."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[Process] = []

    def begin(*arguments: str, **options: Any) -> Process:
        running.append(Process(tmp_path / f"{len(running)}.log", *arguments, **options))
        return running[-1]

    yield begin
    for each in running:
        each.kill()


def start_robot(start: Start, *arguments: str, bind: str = "tcp://127.0.0.1:0") -> Process:
    return start("robot", "mujoco", "--bind", bind, *PATIENT, *arguments)


def endpoint_of(robot: Process) -> str:
    return robot.wait_for(r"mujoco at (tcp://[\d.:]+), plain, disarmed\n")[1]


def start_controller(start: Start, endpoint: str, *arguments: str, **options: Any) -> Process:
    return start("run", "--robot", endpoint, "--until", "time", *arguments, **options)


@pytest.fixture(scope="module")
def shared_robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A robot's process for all tests that leave it running and disarmed or latched."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    log = tmp_path_factory.mktemp("robot") / "robot.log"
    try:
        robot = Process(log, "robot", "mujoco", "--bind", "tcp://127.0.0.1:0", *PATIENT)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    yield robot
    robot.kill()


def door_of(robot: Process) -> int:
    """Identity of the process that talks to controllers."""
    children = Path(f"/proc/{robot.process.pid}/task/{robot.process.pid}/children")
    return int(children.read_text().split()[0])


def maps_libzmq(pid: int) -> bool:
    return "zmq" in Path(f"/proc/{pid}/maps").read_text()


def network_sockets(pid: int) -> set[str]:
    """Return the inodes of a process's TCP sockets."""
    links = [str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()]
    held = {link.removeprefix("socket:[")[:-1] for link in links if link.startswith("socket:")}
    table = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    return held & {line.split()[9] for line in table}


class SlowClock(MonotonicClock):
    """A clock on which 20 seconds are one, so that no time-out of a controller is ever reached."""

    def now_ns(self) -> int:
        return super().now_ns() // SLOWER


@contextmanager
def controller(endpoint: str) -> Iterator[RemoteRobot]:
    with closing(RemoteRobot(endpoint, SlowClock())) as robot:
        yield robot


def wait_until(robot: RemoteRobot, *states: State) -> None:
    """Observe until the robot is in one of these states."""
    clock = MonotonicClock()
    deadline_ns = clock.now_ns() + LONGEST_WAIT_NS
    while robot.state not in states:
        assert clock.now_ns() < deadline_ns, robot.state
        with suppress(ObservationError):
            robot.observe()


def test_a_signal_stops_the_arm_and_no_controller_arms_it_until_another_allows_it(
    shared_robot: Process,
) -> None:
    with controller(endpoint_of(shared_robot)) as robot:
        robot.arm()
        wait_until(robot, State.LATCHED)  # Nothing was commanded.
        shared_robot.send(signal.SIGUSR1)
        shared_robot.wait_for(r"stopped here, \[a Enter\] allows arming")
        with pytest.raises(RobotError, match="only its console allows arming again"):
            robot.arm()
        before = len(shared_robot.text)
        shared_robot.send(signal.SIGUSR2)
        shared_robot.wait_for(r"latched, controlled \(", before)
        robot.arm()
        wait_until(robot, State.LATCHED)
    shared_robot.wait_for(r"latched, free \(no command for 200 ms\)", before)


def test_an_arm_that_refuses_is_neither_asked_for_nor_recorded(
    shared_robot: Process, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint = endpoint_of(shared_robot)
    before = len(shared_robot.text)
    shared_robot.send(signal.SIGUSR1)
    shared_robot.wait_for("stopped here", before)
    assert cli.main(["run", "--demo", "hold", "--robot", endpoint, "--arm"]) == 2
    printed = capsys.readouterr()
    refusal = "refuses: stopped on the robot's own side: only its console allows arm"
    assert refusal in printed.err
    assert "look before the arm moves" not in printed.out
    assert not list(Path().rglob("*.mcap"))
    shared_robot.send(signal.SIGUSR2)
    shared_robot.wait_for("(?s)stopped here.*, free", before)


def test_no_signal_of_a_terminal_suspends_the_robots_process(shared_robot: Process) -> None:
    endpoint_of(shared_robot)
    before = len(shared_robot.text)
    shared_robot.send(signal.SIGTSTP)
    shared_robot.wait_for("stopped here", before)
    shared_robot.send(signal.SIGTTIN)
    shared_robot.send(signal.SIGTTOU)
    shared_robot.send(signal.SIGUSR2)
    shared_robot.wait_for("(?s)stopped here.*, free", before)


def test_as_many_connections_as_the_system_allows_may_be_open(shared_robot: Process) -> None:
    endpoint_of(shared_robot)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert resource.prlimit(door_of(shared_robot), resource.RLIMIT_NOFILE) == (hard, hard)


def test_only_the_door_holds_a_network_library_and_network_sockets(shared_robot: Process) -> None:
    endpoint = endpoint_of(shared_robot)
    arm, door = shared_robot.process.pid, door_of(shared_robot)
    with controller(endpoint) as robot:
        robot.observe()
        assert (maps_libzmq(arm), maps_libzmq(door)) == (False, True)
        assert not network_sockets(arm)
        assert network_sockets(door)


def test_a_policy_that_the_robot_does_not_suit_is_refused_by_the_keys_name_and_nothing_moves(
    shared_robot: Process, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = Path("bundle")
    bundle.mkdir()
    for name in ("model.safetensors", "policy.onnx"):
        (bundle / name).write_bytes((SHIPPED / name).read_bytes())
    manifest = json.loads((SHIPPED / "manifest.json").read_text())
    manifest["spec"]["observations"][0]["unit"] = "deg"
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    endpoint = endpoint_of(shared_robot)
    before = len(shared_robot.text)
    sentence = refused(capsys, "run", "--bundle", str(bundle), "--robot", endpoint, "--arm")
    assert "observation key 'arm/joint_position': the policy expects unit deg" in sentence
    shared_robot.wait_for(", free", before)
    assert "run," not in shared_robot.text[before:]


def test_an_address_in_use_costs_no_recording(
    shared_robot: Process, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint = endpoint_of(shared_robot)
    sentence = refused(capsys, "robot", "mujoco", "--bind", endpoint, "--record", "steps.mcap")
    assert f"cannot listen on {endpoint}: Address already in use" in sentence
    assert not Path("steps.mcap").exists()
    Path("steps.mcap").write_bytes(b"an earlier recording")
    sentence = refused(capsys, "robot", "mujoco", "--record", "steps.mcap")
    assert "--record steps.mcap: expected a new file" in sentence
    assert Path("steps.mcap").read_bytes() == b"an earlier recording"


def test_a_dry_run_asks_for_no_consent_and_never_arms_the_robot(
    shared_robot: Process, start: Start
) -> None:
    endpoint = endpoint_of(shared_robot)
    before = len(shared_robot.text)
    dry = start_controller(start, endpoint, "--dry-run", "--seconds", "0.5", "--demo", "wave")
    dry.process.wait(LONGEST_WAIT_NS * 1e-9)
    assert re.search("dry run after|dry run, ", dry.text), dry.text
    assert "will move. Arm it" not in dry.text
    assert "ok  arm" in dry.text
    shared_robot.wait_for(", free", before)
    assert "run, controlled" not in shared_robot.text[before:]


def cube_at(*place_m: float) -> dict[str, list[float]]:
    return {"pose/red": [*place_m, 1.0, 0.0, 0.0, 0.0], "edge/red": [0.05]}


def test_a_cube_on_the_way_home_is_refused_before_consent_and_before_the_arm_is_armed(
    shared_robot: Process, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint = endpoint_of(shared_robot)
    before = len(shared_robot.text)
    home = ["run", "--demo", "home", "--robot", endpoint]
    tool_m = tool_pose(HOME_RAD)[0].tolist()
    with published(cube_at(*tool_m)) as address:
        assert cli.main([*home, "--sensor", address, "--arm"]) == 2
        printed = capsys.readouterr()
        assert "--demo home: expected 30 mm between arm and cube red, found " in printed.err
        assert "clear the cube red away, or guide the arm away by hand" in printed.err
        assert "look before the arm moves" not in printed.out
        assert not list(Path().rglob("*.mcap"))
        assert cli.main([*home, "--sensor", address, "--dry-run", "--seconds", "0.1"]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "! way home blocked" in shown
    assert "ok pose/red edge 50 mm, at 0.4" in shown
    with published({"pose/red": [0.4, 0.4, 0.025, 1.0, 0.0, 0.0, 0.0]}) as address:
        cli.main([*home, "--sensor", address, "--dry-run", "--seconds", "0.1"])
    shown = " ".join(capsys.readouterr().out.split())
    # The simulated arm's block keys tell red and blue. The published cube has no size.
    assert "ok way home free of table and 2 known cubes" in shown
    assert "let the sensor publish edge/red" in shown
    shared_robot.wait_for(", free", before)
    assert "run," not in shared_robot.text[before:]


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        with suppress(OSError):
            os.close(theirs)


@pytest.mark.parametrize("answer", [b"\x04", b"y\n"], ids=["Ctrl-D", "yes"])
def test_on_a_terminal_the_operator_is_asked(
    shared_robot: Process, start: Start, answer: bytes
) -> None:
    endpoint = endpoint_of(shared_robot)
    before = len(shared_robot.text)
    with terminal() as (ours, theirs):
        asking = start_controller(start, endpoint, "--seconds", "0.1", stdin=theirs)
        asking.wait_for("will move. Arm it")
        assert re.search(r"^ok +state +(disarmed *$|latched \()", asking.text, re.MULTILINE)
        assert "run," not in shared_robot.text[before:]
        os.write(ours, answer)
        status = asking.status()
    # With consent the run begins. A busy machine may end it in another way.
    assert ("not armed" in asking.text) == (answer != b"y\n"), asking.text
    assert status == 2 or answer == b"y\n"
    shared_robot.wait_for(", free", before)


def test_a_cube_that_comes_while_the_operator_is_asked_is_refused_after_consent(
    shared_robot: Process, start: Start
) -> None:
    endpoint = endpoint_of(shared_robot)
    before = len(shared_robot.text)
    values = cube_at(0.4, 0.4, 0.025)
    with published(values) as address, terminal() as (ours, theirs):
        home = ("--demo", "home", "--sensor", address, "--seconds", "0.1")
        asking = start_controller(start, endpoint, *home, stdin=theirs)
        asking.wait_for("will move. Arm it")
        assert re.search(r"^ok +way home +free of table", asking.text, re.MULTILINE)
        values.update(cube_at(*tool_pose(HOME_RAD)[0].tolist()))
        clock = MonotonicClock()
        clock.sleep_until_ns(clock.now_ns() + 100 * MS)  # Ten messages with the new place.
        os.write(ours, b"y\n")
        status = asking.status()
    assert status == 2
    assert "--demo home: expected 30 mm between arm and cube red, found " in asking.text
    shared_robot.wait_for(", free", before)
    assert "run," not in shared_robot.text[before:]


def start_run(start: Start, robot: Process) -> Process:
    """Start `gatort run` and wait until it has armed the robot, or has given up."""
    before = len(robot.text)
    run = start_controller(start, endpoint_of(robot), "--arm", "--seconds", "600")
    clock = MonotonicClock()
    deadline_ns = clock.now_ns() + LONGEST_WAIT_NS
    while run.process.poll() is None and "run, controlled" not in robot.text[before:]:
        assert clock.now_ns() < deadline_ns, run.text
        clock.sleep_until_ns(clock.now_ns() + 5 * MS)
    return run


# A machine that is too slow for 20 ticks a second ends a run by itself, with status 1 or 2.


@pytest.mark.slow
def test_a_run_that_a_signal_ends_leaves_the_robot_free(
    shared_robot: Process, start: Start
) -> None:
    endpoint_of(shared_robot)
    before = len(shared_robot.text)
    run = start_run(start, shared_robot)
    run.send(signal.SIGTERM)
    assert run.status() in (143, 1, 2), run.text
    shared_robot.wait_for("(latched|disarmed), free[^\n]*\n$", before)


@pytest.mark.slow
def test_a_robot_that_is_killed_ends_the_run_and_comes_back_disarmed(start: Start) -> None:
    robot = start_robot(start)
    endpoint = endpoint_of(robot)
    run = start_run(start, robot)
    robot.send(signal.SIGKILL)
    assert run.status() in (1, 2), run.text

    again = start_robot(start, bind=endpoint)
    endpoint_of(again)
    with controller(endpoint) as robot_again:
        assert robot_again.state is State.DISARMED
        robot_again.arm()
        assert robot_again.observe().sequence == 1
    again.send(signal.SIGHUP)
    assert again.status() == 129
    assert "latched" in again.text


@contextmanager
def robot_on_a_terminal() -> Iterator[tuple[int, int]]:
    """A robot's process in the foreground of a terminal: its identity and the terminal."""
    child, terminal_ = pty.fork()
    if child == 0:  # A process of its own in the terminal's foreground.
        os.execv(  # noqa: S606  # it replaces the fork of this process
            sys.executable, [*GATORT, "robot", "mujoco", "--bind", "tcp://127.0.0.1:0"]
        )
    try:
        read_until(terminal_, rb"disarmed\r\n")
        yield child, terminal_
        os.write(terminal_, b"\x03")  # The terminal turns Ctrl-C into a signal.
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
    finally:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
        os.close(terminal_)


def test_a_recording_that_fails_is_told_at_once_and_stays_in_the_status(start: Start) -> None:
    robot = start_robot(start, "--record", "/dev/full")
    endpoint_of(robot)
    robot.wait_for("recording DEGRADED: /dev/full is incomplete: .*No space left on device")
    robot.send(signal.SIGUSR1)
    robot.wait_for("stopped here, .*; recording DEGRADED\n")


def type_key(terminal_: int, key: bytes) -> None:
    """Write a key as a person does: apart from others."""
    clock = MonotonicClock()
    clock.sleep_until_ns(clock.now_ns() + 2 * BURST_NS)
    os.write(terminal_, key)


def test_keys_on_the_robots_terminal_stop_it_and_allow_arming_again() -> None:
    with robot_on_a_terminal() as (_, terminal_):
        for stop in (b" ", b"\x1a", b"\n"):  # Ctrl-Z would suspend the watchdog with the process.
            type_key(terminal_, stop)
            read_until(terminal_, rb"stopped here, \[a Enter\] allows arming")
            type_key(terminal_, b"a")
            type_key(terminal_, b"\n")
            read_until(terminal_, rb"DISARMED.*, free")


def test_a_simulated_arms_terminal_refuses_to_call_the_task_done_and_says_why() -> None:
    with robot_on_a_terminal() as (_, terminal_):
        type_key(terminal_, b"s")
        read_until(terminal_, rb"\[s\] not counted: the simulated task tells itself")


def test_a_terminal_of_another_session_gives_no_keys_and_ends_nothing() -> None:
    terminal_, inside = pty.openpty()
    command = [*GATORT, "robot", "mujoco", "--bind", "tcp://127.0.0.1:0"]
    with subprocess.Popen(
        command, stdin=inside, stdout=subprocess.PIPE, start_new_session=True
    ) as robot:
        os.close(inside)
        assert robot.stdout is not None
        assert b"disarmed" in robot.stdout.readline()
        robot.send_signal(signal.SIGINT)
        robot.stdout.read()
        assert robot.wait() == 130
    os.close(terminal_)


def test_a_pasted_key_never_lifts_an_operators_stop() -> None:
    with robot_on_a_terminal() as (_, terminal_):
        type_key(terminal_, b" ")
        read_until(terminal_, rb"stopped here")
        type_key(terminal_, b"a\n")
        type_key(terminal_, b"a")
        os.write(terminal_, b"a\n")
        # The keys of a person come afterwards, and are the first that lift the stop.
        type_key(terminal_, b"a")
        type_key(terminal_, b"\n")
        text = read_until(terminal_, rb"DISARMED.*, free")
        assert text.count(b", free") == 1


def test_the_status_is_one_line_that_is_redrawn_in_place_and_fits_80_columns() -> None:
    with robot_on_a_terminal() as (_, terminal_):
        termios.tcsetwinsize(terminal_, (24, 80))
        for _ in range(3):
            type_key(terminal_, b" ")
            drawn = read_until(terminal_, rb"stopped here[^\r]*$")
            type_key(terminal_, b"a")
            type_key(terminal_, b"\n")
            drawn += read_until(terminal_, rb"DISARMED.*, free[^\r]*$")
            assert b"\n" not in drawn
            lines = re.sub(rb"\x1b\[[0-9;]*[A-Za-z]", b"", drawn).split(b"\r")
            assert all(len(line.decode(errors="replace")) <= 80 for line in lines)


def read_until(descriptor: int, pattern: bytes) -> bytes:
    text = b""
    while not re.search(pattern, text):
        text += os.read(descriptor, 4096)
    return text


# -- Refusals ----------------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(arguments) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("--bind", "tcp://*:5555"),
            "tcp://*:5555 reaches beyond this machine, which requires keys",
        ),
        (
            ("--bind", "5555"),
            "expected an address such as tcp://127.0.0.1:5555 (IPv4 or a name), found '5555'",
        ),
        (("--keys", "."), "robot.key: expected a secret key, found none"),
        (("--safe-after-ms", "201"), "expected at most 200, found"),
        (("--loss", "2"), "--loss: expected at most 1, found '2'"),
        (("--record", "nowhere/steps.mcap"), "there is no directory nowhere"),
    ],
)
def test_a_robot_that_cannot_be_started_as_asked_says_why(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], sentence: str
) -> None:
    assert sentence in refused(capsys, "robot", "mujoco", *arguments)


def test_the_facts_of_an_arm_are_printed_in_80_columns_with_their_marks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], spec: PolicySpec
) -> None:
    class TellingArm(ScriptedRobot):
        facts = (Fact("limits", "a word " * 20), Fact("load", "0 kg", "Desk knows of 0.4 kg"))

    arm = TellingArm(spec, VirtualClock())
    monkeypatch.setattr(launch_robot, "_real_arm", lambda *_: arm)
    monkeypatch.setattr(launch_robot, "serve", lambda *_, **__: 0)
    assert cli.main(["robot", "franka"]) == 0
    printed = capsys.readouterr().err.splitlines()
    assert max(map(len, printed)) <= 80
    assert [line.split()[:2] for line in printed if line[:1] in "o!"][:2] == [
        ["ok", "limits"],
        ["!", "load"],
    ]


def test_a_bad_link_is_for_a_simulated_arm(capsys: pytest.CaptureFixture[str]) -> None:
    sentence = refused(capsys, "robot", "franka", "--loss", "0.1")
    assert "a bad link is for a simulated arm: expected none of --delay-ms" in sentence
    assert 'found {"loss":0.1}' in sentence


def test_new_layouts_are_for_a_simulated_arm(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--again lays out simulated blocks" in refused(capsys, "robot", "franka", "--again")


def test_a_real_arm_has_no_interface_of_a_task(capsys: pytest.CaptureFixture[str]) -> None:
    sentence = refused(capsys, "robot", "franka", "--interface", "camera")
    assert "--interface is for a simulated arm: leave it out for franka, found camera" in sentence


def test_without_consent_no_robot_is_even_connected(capsys: pytest.CaptureFixture[str]) -> None:
    sentence = refused(capsys, "run", "--robot", "tcp://127.0.0.1:1")
    assert "moves an arm: consent with --arm, or run it on a terminal to be asked" in sentence


@pytest.mark.parametrize("flag", [("--viewer",), ("--video", "run.mp4")], ids=["viewer", "video"])
def test_a_robot_elsewhere_is_neither_watched_in_a_window_nor_filmed(
    capsys: pytest.CaptureFixture[str], flag: tuple[str, ...]
) -> None:
    sentence = refused(capsys, "run", "--robot", "tcp://127.0.0.1:1", "--arm", *flag)
    assert "--viewer and --video show a robot that is simulated in this process" in sentence


def test_keys_are_for_a_robot_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--keys are for a robot at tcp://HOST:PORT: mujoco is simulated" in refused(
        capsys, "run", "--keys", "k"
    )


def test_keys_are_made_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["keys", "pair"]) == 0
    assert "  pair/robot.key (secret)\n" in capsys.readouterr().out
    assert sorted(path.name for path in Path("pair").iterdir()) == [
        *("controller.key", "controller.pub", "robot.key", "robot.pub")
    ]
    assert "keys are never replaced" in refused(capsys, "keys", "pair")
