"""The answer of a study: figures of each variant, and the planned test of each comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final, Literal

import numpy as np

from gatort.sim.make import SIMULATORS
from gatort.sim.trials.paired import Pairs
from gatort.sim.trials.statistics import count_stages, wilson_95

from .design import Design
from .record import StudyRecord, TrialOutcome
from .schedule import Slot, schedule
from .sequential import sequential_gain, sequential_interval, sequential_p, sequential_path

FEWEST_POINTS: Final = 3
"""Fewest pairs of success rates of which a correlation says something."""
StudyVerdict = Literal["better", "worse", "no difference shown", "not finished"]


@dataclass(frozen=True, slots=True)
class VariantFigures:
    """Figures of one variant's trials that count."""

    name: str
    trials: int
    successes: int
    void: int
    """Number of void trials."""
    reached: Mapping[str, int]
    """Number of trials that came to each stage of the task, in the order of the stages."""
    success_s: float | None
    """Median duration of a trial that succeeded, or `None` without one."""
    sparc: float | None
    """Median smoothness, or `None` where no trial has one."""
    ticks: int
    refused: int
    misses: int
    undelivered: int
    """Number of commands that were lost or not applied."""
    stopped: int
    """Number of trials with a sentence on a stop or a refusal."""

    @property
    def rate(self) -> float | None:
        """Share of trials that succeeded, or `None` without a trial."""
        return self.successes / self.trials if self.trials else None

    @property
    def wilson_95(self) -> tuple[float, float] | None:
        """95 % Wilson interval of the success rate, or `None` without a trial."""
        return wilson_95(self.successes, self.trials) if self.trials else None


@dataclass(frozen=True, slots=True)
class PairedFigures:
    """A variant against the reference, on the layouts that both have tried."""

    variant: str
    reference: str
    pairs: Pairs | None
    """Counts of the layouts, or `None` before the first."""
    both: int
    """Number of layouts on which both succeeded."""
    only_reference: tuple[int, ...]
    """Seeds of the layouts on which only the reference succeeded."""
    only_variant: tuple[int, ...]
    """Seeds of the layouts on which only the variant succeeded."""
    interval: tuple[float, float]
    """Interval of the difference in success, at 1 less the study's significance if the test is
    sequential, else at 95 %."""
    p: float
    """p value of the planned test."""
    adjusted_p: float
    """p value after Holm's adjustment for the number of comparisons (Holm 1979)."""
    verdict: StudyVerdict

    @property
    def difference(self) -> float | None:
        """Success rate of the variant less that of the reference."""
        return self.pairs.difference if self.pairs is not None else None

    @property
    def points(self) -> str:
        """Difference and interval in words, such as "+5.0 points (-2.1 to +12.3)"."""
        low, high = self.interval
        return f"{100 * (self.difference or 0):+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"


@dataclass(frozen=True, slots=True)
class CellFigures:
    """Success of one variant on one robot under one condition."""

    robot: str
    condition: str
    variant: str
    trials: int
    successes: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of the success on one robot with that on another."""

    robot: str
    """Robot that predicts, such as a simulator."""
    target: str
    """Robot whose success counts, such as a real arm."""
    pearson_r: float | None
    """Correlation of the success rates, or `None` where one of them never changes."""
    rank_violation: float
    """Mean maximum rank violation (Li et al. 2024, arXiv 2405.05941, section III); 0 is best."""
    rates: tuple[tuple[float, float], ...]
    """Success rates on the two robots, for each variant and condition."""


@dataclass(frozen=True, slots=True)
class Findings:
    """The answer of a study so far."""

    design: Design
    variants: tuple[VariantFigures, ...]
    comparisons: tuple[PairedFigures, ...]
    cells: tuple[CellFigures, ...]
    agreements: tuple[Agreement, ...]
    wealth_p: Mapping[str, tuple[float, ...]]
    """p value after each layout, for each variant of a sequential study."""
    done: int
    """Number of trials that count."""
    planned: int
    """Number of trials of the schedule."""
    decided: bool
    """True if a sequential study needs no further trial."""

    @property
    def finished(self) -> bool:
        """True if no further trial is due."""
        return self.decided or self.done == self.planned


def find(record: StudyRecord) -> Findings:
    """Return the answer of a locked study so far."""
    void = [each.variant for each in record.trials if each.outcome is None]
    return judge(record.locked.design, record.outcomes, void)


def judge(
    design: Design, outcomes: Mapping[int, TrialOutcome], void: Sequence[str] = ()
) -> Findings:
    """Return the answer that trials give so far.

    Args:
        design: the study.
        outcomes: figures of the trials that count, by the number of their slot.
        void: variant of each void trial.
    """
    slots = schedule(design)
    succeeded = {number: each.succeeded for number, each in outcomes.items()}
    layouts = list(complete_layouts(slots, len(design.variants), succeeded))
    comparisons = _comparisons(design, layouts, complete=len(outcomes) == len(slots))
    decided = is_decided(design, comparisons)
    done = len(outcomes)
    if decided:  # Trials of later layouts that other processes ran meanwhile do not count.
        outcomes = {slot.number: outcomes[slot.number] for slot in _slots_of(layouts)}
    cells = _cells(design, slots, outcomes)
    return Findings(
        design=design,
        variants=tuple(
            _variant(name, slots, outcomes, void.count(name)) for name in design.variants
        ),
        comparisons=comparisons,
        cells=cells,
        agreements=_agreements(design, cells),
        wealth_p=_wealth(design, layouts),
        done=done,
        planned=len(slots),
        decided=decided,
    )


def is_decided(design: Design, comparisons: Sequence[PairedFigures]) -> bool:
    """Check if a sequential study has an answer to every comparison."""
    answered = all(each.verdict in ("better", "worse") for each in comparisons)
    return design.analysis.test == "sequential" and bool(comparisons) and answered


TriedLayout = Mapping[str, tuple[Slot, bool]]
"""Slot and success of each variant on one layout."""


def complete_layouts(
    slots: Sequence[Slot], variants: int, succeeded: Mapping[int, bool], first: int = 0
) -> Iterator[TriedLayout]:
    """Yield the layouts that all variants have tried, up to the first that is not.

    A study that stops early must not choose among layouts by how long they took.

    Args:
        slots: schedule of the study.
        variants: number of variants.
        succeeded: success of each trial that counts, by the number of its slot.
        first: number of the slot with which the first layout begins.
    """
    for begin in range(first, len(slots), variants):
        block = slots[begin : begin + variants]
        if not all(slot.number in succeeded for slot in block):
            return
        yield {slot.variant: (slot, succeeded[slot.number]) for slot in block}


def differences_of(layouts: Sequence[TriedLayout], reference: str, variant: str) -> list[int]:
    """Return 1 for each layout on which only the variant succeeded, −1 for only the reference."""
    return [int(layout[variant][1]) - int(layout[reference][1]) for layout in layouts]


def _slots_of(layouts: Sequence[TriedLayout]) -> list[Slot]:
    return [slot for layout in layouts for slot, _ in layout.values()]


def _comparisons(
    design: Design, layouts: Sequence[TriedLayout], *, complete: bool
) -> tuple[PairedFigures, ...]:
    raw = [_p(design, layouts, variant) for variant in design.others]
    return tuple(
        _comparison(design, layouts, variant, p, adjusted, complete=complete)
        for variant, p, adjusted in zip(design.others, raw, holm(raw), strict=True)
    )


def holm(p: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number (Holm 1979, Scand. J. Stat. 6:65)."""
    adjusted = [1.0] * len(p)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = largest
    return adjusted


def _p(design: Design, layouts: Sequence[TriedLayout], variant: str) -> float:
    if not layouts:
        return 1.0
    differences = differences_of(layouts, design.reference, variant)
    match design.analysis.test:
        case "mcnemar":
            return _pairs(differences).p_value
        case "sequential":
            return sequential_p(differences)
        case "barnard":
            from scipy.stats import barnard_exact

            successes = [_successes(layouts, name) for name in (variant, design.reference)]
            failures = [len(layouts) - each for each in successes]
            return float(barnard_exact([successes, failures]).pvalue)


def _successes(layouts: Sequence[TriedLayout], variant: str) -> int:
    return sum(layout[variant][1] for layout in layouts)


def _pairs(differences: Sequence[int]) -> Pairs:
    return Pairs(len(differences), differences.count(-1), differences.count(1))


def _comparison(
    design: Design,
    layouts: Sequence[TriedLayout],
    variant: str,
    p: float,
    adjusted_p: float,
    *,
    complete: bool,
) -> PairedFigures:
    reference, analysis = design.reference, design.analysis
    differences = differences_of(layouts, reference, variant)
    interval = (-1.0, 1.0)
    if layouts:
        match analysis.test:
            case "mcnemar":
                interval = _pairs(differences).difference_95
            case "sequential":
                interval = sequential_interval(differences, analysis.significance)
            case "barnard":
                interval = unpaired_95(
                    _successes(layouts, variant), _successes(layouts, reference), len(layouts)
                )
    return PairedFigures(
        variant=variant,
        reference=reference,
        pairs=_pairs(differences) if layouts else None,
        both=sum(layout[variant][1] and layout[reference][1] for layout in layouts),
        only_reference=_seeds(layouts, variant, differences, -1),
        only_variant=_seeds(layouts, variant, differences, 1),
        interval=interval,
        p=p,
        adjusted_p=adjusted_p,
        verdict=_verdict(design, adjusted_p, differences, complete=complete),
    )


def _verdict(
    design: Design, adjusted_p: float, differences: Sequence[int], *, complete: bool
) -> StudyVerdict:
    """Return the verdict. A test for the end of a study says nothing before it."""
    is_sequential = design.analysis.test == "sequential"
    if not complete and not is_sequential:
        return "not finished"
    gained = sequential_gain(differences) if is_sequential else sum(differences)
    if adjusted_p <= design.analysis.significance and gained:
        return "better" if gained > 0 else "worse"
    return "no difference shown" if complete else "not finished"


def _seeds(
    layouts: Sequence[TriedLayout], variant: str, differences: Sequence[int], sign: int
) -> tuple[int, ...]:
    pairs = zip(layouts, differences, strict=True)
    return tuple(layout[variant][0].seed for layout, each in pairs if each == sign)


def unpaired_95(successes: int, reference: int, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a difference between two groups of `trials` trials each.

    After Newcombe 1998 (Statistics in Medicine 17:873), method 10: from two Wilson intervals.
    """
    rate, other = successes / trials, reference / trials
    low, high = wilson_95(successes, trials)
    other_low, other_high = wilson_95(reference, trials)
    below = sqrt((rate - low) ** 2 + (other_high - other) ** 2)
    above = sqrt((high - rate) ** 2 + (other - other_low) ** 2)
    return rate - other - below, rate - other + above


def _variant(
    name: str, slots: Sequence[Slot], outcomes: Mapping[int, TrialOutcome], void: int
) -> VariantFigures:
    own = [
        outcomes[slot.number] for slot in slots if slot.variant == name and slot.number in outcomes
    ]
    durations_s = [each.seconds for each in own if each.succeeded]
    smooth = [each.sparc for each in own if each.sparc is not None]
    return VariantFigures(
        name=name,
        trials=len(own),
        successes=sum(each.succeeded for each in own),
        void=void,
        reached=count_stages([each.reached_s for each in own]),
        success_s=float(np.median(durations_s)) if durations_s else None,
        sparc=float(np.median(smooth)) if smooth else None,
        ticks=sum(each.ticks for each in own),
        refused=sum(each.refused for each in own),
        misses=sum(each.misses for each in own),
        undelivered=sum(each.dropped + each.lost for each in own),
        stopped=sum(each.stop is not None for each in own),
    )


def _cells(
    design: Design, slots: Sequence[Slot], outcomes: Mapping[int, TrialOutcome]
) -> tuple[CellFigures, ...]:
    found: dict[tuple[str, str, str], list[bool]] = {
        (robot, condition, variant): []
        for robot, condition in design.cells
        for variant in design.variants
    }
    for slot in slots:
        if slot.number in outcomes:
            place = slot.robot, slot.condition, slot.variant
            found[place].append(outcomes[slot.number].succeeded)
    return tuple(
        CellFigures(robot, condition, variant, len(each), sum(each))
        for (robot, condition, variant), each in found.items()
    )


def _agreements(design: Design, cells: Sequence[CellFigures]) -> tuple[Agreement, ...]:
    """Compare every simulator with every arm at an address, or else with the first robot."""
    real = [robot for robot in design.robots if robot not in SIMULATORS] or [design.robots[0]]
    rates: dict[str, dict[tuple[str, str], float]] = {robot: {} for robot in design.robots}
    for cell in cells:
        if cell.trials:
            place = cell.condition, cell.variant
            rates[cell.robot][place] = cell.successes / cell.trials
    return tuple(
        found
        for target in real
        for robot in design.robots
        if robot not in real and (found := _agreement(robot, target, rates)) is not None
    )


def _agreement(
    robot: str, target: str, rates: Mapping[str, Mapping[tuple[str, str], float]]
) -> Agreement | None:
    shared = [place for place in rates[robot] if place in rates[target]]
    if len(shared) < FEWEST_POINTS:
        return None
    points = tuple((rates[robot][place], rates[target][place]) for place in shared)
    predicted, true = np.array(points).T
    varied = np.ptp(predicted) > 0 and np.ptp(true) > 0
    violated = (predicted[:, None] < predicted) != (true[:, None] < true)
    worst = (np.abs(true[:, None] - true) * violated).max(axis=1)
    return Agreement(
        robot=robot,
        target=target,
        pearson_r=float(np.corrcoef(predicted, true)[0, 1]) if varied else None,
        rank_violation=float(worst.mean()),
        rates=points,
    )


def _wealth(design: Design, layouts: Sequence[TriedLayout]) -> dict[str, tuple[float, ...]]:
    if design.analysis.test != "sequential":
        return {}
    return {
        variant: tuple(
            map(float, sequential_path(differences_of(layouts, design.reference, variant)))
        )
        for variant in design.others
    }
