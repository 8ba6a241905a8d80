"""The file of a study: complete, or refused with the key and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatort.policies.loading import SHIPPED_BUNDLE
from gatort.runtime.errors import ConfigError
from gatort.sim.randomisation import NOMINAL_PHYSICS
from gatort.sim.view_randomisation import NOMINAL_VIEW
from gatort.studies.design import read_design


def refusal(study: Path, old: str, new: str) -> str:
    study.write_text(study.read_text().replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_design(study)
    return str(caught.value).removeprefix(f"{study}: ")


def test_a_design_has_its_variants_in_order_and_every_robot_under_every_condition(
    study: Path,
) -> None:
    design = read_design(study)

    assert design.reference == "likeliest"
    assert design.others == ("drawn",)
    assert design.variants["likeliest"].bundle == SHIPPED_BUNDLE
    assert design.cells == [("mujoco", "nominal"), ("mujoco", "late")]
    assert design.pairs == 6


def test_ranges_that_a_condition_leaves_out_hold_the_nominal_value(study: Path) -> None:
    with study.open("a") as file:
        file.write("[conditions.odd]\nview.light = [0.5, 0.5]\nphysics.pad_friction = [0.3, 0.4]\n")

    odd = read_design(study).conditions["odd"]

    assert odd.view == NOMINAL_VIEW.model_copy(update={"light": (0.5, 0.5)})
    assert odd.physics == NOMINAL_PHYSICS.model_copy(update={"pad_friction": (0.3, 0.4)})


def test_without_a_number_of_layouts_the_power_gives_it(study: Path) -> None:
    study.write_text(study.read_text().replace("layouts = 3\n", ""), encoding="utf-8")

    design = read_design(study)

    assert design.layouts_per_cell == 42
    assert design.pairs_needed == 83


def test_a_bundle_beside_the_studys_file_is_found(study: Path) -> None:
    (study.parent / "mine").mkdir()
    study.write_text(study.read_text().replace('bundle = "stack"', 'bundle = "mine"', 1))

    assert read_design(study).variants["likeliest"].bundle == study.parent / "mine"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("layouts = 3", "layouts = 0", "layouts: expected at least 1, found 0"),
        (
            "layouts = 3",
            "layout = 3",
            "layout: expected no such key, found 3 (did you mean 'layouts'?)",
        ),
        (
            "temperature = 0.5",
            'temperature = 0.5\ntask = "stacking"',
            (
                "variants.drawn.task: expected no such key, found 'stacking'; write task above the "
                "first [table]"
            ),
        ),
        ("layouts = 3", "seconds = 1e9", "seconds: expected at most 1000000, found 1000000000.0"),
        ("layouts = 3", "layouts = true", "layouts: expected a number, found true or false"),
        (
            "delay_ms = 8.0",
            "delay_ms = 8.0\n[conditions.odd]\nview.light = [1, true]",
            "conditions.odd.view.light.1: expected a number, found true or false",
        ),
        (
            "variants.drawn",
            'variants."my policy"',
            (
                "variants.my policy.[key]: expected a name of 1 to 40 characters: lower-case "
                "letters, digits, _, . and -, found 'my policy'"
            ),
        ),
        (
            "layouts = 3",
            "layouts = 1001",
            "layouts: expected at most 2000 over all robots and conditions, found 2002",
        ),
        (
            "layouts = 3",
            'robots = ["mujoco", "mujoco"]',
            "robots: expected each robot once, found one twice",
        ),
        (
            "layouts = 3",
            'robots = ["franka"]',
            (
                "robots.0: expected mujoco, pybullet or an address such as tcp://127.0.0.1:5555, "
                "found 'franka'"
            ),
        ),
        (
            "layouts = 3",
            'layouts = 3\nrobots = ["tcp://10.0.0.2:5555"]',
            (
                "conditions.late: expected nothing to vary on tcp://10.0.0.2:5555, which "
                "has its own link, look and physics"
            ),
        ),
        (
            "layouts = 3",
            "layouts = 3\nfirst_seed = 899998",
            "first_seed: expected layouts with seeds up to 899999, found 900003",
        ),
        (
            "layouts = 3",
            "[analysis]\nsmallest_difference = 0.001",
            (
                "layouts: expected a power of 0.8 with at most 2000 layouts, found less; "
                "give a larger analysis.smallest_difference"
            ),
        ),
        (
            "layouts = 3",
            "[analysis]\nsmallest_difference = 0.9",
            (
                "analysis: smallest_difference: expected a difference from 0.8 that ends between 0 "
                "and 1, found 0.9"
            ),
        ),
    ],
)
def test_a_file_that_makes_no_study_is_refused_with_its_key(
    study: Path, old: str, new: str, sentence: str
) -> None:
    assert refusal(study, old, new) == sentence


def test_a_mark_of_utf_8_before_the_text_is_read_over(study: Path) -> None:
    design = read_design(study)
    study.write_text(study.read_text(), encoding="utf-8-sig")

    assert read_design(study) == design


def test_a_bundle_of_an_unknown_person_is_a_folder_that_is_missing(study: Path) -> None:
    study.write_text(study.read_text().replace('"stack"', '"~nobody-here/x"', 1))

    assert str(read_design(study).variants["likeliest"].bundle) == "~nobody-here/x"


@pytest.mark.parametrize("key", [".".join("a" * 300), ".".join("a" * 3000), "a = " + "[" * 900])
def test_keys_that_are_nested_too_deep_are_refused(study: Path, key: str) -> None:
    refusal(study, "layouts = 3", f"{key} = 3")


def test_text_that_is_no_toml_is_refused(study: Path) -> None:
    assert refusal(study, "layouts = 3", "layouts =").startswith(
        "expected a study in TOML, found other text: Invalid value"
    )
