"""A study's trials in simulation, shared by several processes or by the machines of a cluster."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, cast

from pydantic import field_serializer

from gatort.policies.loading import BundleLoader, place_anywhere
from gatort.runtime.bundle import verify
from gatort.sim.make import SimulatorName
from gatort.sim.portable import PortableWork, SeedWork, Workers
from gatort.sim.trials.journal import Trial
from gatort.sim.trials.runner import TrialRunner, TrialSetup
from gatort.sim.workers import share

from .record import Locked, TrialOutcome
from .schedule import Slot, schedule

NumberedOutcome = tuple[int, TrialOutcome]


def run_simulated(
    locked: Locked, slots: Sequence[Slot], workers: Workers
) -> Generator[tuple[Slot, TrialOutcome], None, None]:
    """Yield the outcomes of slots as they finish, in any order.

    The workers end when the iterator is closed.

    Args:
        locked: the study. Bundles that changed since are refused.
        slots: trials on simulators.
        workers: largest number of processes, or a cluster.
    """
    by_number = {slot.number: slot for slot in slots}
    for number, outcome in share(StudyWork(locked=locked), list(by_number), workers):
        yield by_number[number], outcome


class StudyWork(PortableWork[NumberedOutcome]):
    """A study whose slots are worked on. The number of a slot stands for a seed."""

    locked: Locked

    def prepare(self) -> SeedWork[NumberedOutcome]:
        """Load each policy and each arm when it is first needed."""
        locked, slots = self.locked, schedule(self.locked.design)
        runners: dict[tuple[str, str, str], TrialRunner] = {}

        def run(number: int) -> NumberedOutcome:
            slot = slots[number]
            place = slot.variant, slot.robot, slot.condition
            if place not in runners:
                runners[place] = TrialRunner(_setup(locked, slot))
            return number, _outcome(runners[place].run(slot.seed))

        return run

    def prepare_far(self) -> SeedWork[bytes]:
        """Check every bundle of another machine, and do as `prepare`: each outcome in JSON."""
        for name, variant in self.locked.design.variants.items():
            verify(variant.bundle, self.locked.bundles[name])
        run = self.prepare()
        return lambda number: run(number)[1].model_dump_json().encode()

    def receive(self, seed: int, content: bytes) -> NumberedOutcome:
        """Return the outcome of a slot that another machine ran."""
        return seed, TrialOutcome.model_validate_json(content)

    @field_serializer("locked", when_used="json")
    def _anywhere(self, locked: Locked) -> dict[str, Any]:
        written = locked.model_dump(mode="json")
        for name, variant in locked.design.variants.items():
            written["design"]["variants"][name]["bundle"] = place_anywhere(variant.bundle)
        return written


def _setup(locked: Locked, slot: Slot) -> TrialSetup:
    design = locked.design
    variant, condition = design.variants[slot.variant], design.conditions[slot.condition]
    return TrialSetup(
        load_policy=BundleLoader(options=variant, manifest_sha256=locked.bundles[slot.variant]),
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
