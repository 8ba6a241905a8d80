"""The record of a study: its lock, amendments and trials, one JSON line each, never changed.

Each line holds the SHA-256 of the line before it. A line before the last one that was changed,
removed or inserted is therefore found. Somebody who computes the hashes anew is not: quote the
lock's hash before the first trial. The record lies beside the study's file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from gatort.runtime.bundle import MANIFEST_FILE, sha256_of
from gatort.runtime.errors import ConfigError, OutputError
from gatort.runtime.machine import this_machine
from gatort.runtime.outputs import one_writer, unwritable
from gatort.runtime.regular_file import read_regular
from gatort.runtime.spec import Strict
from gatort.runtime.wording import counted
from gatort.sim.trials.journal import code_sha256

from .design import Design
from .schedule import Slot, schedule

ENDING: Final = ".study.jsonl"
"""End of a record's name."""
MOST_BYTES: Final = 1 << 28
FIRST: Final = "0" * 64
"""Hash before the first line."""
FIXED: Final = ("variants", "conditions", "robots", "task", "first_seed", "order_seed", "seconds")
"""Keys of a design that no amendment may change once a trial was run."""


class TrialOutcome(Strict):
    """Figures of one trial."""

    succeeded: bool
    """True if the task succeeded, as the simulated task or a person says."""
    reached_s: dict[str, float | None]
    """Time at which the trial came to each stage of its task, or `None` where a person said it. s
    """
    seconds: float
    """Duration. s"""
    ticks: int
    """Number of ticks that ran, refused ones included."""
    sparc: float | None
    """Smoothness of the joints' motion: see `gatort.sim.trials.smoothness`."""
    refused: int
    """Number of ticks that sent no command."""
    misses: int
    """Number of ticks beyond the budget. A simulated trial waits for its policy and has none."""
    dropped: int
    """Number of commands that the robot did not apply."""
    lost: int
    """Number of commands that never reached the robot."""
    stop: str | None
    """Sentence on the stop or the last refusal, or `None` without one."""


class Locked(Strict):
    """Everything that decides how trials go, as it was when the study was locked or amended."""

    design: Design
    bundles: dict[str, str]
    """SHA-256 of the manifest of each variant's bundle. The manifest has those of its files."""
    code_sha256: str
    """Hash of gatort's code that decides how a trial goes."""
    versions: dict[str, str]
    """Versions of the packages that compute."""

    @classmethod
    def of(cls, design: Design) -> Locked:
        """Take a design together with its bundles and this machine's code.

        Raises:
            BundleError: a bundle has no manifest.
        """
        bundles = {
            name: sha256_of(each.bundle / MANIFEST_FILE) for name, each in design.variants.items()
        }
        versions = dict(this_machine().versions)
        return cls(design=design, bundles=bundles, code_sha256=code_sha256(), versions=versions)

    def differences(self, other: Locked) -> list[str]:
        """Return the names of the parts that differ in another one. Places of bundles may."""
        bundles = [
            f"the bundle of {name}"
            for name in self.bundles.keys() & other.bundles.keys()
            if self.bundles[name] != other.bundles[name]
        ]
        code = ["gatort's code"] if self.code_sha256 != other.code_sha256 else []
        versions = ["versions of packages"] if self.versions != other.versions else []
        return [*changed_keys(self.design, other.design), *sorted(bundles), *code, *versions]


def changed_keys(design: Design, other: Design) -> list[str]:
    """Return the keys of a design that differ in another one. Places of bundles may."""
    places = {"variants": {"__all__": {"bundle"}}}
    mine = design.model_dump(mode="json", exclude=places)
    theirs = other.model_dump(mode="json", exclude=places)
    # As text, because the order of variants and conditions counts, which mappings do not compare.
    return [key for key in mine if json.dumps(mine[key]) != json.dumps(theirs[key])]


class LockEntry(Strict):
    """First line: the study is settled."""

    kind: Literal["lock"] = "lock"
    locked: Locked


class AmendmentEntry(Strict):
    """A later change, with its reason."""

    kind: Literal["amendment"] = "amendment"
    reason: Annotated[str, Field(min_length=1, max_length=2000)]
    changed: tuple[str, ...]
    """Names of the parts that changed."""
    trials: int
    """Number of trials that were run before."""
    locked: Locked


class TrialEntry(Strict):
    """One trial that was run."""

    kind: Literal["trial"] = "trial"
    number: int
    """Number of its slot in the schedule."""
    code: str
    robot: str
    condition: str
    seed: int
    variant: str
    outcome: TrialOutcome | None
    """Figures, or `None` for a void trial, which is run again."""
    void: str | None = None
    """Reason for which the trial does not count, or `None`."""

    def slot(self, block: int) -> Slot:
        """Return the slot of the trial, which lies in the given block."""
        return Slot(
            self.number, block, self.robot, self.condition, self.seed, self.variant, self.code
        )


class Line(Strict):
    """A line of the record."""

    previous: str
    """SHA-256 of the line before it."""
    date: str
    entry: Annotated[LockEntry | AmendmentEntry | TrialEntry, Field(discriminator="kind")]


def record_path(study: Path) -> Path:
    """Return the path of the record beside a study's file."""
    return study.with_name(study.stem + ENDING)


@contextmanager
def held_record(study: Path) -> Iterator[StudyRecord]:
    """Yield the record of a study, to which no other process adds until the end of the context.

    Raises:
        ConfigError: the record holds something else, or a line was changed.
        OutputError: another process holds it, or it cannot be written.
    """
    path = record_path(study)
    try:
        path.touch()
    except OSError as error:
        raise OutputError(unwritable(path, error)) from error
    with one_writer(path):
        try:
            record = StudyRecord(study)
            os.truncate(path, record.size)  # A line that a kill cut short.
            yield record
        finally:
            if not path.stat().st_size:
                path.unlink()


class StudyRecord:
    """A record as it is on disk. To add to it, take it from `held_record`.

    Args:
        study: path of the study's file.

    Raises:
        ConfigError: the record holds something else, or a line was changed.
    """

    def __init__(self, study: Path) -> None:
        self.path = record_path(study)
        self.lines: list[Line] = []
        self.size = 0
        """Size of its whole lines in bytes."""
        self._last = FIRST
        if self.path.exists():
            self._read()

    @property
    def is_locked(self) -> bool:
        """True if the study is settled."""
        return bool(self.lines)

    @property
    def locked(self) -> Locked:
        """State of the study after its newest amendment."""
        return next(
            line.entry.locked
            for line in reversed(self.lines)
            if isinstance(line.entry, LockEntry | AmendmentEntry)
        )

    @property
    def lock_sha256(self) -> str:
        """Hash of the first line, by which a study is quoted."""
        return self.lines[1].previous if len(self.lines) > 1 else self._last

    @property
    def amendments(self) -> list[AmendmentEntry]:
        """Later changes, in their order."""
        return [line.entry for line in self.lines if isinstance(line.entry, AmendmentEntry)]

    @property
    def trials(self) -> list[TrialEntry]:
        """Trials that were run, void ones included."""
        return [line.entry for line in self.lines if isinstance(line.entry, TrialEntry)]

    @property
    def outcomes(self) -> dict[int, TrialOutcome]:
        """Figures of the trials that count, by the number of their slot."""
        return {each.number: each.outcome for each in self.trials if each.outcome is not None}

    def due(self) -> list[Slot]:
        """Return the slots without a trial that counts, in their order."""
        done = self.outcomes
        return [slot for slot in schedule(self.locked.design) if slot.number not in done]

    def lock(self, design: Design) -> None:
        """Settle a study.

        Raises:
            ConfigError: it is settled already.
        """
        if self.is_locked:
            raise ConfigError(
                f"{self.path}: expected a study that is not locked, found one; change it with "
                "`gatort study amend --reason`, or copy its file under another name"
            )
        self._append(LockEntry(locked=Locked.of(design)))

    def require_unchanged(self, design: Design) -> Locked:
        """Check that design, bundles and code are those that were locked, and return them.

        Raises:
            ConfigError: the study is not locked, or something differs.
        """
        if not self.is_locked:
            raise ConfigError(
                f"{self.path}: expected a locked study, found none; run `gatort study lock` first"
            )
        now = Locked.of(design)
        if changed := self.locked.differences(now):
            raise ConfigError(
                f"expected the study as it was locked, found another state of: "
                f"{', '.join(changed)}; put it back, or record the change with "
                "`gatort study amend --reason`"
            )
        return now

    def amend(self, design: Design, reason: str) -> AmendmentEntry:
        """Record a change.

        Raises:
            ConfigError: nothing changed, or trials were run that the change would contradict.
        """
        if not self.is_locked:
            raise ConfigError(f"{self.path}: expected a locked study, found none; nothing to amend")
        now = Locked.of(design)
        changed = self.locked.differences(now)
        if not changed:
            raise ConfigError("expected a change of the study, found the state that was locked")
        run = self.outcomes
        fixed = [name for name in changed if name in FIXED or name.startswith("the bundle of")]
        if run and fixed:
            raise ConfigError(
                f"{fixed[0]}: expected as it was locked, because of {counted(len(run), 'trial')}, "
                "found a change; copy the study's file under another name for a new study"
            )
        if run and max(run) >= design.trials:
            raise ConfigError(
                f"layouts: expected at least those of {counted(len(run), 'trial')}, found "
                f"{design.layouts_per_cell}"
            )
        entry = AmendmentEntry(
            reason=reason, changed=tuple(changed), trials=len(self.trials), locked=now
        )
        self._append(entry)
        return entry

    def add(self, slot: Slot, outcome: TrialOutcome | None, void: str | None = None) -> None:
        """Record a trial.

        Raises:
            OutputError: the record cannot be written.
        """
        self._append(
            TrialEntry(
                number=slot.number,
                code=slot.code,
                robot=slot.robot,
                condition=slot.condition,
                seed=slot.seed,
                variant=slot.variant,
                outcome=outcome,
                void=void,
            )
        )

    def _append(self, entry: LockEntry | AmendmentEntry | TrialEntry) -> None:
        date = datetime.now(UTC).isoformat(timespec="seconds")
        line = Line(previous=self._last, date=date, entry=entry)
        text = line.model_dump_json().encode()
        try:
            with self.path.open("ab") as file:
                file.write(text + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(unwritable(self.path, error)) from error
        self.lines.append(line)
        self._last = hashlib.sha256(text).hexdigest()

    def _read(self) -> None:
        content = read_regular(self.path, "the record of a study", ConfigError, MOST_BYTES)
        whole = content[: content.rfind(b"\n") + 1]  # The rest is being written, or was cut off.
        self.size = len(whole)
        for place, text in enumerate(whole.splitlines(), 1):
            try:
                line = Line.model_validate_json(text)
            except ValidationError as error:
                raise ConfigError(
                    f"{self.path}, line {place}: expected an entry of a study, found another text"
                ) from error
            if line.previous != self._last:
                raise ConfigError(
                    f"{self.path}, line {place}: expected the hash of the line before it, found "
                    "another; a line was changed, removed or inserted"
                )
            self.lines.append(line)
            self._last = hashlib.sha256(text).hexdigest()
        if self.lines and not isinstance(self.lines[0].entry, LockEntry):
            raise ConfigError(f"{self.path}, line 1: expected a lock, found another entry")
        self._require_schedule()

    def _require_schedule(self) -> None:
        """Check that the trials are those of the schedule, which gatort and NumPy draw anew.

        Raises:
            ConfigError: a trial is another one.
        """
        slots = schedule(self.locked.design) if self.lines else []
        for place, line in enumerate(self.lines, 1):
            trial = line.entry
            if not isinstance(trial, TrialEntry) or trial.outcome is None:
                continue
            due = slots[trial.number] if 0 <= trial.number < len(slots) else None
            if due is None or due != trial.slot(due.block):
                raise ConfigError(
                    f"{self.path}, line {place}: expected the trial that the schedule has at "
                    f"number {trial.number}, found {trial.variant} with seed {trial.seed}; use the "
                    "versions of gatort and NumPy with which the study was locked"
                )
