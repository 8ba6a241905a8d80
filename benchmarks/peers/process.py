"""An engine in a process of its own, driven over its standard input and output."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from work import Precision, Run, Settings

SCRIPT = str(Path(__file__).with_name("measure.py"))
# Each engine sets its number of threads; PyTorch's spin a moment and then sleep, as they should.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}


class Process:
    """Process with one loaded engine."""

    def __init__(
        self, python: str, engine: str, folder: Path, precision: Precision, settings: Settings
    ) -> None:
        self.engine, self.settings = engine, settings
        self._log = (folder / f"{engine}-{precision}.log").open("w")
        command = [python, SCRIPT, engine, "serve", str(folder), precision, json.dumps(settings)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=ENVIRONMENT,
        )

    @staticmethod
    def choices(python: str, engine: str, folder: Path, precision: Precision) -> list[Settings]:
        """Return the settings that the engine's module names."""
        command = [python, SCRIPT, engine, "choices", str(folder), precision]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT)
        settings: list[Settings] = _answer(done.stdout.splitlines())
        return settings

    def time(self, prefill: int, seconds: float) -> Run:
        """Run one turn and return its results.

        Raises:
            SystemExit: the process ended; its log holds the reason.
        """
        assert self._process.stdin is not None  # noqa: S101 both are pipes
        assert self._process.stdout is not None  # noqa: S101
        print(prefill, seconds, file=self._process.stdin, flush=True)
        for line in self._process.stdout:
            if line.startswith("ANSWER"):
                return Run(**_answer([line]))
        raise SystemExit(f"{self.engine} ended without an answer: see {self._log.name}")

    def end(self) -> None:
        """End the process."""
        self._process.communicate()
        self._log.close()


def prepare(python: str, engine: str, folder: Path, precision: Precision) -> None:
    """Let the engine convert the checkpoint.

    Raises:
        SystemExit: the engine could not.
    """
    command = [python, SCRIPT, engine, "prepare", str(folder), precision]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=ENVIRONMENT)
    if done.returncode:
        raise SystemExit(f"{engine} could not prepare {precision}:\n{done.stderr}")


def _answer(lines: list[str]) -> Any:
    return json.loads(
        next(line for line in lines if line.startswith("ANSWER")).removeprefix("ANSWER")
    )
