"""Two reports of one kind, read and compared: trials, profiles or faults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from gatort.runtime.durations import rank
from gatort.runtime.errors import ConfigError
from gatort.runtime.invalid_values import first_error
from gatort.runtime.machine import Machine
from gatort.runtime.regular_file import read_regular
from gatort.runtime.wording import counted
from gatort.sim.trials.paired import Pairs

from .outputs import LARGEST_REPORT_BYTES
from .report_kinds import ReportOrigin, read_origin

SIGNIFICANT: Final = 0.05
"""p value below which two series of trials differ."""
RESAMPLES: Final = 2000
"""Number of bootstrap resamples."""
BLOCK_TICKS: Final = 20
"""Ticks that are drawn together, a second at 20 Hz: a slow tick seldom comes alone."""
FEWEST_TICKS: Final = 5 * BLOCK_TICKS

Judgement = Literal["better", "worse", "no difference shown"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Report(_Part):
    report: ReportOrigin
    machine: Machine

    @property
    def subject(self) -> str:
        """Measured program and policy in words."""
        return f"gatort {self.report.gatort}"


class TrialsReport(_Report):
    """Report of `gatort trials`."""

    bundle: str
    bundle_sha256: str
    engine: str
    precision: str
    robot: str
    seed: Annotated[int, Field(ge=0)]
    episodes: Annotated[int, Field(ge=1, le=1_000_000)]
    failed_seeds: Annotated[tuple[int, ...], Field(max_length=1_000_000)]
    link: dict[str, Any]
    view: dict[str, Any] | None

    @property
    def subject(self) -> str:
        """See `_Report.subject`."""
        return (
            f"{self.bundle} ({self.bundle_sha256[:12]}), {self.engine} {self.precision}, "
            f"gatort {self.report.gatort}"
        )

    @model_validator(mode="after")
    def _require_own_seeds(self) -> Self:
        seeds = range(self.seed, self.seed + self.episodes)
        strange = [each for each in self.failed_seeds if each not in seeds]
        if strange:
            raise ValueError(
                f"failed_seeds: expected seeds from {seeds.start} to {seeds.stop - 1}, "
                f"found {strange[0]}"
            )
        return self


class ProfileReport(_Report):
    """Report of `gatort profile`."""

    bundle: str
    engine: str
    observations: str
    paced: bool
    threads: int
    durations_ms: Annotated[tuple[FiniteFloat, ...], Field(min_length=FEWEST_TICKS)]

    @property
    def subject(self) -> str:
        """See `_Report.subject`."""
        threads = counted(self.threads, "thread")
        return f"{self.bundle}, {self.engine}, {threads}, gatort {self.report.gatort}"


class FaultRow(_Part):
    """A row of `gatort faults`."""

    row: int
    verdict: Literal["held", "inconclusive", "broken"]


class FaultsReport(_Report):
    """Report of `gatort faults`."""

    rows: tuple[FaultRow, ...]


AnyReport = TrialsReport | ProfileReport | FaultsReport
_KINDS: Final[dict[str, type[AnyReport]]] = {
    "trials": TrialsReport,
    "profile": ProfileReport,
    "faults": FaultsReport,
}
_OF_MACHINE: Final = ("cpu", "cores", "quota_cores", "memory_gib", "system", "python")
"""Facts about a machine that change durations."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure in both reports."""

    name: str
    first: str
    second: str
    change: str
    """Difference or ratio, with its 95 % interval where it has one."""
    verdict: Judgement


def read_report(path: Path) -> AnyReport:
    """Read a report.

    Raises:
        ConfigError: the file is no report of these kinds, is of another version, or lacks a figure.
    """
    content = read_regular(path, "a report (.json)", ConfigError, LARGEST_REPORT_BYTES)
    try:
        found = TypeAdapter(dict[str, Any]).validate_json(content)
        origin = read_origin(path, found, tuple(_KINDS))
        return _KINDS[origin.kind].model_validate(found)
    except ValidationError as error:
        raise ConfigError(f"{path}: {first_error(error, 'the report')}") from error


def compare_reports(first: AnyReport, second: AnyReport, tolerance: float) -> list[Figure]:
    """Compare two reports of one kind.

    Args:
        first: report that the other one is compared with.
        second: report to judge.
        tolerance: change of a duration, as a share, that is neither better nor worse.

    Raises:
        ConfigError: they are of two kinds, or of two different conditions.
    """
    match first, second:
        case TrialsReport(), TrialsReport():
            _require_same(first, second, "robot", "seed", "episodes", "link", "view")
            return [_success(first, second)]
        case ProfileReport(), ProfileReport():
            _require_same(first, second, "observations", "paced")
            return _durations(first, second, tolerance)
        case FaultsReport(), FaultsReport():
            return _faults(first, second)
        case _:
            raise ConfigError(
                f"expected two reports of one kind, found a {type(first).__name__} and a "
                f"{type(second).__name__}"
            )


def notes_on(first: AnyReport, second: AnyReport) -> list[str]:
    """Return a sentence on the machines, where durations of two machines are compared."""
    if isinstance(first, TrialsReport):
        return []  # In lockstep no duration counts.
    pairs = {
        name: (getattr(first.machine, name), getattr(second.machine, name)) for name in _OF_MACHINE
    }
    differing = [f"{name} {one} → {other}" for name, (one, other) in pairs.items() if one != other]
    if not differing:
        return []
    return [f"two machines ({'; '.join(differing)}): the figures compare these as well"]


def _require_same(first: AnyReport, second: AnyReport, *names: str) -> None:
    for name in names:
        if (one := getattr(first, name)) != (other := getattr(second, name)):
            raise ConfigError(
                f"{name}: expected the same in both reports, found {one} and {other}; "
                "make the second report under the conditions of the first"
            )


def _success(first: TrialsReport, second: TrialsReport) -> Figure:
    failed, failed_too = set(first.failed_seeds), set(second.failed_seeds)
    pairs = Pairs(first.episodes, len(failed_too - failed), len(failed - failed_too))
    low, high = pairs.difference_95
    verdict: Judgement = "no difference shown"
    if pairs.p_value < SIGNIFICANT:
        verdict = "better" if pairs.difference > 0 else "worse"
    return Figure(
        "success",
        f"{first.episodes - len(failed)} of {first.episodes}",
        f"{second.episodes - len(failed_too)} of {second.episodes}",
        f"{100 * pairs.difference:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}), "
        f"p = {pairs.p_value:.2g}",
        verdict,
    )


def _durations(first: ProfileReport, second: ProfileReport, tolerance: float) -> list[Figure]:
    one, other = np.array(first.durations_ms), np.array(second.durations_ms)
    random = np.random.default_rng(0)
    drawn = _resampled(one, random), _resampled(other, random)
    rows = []
    for name, share in (("tick p50", 0.5), ("tick p99", 0.99)):
        before, after = _percentile(one, share), _percentile(other, share)
        ratios = _percentile(drawn[1], share) / _percentile(drawn[0], share)
        low, high = np.quantile(ratios, (0.025, 0.975))
        verdict: Judgement = "no difference shown"
        if low > 1 + tolerance or high < 1 / (1 + tolerance):
            verdict = "worse" if low > 1 else "better"
        change = f"× {float(after / before):.3f} ({low:.3f} to {high:.3f})"
        rows.append(Figure(name, f"{before:.2f} ms", f"{after:.2f} ms", change, verdict))
    return rows


def _resampled(values: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Return resamples (RESAMPLES, N) of blocks of ticks (Künsch 1989, Ann. Statist. 17:1217)."""
    blocks = len(values) // BLOCK_TICKS
    starts = random.integers(0, len(values) - BLOCK_TICKS + 1, (RESAMPLES, blocks, 1))
    drawn: NDArray[np.float64] = values[starts + np.arange(BLOCK_TICKS)]
    return drawn.reshape(RESAMPLES, -1)


def _percentile(values: NDArray[np.float64], share: float) -> Any:
    """Return the nearest-rank percentile along the last axis."""
    count = values.shape[-1]
    return np.partition(values, rank(share, count) - 1, axis=-1)[..., rank(share, count) - 1]


def _faults(first: FaultsReport, second: FaultsReport) -> list[Figure]:
    before = {row.row: row.verdict for row in first.rows}
    after = {row.row: row.verdict for row in second.rows}
    if before.keys() != after.keys():
        raise ConfigError(
            f"expected the same rows in both reports, found {_only(before, after)}; "
            "make the second report with the rows of the first"
        )
    rows = []
    for number, verdict in before.items():
        changed: Judgement = "no difference shown"
        if {verdict, after[number]} == {"held", "broken"}:
            changed = "better" if after[number] == "held" else "worse"
        rows.append(Figure(f"row {number}", verdict, after[number], "", changed))
    return rows


def _only(before: dict[int, Any], after: dict[int, Any]) -> str:
    only: Sequence[int] = sorted(before.keys() ^ after.keys())
    return f"row {only[0]} in one of them alone"
