"""`gatort serve`: its refusals, and a run with one robot that is there and one that is not."""

from __future__ import annotations

import ast
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from gatort.faults.arm_process import ConsoleProcess
from gatort.launch import cli
from gatort.launch.commands import serve as command
from gatort.policies.loading import SHIPPED_BUNDLE
from gatort.runtime.exit_status import ExitStatus
from gatort.runtime.fleet import Fleet, Member

NOBODY = "tcp://127.0.0.1:1"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "expected --robots tcp://HOST:PORT, once for each robot, found none"),
        (["--robots", NOBODY], "1 robot would move: consent with --arm"),
        (["--robots", "mujoco", "--arm"], "--robots: expected an address such as tcp://"),
        (["--robots", NOBODY, "--robots", NOBODY, "--arm"], "expected each address once"),
        (["--robots", NOBODY, "--arm", "--engine", "tensorrt"], "--threads has no effect"),
        (["--robots", "tcp://192.0.2.1:5555", "--arm"], "requires keys"),
        (["--robots", NOBODY, "--arm", "--seconds", "0"], "--seconds: expected"),
    ],
)
def test_a_fleet_that_cannot_be_served_is_refused_in_one_sentence(
    flags: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = ["--threads", "2"] if "tensorrt" in flags else []
    assert cli.main(["serve", *flags, *threads]) == ExitStatus.REFUSED
    found = capsys.readouterr().err
    assert found.count("\n") == 1
    assert sentence in found


@pytest.mark.parametrize("answer", ["n", "", "yess"])
def test_no_robot_is_armed_without_a_yes(
    answer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: answer)
    assert cli.main(["serve", "--robots", NOBODY]) == ExitStatus.REFUSED
    assert "no robot was armed: answer y to arm" in capsys.readouterr().err


def test_a_number_on_the_terminal_arms_that_robot(monkeypatch: pytest.MonkeyPatch) -> None:
    armed: list[int] = []

    class Named(Member):
        def __init__(self, number: int) -> None:
            self.number = number

        def arm(self) -> None:
            armed.append(self.number)

    fleet = Fleet([Named(1), Named(2)])
    for typed in ("2\n", "0\n", "3\n", "two\n", "\n"):
        command.take_number(fleet, typed)
    assert armed == [2]


ONE_LINE = """
import os, sys
from gatort.launch.commands import serve
os.open(sys.argv[1], os.O_RDWR)  # A session takes the first terminal that it opens.
if len(sys.argv) > 2:
    serve.is_in_the_foreground = lambda _: False
print(repr(serve._wait_for_line(float(sys.argv[-1]) if len(sys.argv) > 2 else 60)))
"""


@pytest.mark.parametrize(
    ("typed", "options", "line"),
    [
        (b"2\n", [], "2\n"),
        (b"1\n2\n", [], ""),  # pasted
        (b"1\x04", [], ""),  # Ctrl-D before Enter
        (b"\x04", [], ""),
        (b"2\n", ["0.1"], ""),  # In the background, reading would suspend the process.
    ],
)
def test_only_one_whole_line_is_read_from_the_terminal(
    typed: bytes, options: list[str], line: str
) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, typed)
    try:
        found = subprocess.run(
            [sys.executable, "-c", ONE_LINE, os.ttyname(theirs), *options],
            stdin=theirs,
            capture_output=True,
            start_new_session=True,
            check=True,
            timeout=60,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert ast.literal_eval(found.stdout.decode()) == line


def test_the_robot_that_is_there_is_driven_and_the_one_that_is_not_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arm = ConsoleProcess(
        [sys.executable, "-P", "-m", "gatort", "robot", "mujoco", "--bind", "tcp://127.0.0.1:0"],
        tmp_path / "log",
    )
    report, recordings = tmp_path / "fleet.json", tmp_path / "recordings"
    flags = ["--bundle", str(SHIPPED_BUNDLE), "--seconds", "3", "--arm", "--engine", "onnx"]
    flags += ["--robots", arm.endpoint, "--robots", NOBODY]
    try:
        status = cli.main(["serve", *flags, "--json", str(report), "--recordings", str(recordings)])
    finally:
        arm.close()
    assert status == ExitStatus.NEGATIVE  # One robot is away.
    shown = capsys.readouterr().out
    assert f"{arm.endpoint} run" in shown
    assert f"{NOBODY} away: {NOBODY}: no robot listens there" in shown

    present, absent = json.loads(report.read_text())["robots"]
    assert (present["robot"], present["name"]) == (arm.endpoint, "mujoco")
    assert present["ticks"] > 0
    assert (absent["state"], absent["ticks"]) == (None, 0)

    (recording,) = recordings.iterdir()
    assert present["recordings"] == [
        {"file": str(recording), "complete": True, "degraded": None, "dropped": 0}
    ]
    assert absent["recordings"] == []
    assert cli.main(["replay", str(recording)]) == ExitStatus.DONE
    assert "tokens are equal" in capsys.readouterr().out
