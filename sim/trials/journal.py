"""Finished trials on disk, so that a series of trials continues after an interruption."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ValidationError

from gatort.runtime.bundle import Manifest
from gatort.runtime.errors import ConfigError
from gatort.runtime.machine import this_machine
from gatort.runtime.outputs import one_writer, unwritable
from gatort.runtime.regular_file import read_regular
from gatort.runtime.spec import Strict

JOURNAL: Final = ".partial.jsonl"
"""End of a journal's name."""
MOST_BYTES: Final = 1 << 30


class Trial(Strict):
    """One finished trial."""

    seed: int
    """Seed of the layout."""
    succeeded: bool
    """True if the task succeeded and the robot did not fail."""
    seconds: float
    """Duration on the robot's side. s"""
    ticks: int
    """Number of ticks that ran, refused ones included."""
    refusal: str | None
    """Sentence of the last refused tick, or `None` if no tick was refused."""
    refused: int
    """Number of ticks that sent no command."""
    dropped: int
    """Number of commands that the robot did not apply, nearly always because they came late."""
    lost: int
    """Number of commands that never reached the robot."""
    reached_s: dict[str, float]
    """Time at which the trial came to each stage of its task. s"""
    sparc: float | None
    """Smoothness of the joints' motion: see `gatort.sim.trials.smoothness`."""
    policy_us: tuple[int, ...]
    """Wall-clock time of the policy in every tick. µs"""


class Journal:
    """File of finished trials, one JSON line each.

    The file's name contains a hash of the policy, the options, the code of robot and runtime, and
    the versions of the packages that compute. Trials that would run differently have another file.

    Args:
        report: path of the report; the journal lies beside it.
        manifest: manifest of the policy. Its measured success rate does not count.
        options: options of the trials. A field `bundle` does not count, because the manifest does.
    """

    def __init__(self, report: Path, manifest: Manifest, options: BaseModel) -> None:
        ingredients = hashlib.sha256()
        ingredients.update(manifest.model_dump_json(exclude={"success"}).encode())
        ingredients.update(options.model_dump_json(exclude={"bundle"}).encode())
        ingredients.update(str(this_machine().versions).encode())
        ingredients.update(code_sha256().encode())
        self._stem = report.stem
        self.path = report.with_name(f"{report.stem}.{ingredients.hexdigest()[:12]}{JOURNAL}")
        self.failure: str | None = None
        """Sentence on the reason why trials are not kept, or `None` while they are."""

    def read(self) -> list[Trial]:
        """Return the trials written so far, and cut off a last line that is incomplete.

        Raises:
            ConfigError: the file holds something else.
        """
        if not self.path.exists():
            return []
        written = read_regular(self.path, "a list of trials", ConfigError, MOST_BYTES)
        whole = written[: written.rfind(b"\n") + 1]
        if len(whole) < len(written):
            os.truncate(self.path, len(whole))

        try:
            return [Trial.model_validate_json(line) for line in whole.splitlines()]
        except ValidationError as error:
            raise ConfigError(
                f"{self.path}: expected a list of trials, found other lines; "
                "remove it to start again"
            ) from error

    @property
    def written_s(self) -> float | None:
        """Time of the last trial, in seconds since 1970; `None` before the first."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_mtime if status.st_size else None

    def append(self, trial: Trial) -> None:
        """Add a trial. Earlier lines stay untouched. After a failure no trial is kept any more."""
        if self.failure is not None:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(trial.model_dump_json() + "\n")
        except OSError as error:
            self.failure = unwritable(self.path, error)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the file until the end of the context. An empty one is removed there.

        Raises:
            OutputError: another process runs trials for the same report.
        """
        with ExitStack() as held:
            journals = set(self.path.parent.glob(f"{escape(self._stem)}.*{JOURNAL}"))
            for path in journals:
                held.enter_context(one_writer(path))
            try:
                self.path.open(
                    "a"
                ).close()  # Unlike `touch`, this keeps the time of the last trial.
                if self.path not in journals:
                    held.enter_context(one_writer(self.path))
            except OSError as error:
                self.failure = unwritable(self.path, error)
            try:
                yield
            finally:
                with suppress(FileNotFoundError):
                    if not self.path.stat().st_size:
                        self.path.unlink()


def code_sha256() -> str:
    """Return the hash of gatort's code that decides how a trial goes."""
    ingredients = hashlib.sha256()
    for source in _sources():
        ingredients.update(source.read_bytes())
    return ingredients.hexdigest()


def _sources() -> list[Path]:
    """Return the files that decide how a trial goes."""
    home = Path(__file__).parents[2]
    return sorted(
        path
        for folder in (home / "runtime", home / "sim")
        for path in folder.rglob("*")
        if path.suffix in (".py", ".c", ".xml")
    )
