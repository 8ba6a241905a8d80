"""Finished trials on disk, so that trials that are stopped go on where they were."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from pydantic import ValidationError

from gatort.policies.loading import PolicyOptions
from gatort.runtime.bundle import Manifest
from gatort.runtime.errors import ConfigError
from gatort.runtime.machine import this_machine
from gatort.runtime.spec import Strict

from .options import HOME


class Trial(Strict):
    """One finished trial."""

    seed: int
    succeeded: bool
    seconds: float
    """On the robot's side."""
    ticks: int
    """Those that ran, refused ones included."""
    refusal: str | None
    """The sentence of its last refused tick."""
    refused: int
    """Ticks that sent nothing."""
    dropped: int
    """Commands that the robot did not take, nearly always because they came late."""
    lost: int
    """Commands that never reached the robot."""
    policy_us: tuple[int, ...]
    """Wall-clock time of the policy's part of every tick. µs"""


class Journal:
    """Trials that are finished, one JSON line each, in a file named by a hash of what they were run with.

    That is the policy, its options, the code of robot and runtime, and the versions of what computes.
    """

    def __init__(self, report: Path, manifest: Manifest, options: PolicyOptions) -> None:
        ingredients = hashlib.sha256()
        ingredients.update(manifest.model_dump_json(exclude={"success"}).encode())
        ingredients.update(options.model_dump_json(exclude={"bundle"}).encode())
        ingredients.update(str(this_machine().versions).encode())
        for source in _sources():
            ingredients.update(source.read_bytes())
        self.path = report.with_name(f"{report.stem}.{ingredients.hexdigest()[:12]}.partial.jsonl")

    def read(self) -> list[Trial]:
        """Trials written so far; a last line that was cut short is forgotten."""
        if not self.path.exists():
            return []
        written = self.path.read_bytes()
        whole = written[: written.rfind(b"\n") + 1]
        if len(whole) < len(written):
            os.truncate(self.path, len(whole))
        try:
            return [Trial.model_validate_json(line) for line in whole.splitlines()]
        except ValidationError as error:
            raise ConfigError(
                f"{self.path} is not a list of trials; remove it to start again"
            ) from error

    def append(self, trial: Trial) -> None:
        """Add a trial; what was written before is never touched."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(trial.model_dump_json() + "\n")


def _sources() -> list[Path]:
    """Files that decide how a trial goes."""
    folders = (HOME / "runtime", HOME / "sim")
    return sorted(
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.suffix in (".py", ".c", ".xml")
    )
