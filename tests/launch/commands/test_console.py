"""`gatort run --console` and `gatort console`: real processes, and a client for a browser."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.console.visitor import Visitor, heard

from gatort.faults.run_process import children
from gatort.launch import cli

pytest.importorskip("starlette")

LONGEST_S = 60
HOLD = ["run", "--demo", "hold", "--seconds", "60", "--json", "r.json", "--console"]


@pytest.fixture(autouse=True)
def in_an_empty_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@contextmanager
def gatort(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], Visitor]]:
    """Run a command with a console; yield its process and a visitor that has entered."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "gatort", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = next(
            found[1]
            for line in process.stdout
            if (found := re.search(r"console: (http://\S+)", line)) is not None
        )
        visitor = Visitor(url)
        assert visitor.enter() == 204
        yield process, visitor
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return the exit status and the rest of the output."""
    output, _ = process.communicate(timeout=LONGEST_S)
    return process.returncode, " ".join(output.split())


def report() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("r.json").read_text())
    return found


@pytest.mark.slow
def test_stop_on_a_page_ends_a_run_as_ctrl_c_does() -> None:
    with gatort(*HOLD) as (process, visitor), visitor.live() as stream:
        opening = heard(stream, lambda news: "opening" in news)["opening"]
        assert opening["title"] == "demo hold, mujoco"
        news = heard(stream, lambda news: bool(news.get("ticks")))
        assert len(news["ticks"][0]["asked"]) == len(opening["actuators"])
        stream.send("stop")
        last = heard(stream, lambda news: "the run ended" in str(news.get("events")))
        assert last["status"]["state"] in ("safe", "latched")
        status, output = ended(process)
    assert status == 128 + signal.SIGINT
    assert "stopped by the operator (Stop on page 1 of the console, 127.0.0.1)" in output
    assert (report()["interrupted"], report()["console"]["dropped"]) == (True, 0)
    assert "Stop on page 1" in report()["console"]["stopped_by"]


@pytest.mark.slow
def test_a_run_that_must_be_held_waits_for_a_page_and_ends_with_it() -> None:
    with gatort(*HOLD, "--stop-when-unwatched") as (process, visitor):
        with visitor.live() as stream:
            assert heard(stream, lambda news: "opening" in news)["opening"]["held"]
            stream.send("hold")
            heard(stream, lambda news: bool(news.get("ticks")))
        status, output = ended(process)
    assert status == 128 + signal.SIGINT
    assert "no page that holds the run was heard for 2 s" in output
    assert "no page" in report()["console"]["stopped_by"]


@pytest.mark.slow
def test_the_pictures_that_the_policy_gets_are_shown(camera_bundle: Path) -> None:
    arguments = ("run", "--bundle", str(camera_bundle), "--console", "--seconds", "60")
    with gatort(*arguments) as (process, visitor), visitor.live() as stream:
        found: dict[str, dict[str, Any]] = {}
        while len(found) < 2:
            news = heard(stream, lambda news: bool(news.get("pictures")))
            found |= {each["name"]: each for each in news["pictures"]}
        for picture in found.values():
            pixels = base64.b64decode(picture["rgb"])
            assert len(pixels) == picture["width"] * picture["height"] * 3
            assert len(set(pixels)) > 10
        process.send_signal(signal.SIGINT)
        ended(process)


@pytest.mark.slow
def test_a_run_goes_on_without_its_console_and_says_so() -> None:
    with gatort(*HOLD[:4], "3", *HOLD[5:]) as (process, visitor), visitor.live() as stream:
        heard(stream, lambda news: bool(news.get("ticks")))
        [console] = [
            each
            for each in children(process.pid)
            if Path(f"/proc/{each}/comm").read_text().strip() == "gatort-console"
        ]
        os.kill(console, signal.SIGKILL)
        status, output = ended(process)
    assert status == 0
    assert "the console's process ended before the run did" in output
    assert report()["ticks"] == 60
    assert report()["console"]["dropped"] > 0


@pytest.mark.slow
def test_stop_at_a_robot_is_its_own_button_and_can_be_pressed_again() -> None:
    arguments = ("robot", "mujoco", "--bind", "tcp://127.0.0.1:0", "--console")
    with gatort(*arguments) as (process, visitor), visitor.live() as stream:
        opening = heard(stream, lambda news: "opening" in news)["opening"]
        assert (opening["kind"], opening["stages"]) == ("robot", [])
        news = heard(stream, lambda news: bool(news.get("ticks")))
        assert len(news["ticks"][0]["applied"]) == len(opening["actuators"])
        assert ["arming", "a controller may arm it", ""] in news["status"]["facts"]
        for _ in range(2):
            stream.send("stop")
            heard(stream, lambda news: "stopped here" in str(news.get("status")))
            process.send_signal(signal.SIGUSR2)  # The operator allows arming again.
            heard(stream, lambda news: "may arm it" in str(news.get("status")))
        process.send_signal(signal.SIGTERM)
        assert ended(process)[0] == 128 + signal.SIGTERM


@pytest.mark.slow
def test_finished_runs_are_shown_until_a_signal() -> None:
    Path("runs").mkdir()
    with gatort("console", "runs") as (process, visitor):
        assert json.loads(visitor.ask("GET", "/runs.json")[2]) == []
        process.send_signal(signal.SIGINT)
        assert ended(process)[0] == 128 + signal.SIGINT


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--listen", "127.0.0.1:0"], "--listen"),
        (["--stop-when-unwatched"], "--stop-when-unwatched"),
        (["--console", "--listen", "0.0.0.0:80"], "expected one address of this computer"),
        (["--console", "--listen", "robot:80"], "expected the IP address of this computer"),
    ],
)
def test_flags_of_a_console_that_cannot_be_are_refused(
    flags: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", "--demo", "hold", *flags]) == 2
    assert sentence in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["console", "absent"]) == 2
    assert "expected a folder with finished runs" in capsys.readouterr().err


def test_an_absent_package_is_named_with_its_install_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = lambda package: None if package == "uvicorn" else "1"  # noqa: E731
    monkeypatch.setattr("gatort.runtime.packages.installed_version", absent)
    assert cli.main(["run", "--demo", "hold", "--console"]) == 2
    assert "pip install 'gatort[console]'" in " ".join(capsys.readouterr().err.split())
