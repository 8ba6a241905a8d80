"""The Wilson interval and the figures of a series of trials."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatort.sim.trials.journal import Trial
from gatort.sim.trials.statistics import summarise, wilson_95


def test_the_wilson_interval_is_the_published_one() -> None:
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3, to its four decimals.
    for successes, episodes, interval in [
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
    ]:
        assert wilson_95(successes, episodes) == pytest.approx(interval, abs=5e-5)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_wilson_interval_holds_the_rate_and_stays_inside_zero_and_one(
    case: tuple[int, int],
) -> None:
    low, high = wilson_95(*case)
    assert 0.0 <= low <= case[0] / case[1] + 1e-12
    assert case[0] / case[1] - 1e-12 <= high <= 1.0


def trial(seed: int, **fields: object) -> Trial:
    nominal = Trial(
        seed=seed,
        succeeded=True,
        seconds=1.0,
        ticks=20,
        refusal=None,
        refused=0,
        dropped=0,
        lost=0,
        reached_s={},
        sparc=None,
        policy_us=(1000,),
    )
    return nominal.model_copy(update=fields)


def test_a_summary_counts_successes_and_missing_actions() -> None:
    late = trial(41, succeeded=False, refusal="late", refused=1, dropped=2, lost=3)
    summary = summarise([trial(40), late])
    assert (summary.episodes, summary.successes, summary.success_rate) == (2, 1, 0.5)
    assert summary.failures == {41: "late"}
    assert summary.missing == pytest.approx(6 / 40)
    assert summary.latency is not None
    assert summary.latency.max_ms == pytest.approx(1.0)


def test_a_summary_of_trials_without_a_tick_has_no_latency_and_misses_every_action() -> None:
    summary = summarise([trial(40, succeeded=False, ticks=0, seconds=0.0, policy_us=())])
    assert summary.latency is None
    assert summary.missing == 1.0
