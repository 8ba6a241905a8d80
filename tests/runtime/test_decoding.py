from __future__ import annotations

import numpy as np
import pytest

from gatort.runtime.decoding import Sampler
from gatort.runtime.errors import ConfigError, EngineError


def test_greedy_takes_the_largest_and_the_first_of_equals() -> None:
    assert Sampler().pick(np.array([0, 3, 1, 3], np.float32)) == 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("index", [0, 511, 1023])
def test_logits_that_are_not_finite_void_the_action(temperature: float, bad: float, index: int) -> None:
    logits = np.linspace(-1, 1, 1024, dtype=np.float32)
    logits[index] = bad
    with pytest.raises(EngineError, match=f"at bin {index}"):
        Sampler(temperature).pick(logits)


def test_the_same_seed_gives_the_same_draws_and_a_reset_starts_them_again() -> None:
    logits = np.zeros(1024, np.float32)
    first, second = Sampler(1.0, seed=3), Sampler(1.0, seed=3)
    drawn = [first.pick(logits) for _ in range(20)]
    assert drawn == [second.pick(logits) for _ in range(20)]
    first.reset()
    assert drawn == [first.pick(logits) for _ in range(20)]
    assert drawn != [Sampler(1.0, seed=4).pick(logits) for _ in range(20)]


def test_draws_follow_the_softmax_at_the_temperature() -> None:
    logits, sampler = np.log(np.array([1, 4, 16], np.float32)), Sampler(2.0, seed=0)
    counts = np.bincount([sampler.pick(logits) for _ in range(7_000)], minlength=3)
    # Odds 1 : 2 : 4 at temperature 2; 0.02 is more than three standard deviations of 7,000 draws.
    np.testing.assert_allclose(counts / counts.sum(), np.array([1, 2, 4]) / 7, atol=0.02)


def test_a_tiny_temperature_neither_overflows_nor_leaves_the_maximum() -> None:
    assert Sampler(1e-9).pick(np.array([-1e4, 5, 4.999, 1e3], np.float32)) == 3


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_a_temperature_that_means_nothing_is_refused(bad: float) -> None:
    with pytest.raises(ConfigError, match=f"found {bad}"):
        Sampler(bad)
