"""A controller in a process of its own: `gatort run` on an arm of the bench."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .judging import Deviation

GATORT = (sys.executable, "-P", "-m", "gatort")
END_S = 60.0
"""Longest time that a run may take to end and to write its report."""


@dataclass(frozen=True, slots=True)
class RunProcess:
    """A running `gatort run`."""

    process: subprocess.Popen[bytes]
    folder: Path
    """Directory of its report run.json, its recording run.mcap and its output."""

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self.process.poll() is None

    @property
    def said(self) -> str:
        """Output so far."""
        return (self.folder / "log").read_text(errors="replace")

    @property
    def recording(self) -> Path:
        """File of its recording."""
        return self.folder / "run.mcap"

    def losses(self) -> Deviation:
        """Return the misses and refused ticks of a run, once it has ended."""
        report: dict[str, Any] = json.loads((self.folder / "run.json").read_text())
        misses, refused = report["misses"], report["refused"]
        if misses or refused:
            return Deviation(late=f"misses {misses}, refused ticks {refused}")
        return Deviation()


@contextmanager
def running(
    endpoint: str,
    folder: Path,
    *,
    options: Sequence[str] = (),
    environment: dict[str, str] | None = None,
    terminal: int | None = None,
) -> Iterator[RunProcess]:
    """Run `gatort run` on an arm until the `with` block ends.

    Args:
        endpoint: address of the arm.
        folder: directory to make for its files.
        options: more options of `gatort run`.
        environment: additional environment variables.
        terminal: descriptor of a terminal that gets its output instead of a file.
    """
    folder.mkdir()
    command = [*GATORT, "run", "--profile", "realtime"]
    command += ["--threads", "1"] if "--demo" not in options else []
    command += ["--robot", endpoint, "--arm", "--until", "time", "--seconds", "60"]
    command += ["--json", f"{folder}/run.json", "--plot", f"{folder}/run.png"]
    command += ["--record", f"{folder}/run.mcap", *options]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log if terminal is None else terminal,
            stderr=log,
            env={**os.environ, **(environment or {})},
        )
    run = RunProcess(process, folder)
    try:
        yield run
    finally:
        if run.alive:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.wait()


def children(pid: int) -> list[int]:
    """Return the processes that a process started."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in found]


def limit_files(pid: int, largest_bytes: int) -> None:
    """Let the files of a process grow no further, as a full disk does."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (largest_bytes, largest_bytes))
