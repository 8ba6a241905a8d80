"""The answer of a study: counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.studies.outcomes import outcome

from gatort.studies.design import Design, read_design
from gatort.studies.findings import find, holm, judge, unpaired_95
from gatort.studies.record import StudyRecord
from gatort.studies.schedule import Slot, schedule


def study_of(test: str, layouts: int) -> Design:
    return Design.model_validate(
        {
            "question": "Is b better?",
            "variants": {"a": {"bundle": "stack"}, "b": {"bundle": "stack"}},
            "layouts": layouts,
            "analysis": {"test": test},
        }
    )


def only_b(slot: Slot) -> bool:
    return slot.variant == "b"


def test_the_answer_counts_layouts_on_which_only_one_succeeded() -> None:
    design = study_of("mcnemar", 12)
    slots = schedule(design)
    lost = {slots[0].seed}
    outcomes = {
        slot.number: outcome(succeeded=only_b(slot) != (slot.seed in lost)) for slot in slots
    }

    (found,) = judge(design, outcomes).comparisons

    assert found.only_reference == (slots[0].seed,)
    assert len(found.only_variant) == 11
    assert found.both == 0
    assert found.p == pytest.approx(2 * (1 + 12) / 2**12)
    assert found.difference == pytest.approx(10 / 12)
    assert found.verdict == "better"


def test_a_test_for_the_end_of_a_study_says_nothing_before_it() -> None:
    design = study_of("mcnemar", 12)
    slots = schedule(design)[:-1]

    (found,) = judge(
        design, {slot.number: outcome(succeeded=only_b(slot)) for slot in slots}
    ).comparisons

    assert found.verdict == "not finished"
    assert found.p < 0.01


def test_a_sequential_study_answers_as_soon_as_the_evidence_suffices() -> None:
    design = study_of("sequential", 100)
    slots = schedule(design)

    def verdict(layouts: int) -> str:
        done = slots[: 2 * layouts]
        outcomes = {slot.number: outcome(succeeded=only_b(slot)) for slot in done}
        return judge(design, outcomes).comparisons[0].verdict

    assert verdict(6) == "not finished"
    assert verdict(7) == "better"


def test_layouts_after_the_first_that_lacks_a_trial_do_not_count() -> None:
    design = study_of("mcnemar", 12)
    slots = schedule(design)
    outcomes = {slot.number: outcome(succeeded=only_b(slot)) for slot in slots}
    del outcomes[7]

    (found,) = judge(design, outcomes).comparisons

    assert found.pairs is not None
    assert found.pairs.layouts == 3


def test_without_a_difference_none_is_shown() -> None:
    design = study_of("barnard", 8)
    outcomes = {slot.number: outcome(succeeded=True) for slot in schedule(design)}

    (found,) = judge(design, outcomes).comparisons

    assert found.verdict == "no difference shown"
    assert found.p == 1.0


def test_holm_multiplies_the_least_p_by_their_number_and_never_turns_their_order() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_newcombes_interval_has_the_ends_in_newcombes_table() -> None:
    # Table II: 9 of 10 against 3 of 10, method 10.
    low, high = unpaired_95(9, 3, 10)

    assert low == pytest.approx(0.1705, abs=1e-4)
    assert high == pytest.approx(0.8090, abs=1e-4)


def test_stages_count_trials_in_the_order_of_the_task(study: Path) -> None:
    design = read_design(study)
    record = StudyRecord(study)
    record.lock(design)
    for slot in schedule(design)[:4]:
        reached = {"reached": 1.0, "grasped": 2.0} if slot.number else {"reached": 1.0}
        figures = outcome(succeeded=False).model_copy(update={"reached_s": reached})
        record.add(slot, figures)

    counted = [each.reached for each in find(record).variants]

    assert [list(each) for each in counted] == [["reached", "grasped"]] * 2
    assert sum(each["grasped"] for each in counted) == 3


def test_two_robots_that_rank_alike_have_no_rank_violation(study: Path) -> None:
    design = read_design(study).model_copy(update={"robots": ("mujoco", "pybullet"), "layouts": 4})
    record = StudyRecord(study)
    record.lock(design)
    for slot in schedule(design):
        good = slot.variant == "likeliest" or slot.condition == "late"
        record.add(slot, outcome(succeeded=good))

    (agreement,) = find(record).agreements

    assert agreement.robot == "pybullet"
    assert agreement.target == "mujoco"
    assert agreement.rank_violation == 0.0
    assert agreement.pearson_r == pytest.approx(1.0)


def test_a_robot_that_ranks_the_other_way_has_the_largest_violation(study: Path) -> None:
    design = read_design(study).model_copy(update={"robots": ("mujoco", "pybullet"), "layouts": 2})
    record = StudyRecord(study)
    record.lock(design)
    for slot in schedule(design):
        good = (slot.variant == "likeliest") == (slot.robot == "mujoco")
        record.add(slot, outcome(succeeded=good))

    (agreement,) = find(record).agreements

    assert agreement.rank_violation == 1.0
    assert agreement.pearson_r == pytest.approx(-1.0)


def test_the_direction_of_a_sequential_answer_is_that_of_its_strongest_evidence() -> None:
    design = study_of("sequential", 40)
    slots = schedule(design)
    outcomes = {slot.number: outcome(succeeded=only_b(slot) == (slot.block < 10)) for slot in slots}

    (found,) = judge(design, outcomes).comparisons

    assert found.difference == pytest.approx(-0.5)
    assert found.verdict == "better"
