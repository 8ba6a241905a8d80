"""Signals at real commands, sent once a process has come so far, end them quietly.

`/proc` tells how far: whether the handlers stand, which library is loaded, whether workers run.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.waiting import eventually

Progress = Callable[[int], bool]
"""Tells whether the process of this number has come so far."""
FAR_S = 60
ALLOWED = re.compile(r"(drawing |trials |episodes |ticks |stopped with |them$|.*continues$)")
"""Lines on standard error about the progress of a command and its kept results."""


def handlers_stand(process: int) -> bool:
    """Check that SIGTERM is caught, which Python itself does not do."""
    status = Path(f"/proc/{process}/status").read_text()
    caught = re.search(r"^SigCgt:\s*(\w+)$", status, re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


def loaded(library: str) -> Progress:
    """Return a check that a library is loaded."""
    return lambda process: library in Path(f"/proc/{process}/maps").read_text()


def workers_run(process: int) -> bool:
    """Check that worker processes were started."""
    return len(children_of(process)) >= 3  # Two, and the tracker of semaphores.


def children_of(process: int) -> list[int]:
    found = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for path in found for child in path.read_text().split()]


def start(arguments: list[str], folder: Path, *before: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*before, sys.executable, "-P", "-m", "gatort", *arguments],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end(
    process: subprocess.Popen[str], progress: Progress, number: signal.Signals
) -> tuple[int, list[str]]:
    """Send the whole process group a signal, as a terminal does, once it has come so far.

    Returns the exit status, and the lines on standard error but those that are allowed.
    """
    try:
        eventually(lambda: process.poll() is not None or progress(process.pid))
        os.killpg(process.pid, number)
        _, text = process.communicate(timeout=FAR_S)
    finally:
        process.kill()
        process.wait()
    lines = [line.rstrip() for line in text.splitlines()]
    return process.returncode, [line for line in lines if line and not ALLOWED.match(line)]


@pytest.mark.parametrize("command", ["run", "robot", "trials", "parity", "faults", "doctor"])
def test_ctrl_c_is_quiet_as_soon_as_the_command_line_starts(command: str, tmp_path: Path) -> None:
    arguments = [command, "mujoco"] if command == "robot" else [command]
    assert end(start(arguments, tmp_path), handlers_stand, signal.SIGINT) == (130, [])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "progress"),
    [
        (["run"], loaded("_multiarray_umath")),
        (["run", "--engine", "onnx"], loaded("onnxruntime_pybind11")),
        (["run"], loaded("libmujoco")),
        (["parity"], loaded("libtorch")),
        (["demos", "demos", "--workers", "2"], workers_run),
        (["profile"], lambda process: bool(children_of(process))),
    ],
    ids=["numpy", "onnxruntime", "mujoco", "torch", "demos", "profile"],
)
def test_ctrl_c_is_quiet_at_any_time(
    arguments: list[str], progress: Progress, tmp_path: Path
) -> None:
    assert end(start(arguments, tmp_path), progress, signal.SIGINT) == (130, [])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    ("arguments", "progress"),
    [
        (["robot", "mujoco", "--bind", "tcp://127.0.0.1:0"], loaded("libmujoco")),
        (["trials", "--workers", "2"], workers_run),
    ],
    ids=["robot", "trials"],
)
def test_each_signal_ends_a_command_quietly_with_its_own_status(
    arguments: list[str], progress: Progress, number: signal.Signals, tmp_path: Path
) -> None:
    assert end(start(arguments, tmp_path), progress, number) == (128 + number, [])


@pytest.mark.slow
def test_ctrl_c_is_quiet_while_matplotlib_loads(tmp_path: Path) -> None:
    run = start(["run", "--seconds", "0.1", "--until", "time"], tmp_path)
    assert end(run, loaded("ft2font"), signal.SIGINT) == (130, [])


@pytest.mark.slow
def test_trials_as_the_first_process_of_a_container_end_at_sigterm(tmp_path: Path) -> None:
    container = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*container, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make a PID namespace")
    outside = start(["trials", "--workers", "2"], tmp_path, *container)
    try:
        eventually(lambda: any(workers_run(child) for child in children_of(outside.pid)))
        (first,) = children_of(outside.pid)
        os.kill(first, signal.SIGTERM)
        assert outside.wait(FAR_S) == 143
    finally:
        outside.kill()
        outside.communicate()
