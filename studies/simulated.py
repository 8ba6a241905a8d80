"""A study's trials in simulation, shared by several processes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import cast

from gatort.policies.loading import load_policy
from gatort.runtime.decoding import Sampler
from gatort.sim.make import SimulatorName
from gatort.sim.trials.journal import Trial
from gatort.sim.trials.runner import TrialRunner, TrialSetup
from gatort.sim.workers import spread

from .record import Locked, TrialOutcome
from .schedule import Slot, schedule


def run_simulated(
    locked: Locked, slots: Sequence[Slot], workers: int
) -> Generator[tuple[Slot, TrialOutcome], None, None]:
    """Yield the outcomes of slots as they finish, in any order.

    The workers end when the iterator is closed.

    Args:
        locked: the study. Bundles that changed since are refused.
        slots: trials on simulators.
        workers: largest number of processes.
    """
    by_number = {slot.number: slot for slot in slots}
    for number, outcome in spread(partial(_prepare, locked), list(by_number), workers):
        yield by_number[number], outcome


def _prepare(locked: Locked) -> Callable[[int], tuple[int, TrialOutcome]]:
    """Return the work of one process. It loads a policy and an arm when they are first needed."""
    slots = schedule(locked.design)
    runners: dict[tuple[str, str, str], TrialRunner] = {}

    def run(number: int) -> tuple[int, TrialOutcome]:
        slot = slots[number]
        place = slot.variant, slot.robot, slot.condition
        if place not in runners:
            runners[place] = TrialRunner(_setup(locked, slot))
        return number, _outcome(runners[place].run(slot.seed))

    return run


def _setup(locked: Locked, slot: Slot) -> TrialSetup:
    design = locked.design
    variant, condition = design.variants[slot.variant], design.conditions[slot.condition]
    sampler = Sampler(variant.temperature)
    return TrialSetup(
        load_policy=partial(load_policy, variant, sampler, locked.bundles[slot.variant]),
        simulator=cast("SimulatorName", slot.robot),
        task=design.task,
        link=condition.link,
        view=condition.view,
        physics=condition.physics,
        seconds=design.seconds,
    )


def _outcome(trial: Trial) -> TrialOutcome:
    return TrialOutcome(
        succeeded=trial.succeeded,
        reached_s={**trial.reached_s},
        seconds=trial.seconds,
        ticks=trial.ticks,
        sparc=trial.sparc,
        refused=trial.refused,
        misses=0,
        dropped=trial.dropped,
        lost=trial.lost,
        stop=trial.refusal,
    )
