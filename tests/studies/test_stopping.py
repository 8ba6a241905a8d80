"""The end of a sequential study: the same as the answer's, and asked cheaply."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.studies.outcomes import outcome

from gatort.studies.design import Design
from gatort.studies.findings import find, is_decided, judge
from gatort.studies.record import StudyRecord
from gatort.studies.schedule import schedule
from gatort.studies.stopping import Stopping


def study_of(test: str, variants: int, layouts: int) -> Design:
    return Design.model_validate(
        {
            "question": "Which is best?",
            "variants": {f"v{place}": {"bundle": "stack"} for place in range(variants)},
            "layouts": layouts,
            "analysis": {"test": test},
        }
    )


@pytest.mark.parametrize("variants", [1, 2, 3])
@pytest.mark.parametrize("test", ["sequential", "mcnemar"])
def test_it_ends_a_study_at_the_trial_that_decides_it(test: str, variants: int) -> None:
    design = study_of(test, variants, 40)
    random = np.random.default_rng(5)
    slots = schedule(design)
    order = np.argsort(np.arange(len(slots)) + 6 * random.random(len(slots)))  # Six workers.
    outcomes = {}
    stopping = Stopping(design, {})

    for place in order:
        slot = slots[place]
        good = slot.variant != "v0" and random.random() < 0.9
        outcomes[slot.number] = outcome(succeeded=good)
        stopping.add(slot, outcomes[slot.number])
        assert stopping.is_decided == is_decided(design, judge(design, outcomes).comparisons)
        assert Stopping(design, outcomes).is_decided == stopping.is_decided

    assert stopping.is_decided == (test == "sequential" and variants > 1)


def test_trials_of_later_layouts_do_not_count_in_a_study_that_is_decided(tmp_path: Path) -> None:
    design = study_of("sequential", 2, 40)
    slots = schedule(design)
    record = StudyRecord(tmp_path / "pick.toml")
    record.lock(design)
    for slot in (*slots[:20], slots[21]):
        record.add(slot, outcome(succeeded=slot.variant == "v1"))

    found = find(record)

    assert found.decided
    assert found.done == 21
    assert [each.trials for each in found.variants] == [10, 10]
    assert [each.trials for each in found.cells] == [10, 10]
