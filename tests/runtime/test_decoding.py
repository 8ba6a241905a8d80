from __future__ import annotations

import numpy as np
import pytest

from gatort.runtime.context import Frame
from gatort.runtime.decoding import Decoder, Sampler
from gatort.runtime.engines.engine import Mark, ScriptedEngine, no_mark
from gatort.runtime.errors import ConfigError, EngineError
from gatort.runtime.spec import FIRST_CONTINUOUS_ID, ModelDims, PolicySpec


class Broken(ScriptedEngine):
    """A scripted engine one of whose logits is not a number."""

    def __init__(self, at: tuple[int, int], value: float) -> None:
        super().__init__([FIRST_CONTINUOUS_ID])
        self._at, self._value = at, value

    def tick(self, frame: Frame, mark: Mark = no_mark) -> None:
        super().tick(frame, mark)
        frame.logits[self._at] = self._value


def zeros(spec: PolicySpec) -> list[np.ndarray]:
    return [np.zeros(key.shape, key.dtype) for key in spec.observations]


def drawn(sampler: Sampler, logits: np.ndarray, times: int) -> list[int]:
    bias = np.zeros((times, len(logits)), np.float32)
    sampler.draw(bias)
    return (logits + bias).argmax(axis=1).tolist()


def test_greedy_adds_nothing_and_forgets_a_forced_token() -> None:
    bias = np.full((3, 4), 7.0, np.float32)
    Sampler().draw(bias)
    assert not bias.any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("at", [(0, 0), (1, 511), (2, 1023)])
def test_logits_that_are_not_finite_void_the_action(
    spec: PolicySpec, dims: ModelDims, bad: float, at: tuple[int, int]
) -> None:
    decoder = Decoder(spec, dims, Broken(at, bad))
    with pytest.raises(EngineError, match=f"expected finite logits, found .*{bad}"):
        decoder.decide(zeros(spec))
    with pytest.raises(RuntimeError, match="expected a decision"):
        decoder.commit()


def test_the_same_seed_gives_the_same_draws_and_a_reset_starts_them_again() -> None:
    logits, first = np.zeros(1024, np.float32), Sampler(1.0, seed=3)
    found = drawn(first, logits, 20)
    assert found == drawn(Sampler(1.0, seed=3), logits, 20)
    first.reset()
    assert found == drawn(first, logits, 20)
    assert found != drawn(Sampler(1.0, seed=4), logits, 20)


def test_draws_follow_the_softmax_at_the_temperature() -> None:
    logits = np.log(np.array([1, 4, 16], np.float32))
    counts = np.bincount(drawn(Sampler(2.0, seed=0), logits, 7_000), minlength=3)
    # Odds 1 : 2 : 4 at temperature 2; 0.02 is more than three standard deviations of 7,000 draws.
    np.testing.assert_allclose(counts / counts.sum(), np.array([1, 2, 4]) / 7, atol=0.02)


def test_a_tiny_temperature_does_not_leave_the_maximum() -> None:
    assert set(drawn(Sampler(1e-9), np.array([-1e4, 5, 4.999, 1e3], np.float32), 100)) == {3}


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_a_temperature_that_means_nothing_is_refused(bad: float) -> None:
    with pytest.raises(ConfigError, match=f"found {bad}"):
        Sampler(bad)
