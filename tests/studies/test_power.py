"""The plan of a study: its power is that of simulated studies, and its tests are honest."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import barnard_exact, binom
from tests.studies.outcomes import outcome

from gatort.studies.design import Design
from gatort.studies.findings import judge
from gatort.studies.power import (
    Expectation,
    TestName,
    _barnard_region,
    detectable_rates,
    detectable_sentence,
    pairs_needed,
    power,
)
from gatort.studies.schedule import schedule
from gatort.studies.sequential import (
    boundary,
    log_wealth,
    sequential_interval,
    sequential_p,
    sequential_path,
)

STUDIES = 200
LAYOUTS = 60
TESTS: tuple[TestName, ...] = ("mcnemar", "sequential", "barnard")


def design(test: TestName, variants: int = 2) -> Design:
    names = [f"v{index}" for index in range(variants)]
    return Design.model_validate(
        {
            "question": "Which is best?",
            "variants": {name: {"bundle": "stack"} for name in names},
            "layouts": LAYOUTS,
            "analysis": {"test": test},
        }
    )


def verdicts(plan: Design, rates: dict[str, float], seed: int) -> list[str]:
    """Judge one study whose outcomes are drawn from true success rates."""
    random = np.random.default_rng(seed)
    outcomes = {
        slot.number: outcome(succeeded=bool(random.random() < rates[slot.variant]))
        for slot in schedule(plan)
    }
    return [each.verdict for each in judge(plan, outcomes).comparisons]


@pytest.mark.parametrize("test", TESTS)
def test_of_200_studies_of_equal_policies_at_most_1_in_20_calls_one_better(test: TestName) -> None:
    plan = design(test)

    found = [verdicts(plan, {"v0": 0.8, "v1": 0.8}, seed)[0] for seed in range(STUDIES)]

    assert found.count("better") + found.count("worse") <= 0.05 * STUDIES


def test_three_equal_variants_share_the_accepted_probability_of_a_false_answer() -> None:
    plan = design("mcnemar", variants=4)
    rates = dict.fromkeys(plan.variants, 0.5)

    found = [verdicts(plan, rates, seed) for seed in range(STUDIES)]

    false = sum(any(each in ("better", "worse") for each in study) for study in found)
    assert false <= 0.05 * STUDIES


@pytest.mark.parametrize("test", TESTS)
def test_simulated_studies_find_a_difference_as_often_as_planned(test: TestName) -> None:
    expected = Expectation(0.7, 0.95)
    random = np.random.default_rng(3)
    studies = 3000 if test != "barnard" else 20_000
    first = random.random((studies, LAYOUTS)) < expected.reference
    second = random.random((studies, LAYOUTS)) < expected.other
    gained = second.astype(int) - first

    if test == "mcnemar":
        wins, losses = (gained > 0).sum(1), (gained < 0).sum(1)
        p = np.minimum(1, 2 * binom.cdf(np.minimum(wins, losses), wins + losses, 0.5))
        found = (p <= 0.05) & (wins > losses)
    elif test == "sequential":
        found = np.array([sequential_p(row) <= 0.05 and sum(row) > 0 for row in gained.tolist()])
    else:
        region = _barnard_region(LAYOUTS, 0.05)
        successes = second.sum(1), first.sum(1)
        found = region[successes] & (successes[0] > successes[1])

    assert found.mean() == pytest.approx(power(test, expected, 0.05, LAYOUTS), abs=0.03)


@pytest.mark.parametrize("test", TESTS)
def test_the_fewest_layouts_have_the_wanted_power_and_one_less_has_not(test: TestName) -> None:
    expected = Expectation(0.6, 0.9)

    fewest = pairs_needed(test, expected, 0.05, 0.8)

    assert fewest is not None
    assert power(test, expected, 0.05, fewest) >= 0.8 > power(test, expected, 0.05, fewest - 1)


def test_no_number_of_layouts_finds_a_difference_of_one_in_a_thousand() -> None:
    assert pairs_needed("mcnemar", Expectation(0.5, 0.501), 0.05, 0.8) is None


def test_rates_on_either_side_are_found_with_the_wanted_power() -> None:
    rates = detectable_rates("mcnemar", 0.8, 0.05, LAYOUTS, 0.8)

    for rate in rates:
        assert rate is not None
        found = power("mcnemar", Expectation(0.8, rate), 0.05, LAYOUTS)
        assert found == pytest.approx(0.8, abs=1e-3)
    assert rates == (pytest.approx(0.5436, abs=1e-3), pytest.approx(0.9699, abs=1e-3))


def test_rates_that_a_study_finds_are_named_in_words() -> None:
    def sentence(reference: float, pairs: int) -> str:
        return detectable_sentence("mcnemar", reference, 0.05, pairs, 0.8)

    assert sentence(0.8, 3) == "no other success rate"
    assert sentence(0.8, 20) == "success of 31.7% or less"
    assert sentence(1.0, 60) == "success of 87.1% or less"
    assert sentence(0.8, 60) == "success of 54.4% or less, or of 97.0% or more"


def test_barnards_region_is_that_of_scipy() -> None:
    region = _barnard_region(15, 0.05)

    for one in range(0, 16, 3):
        for other in range(0, 16, 2):
            p = barnard_exact([[one, other], [15 - one, 15 - other]]).pvalue
            assert region[one, other] == (p <= 0.05)


def test_the_wealth_of_a_gambler_is_a_fair_game() -> None:
    bets = np.array(7)
    wealth = np.exp(log_wealth(np.arange(8), bets))
    chance = np.array([1, 7, 21, 35, 35, 21, 7, 1]) / 128

    assert wealth @ chance == pytest.approx(1.0)


def test_the_boundary_is_the_first_number_of_wins_at_which_the_test_rejects() -> None:
    needed = boundary(0.05, 30)

    for bets in (5, 6, 12, 30):
        p = [sequential_p([1] * wins + [-1] * (bets - wins)) for wins in range(bets + 1)]
        ends = [float(np.exp(-log_wealth(np.array(w), np.array(bets)))) for w in range(bets + 1)]
        assert len(p) == bets + 1
        later = [wins for wins in range((bets + 1) // 2, bets + 1) if ends[wins] <= 0.05]
        assert needed[bets] == (later[0] if later else bets + 1)


def test_the_interval_that_holds_at_any_time_seldom_misses_the_true_difference() -> None:
    random = np.random.default_rng(11)
    missed = 0
    for _ in range(100):
        gained = (random.random(80) < 0.8).astype(int) - (random.random(80) < 0.6)
        ends = [sequential_interval(gained[:count].tolist(), 0.05) for count in (10, 20, 40, 80)]
        missed += not all(low <= 0.2 <= high for low, high in ends)

    assert missed <= 5


def test_the_interval_shrinks_around_the_difference() -> None:
    low, high = sequential_interval([1, 0, 1, 1, 0, 0, 1, 0] * 50, 0.05)

    assert 0.4 < low < 0.5 < high < 0.62


def test_the_p_value_after_each_layout_is_that_of_the_layouts_so_far() -> None:
    differences = [0, 1, 1, 0, 1, -1, 1, 1, 1, 1, 1, -1, -1]

    path = sequential_path(differences)

    assert path.tolist() == [
        sequential_p(differences[: count + 1]) for count in range(len(differences))
    ]
    assert path[0] == 1.0
    assert sequential_p([]) == 1.0
