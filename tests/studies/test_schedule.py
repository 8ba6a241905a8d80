"""The order of a study: every layout a block, random, and the same again."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from gatort.studies.design import Design, read_design
from gatort.studies.schedule import schedule


def longer(design: Design, layouts: int) -> Design:
    return design.model_copy(update={"layouts": layouts})


def test_each_layout_meets_every_variant_once_and_one_after_another(study: Path) -> None:
    slots = schedule(longer(read_design(study), 20))

    for _, block in groupby(slots, key=lambda slot: slot.block):
        tried = list(block)
        assert sorted(slot.variant for slot in tried) == ["drawn", "likeliest"]
        assert len({(slot.seed, slot.robot, slot.condition) for slot in tried}) == 1
    assert [slot.number for slot in slots] == list(range(80))
    assert len({slot.seed for slot in slots}) == 40


def test_either_variant_comes_first_about_as_often(study: Path) -> None:
    slots = schedule(longer(read_design(study), 100))

    first = [slot.variant for slot in slots[::2]]
    assert 70 < first.count("drawn") < 130


def test_a_study_with_more_layouts_begins_like_one_with_fewer(study: Path) -> None:
    design = read_design(study)

    assert schedule(longer(design, 9))[:12] == schedule(design)


def test_another_seed_of_the_order_gives_another_order_of_the_same_trials(study: Path) -> None:
    design = longer(read_design(study), 10)
    other = design.model_copy(update={"order_seed": 1})

    def trials(each: Design) -> list[tuple[int, str]]:
        return [(slot.seed, slot.variant) for slot in schedule(each)]

    assert trials(design) != trials(other)
    assert sorted(trials(design)) == sorted(trials(other))


def test_a_code_tells_nothing_of_the_variant(study: Path) -> None:
    slots = schedule(longer(read_design(study), 50))

    assert len({slot.code for slot in slots}) > 195
    turned = longer(read_design(study), 50).model_copy(
        update={"variants": dict(reversed(read_design(study).variants.items()))}
    )
    assert [slot.code for slot in schedule(turned)] == [slot.code for slot in slots]
