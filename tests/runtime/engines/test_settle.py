"""Tokens settle to those of greedy decoding, from any first guess."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gatort.runtime.engines.settle import settle
from gatort.runtime.errors import EngineError


class CausalModel:
    """Model whose token follows from all tokens before it."""

    def __init__(self, tokens: int) -> None:
        self.weights = np.random.default_rng(tokens).integers(1, 1_000, (tokens, tokens))
        self.chosen = np.zeros(tokens, np.int64)
        self.checks = 0

    def answer(self, read: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the tokens (A,) that follow from each prefix of `read` (A − 1,)."""
        count = len(self.weights)
        return np.array([7 + self.weights[i, :i] @ read[:i] for i in range(count)]) % 1_024

    def check(self) -> None:
        self.checks += 1
        self.chosen[1:] = self.answer(self.chosen[:-1])[1:]

    def greedy(self) -> list[int]:
        found: list[int] = []
        for index in range(len(self.weights)):
            found.append(int((7 + self.weights[index, :index] @ np.array(found, int)) % 1_024))
        return found


@pytest.mark.parametrize("tokens", [1, 2, 3, 8])
@pytest.mark.parametrize("right", [0, 1, 2, 7])
def test_any_guess_settles_on_the_greedy_tokens(tokens: int, right: int) -> None:
    model = CausalModel(tokens)
    guess = np.array(model.greedy()[:-1], np.int64)
    guess[right:] = 1_023
    model.chosen[:] = model.answer(guess)
    passes = settle(model.chosen, model.check, most=tokens)
    assert model.chosen.tolist() == model.greedy()
    assert passes == 1 + model.checks <= tokens


def test_right_tokens_take_one_check_and_wrong_ones_as_many_as_there_are() -> None:
    model = CausalModel(8)
    model.chosen[:] = model.greedy()
    assert settle(model.chosen, model.check, most=8) == 2
    model.chosen[1:] = 1_023
    assert settle(model.chosen, model.check, most=8) == 8


def test_tokens_that_still_change_in_the_last_pass_are_refused() -> None:
    model = CausalModel(8)
    model.chosen[:] = 1_023
    model.chosen[0] = model.greedy()[0]
    with pytest.raises(EngineError, match=r"settle in 4 passes \(--most-passes\)"):
        settle(model.chosen, model.check, most=4)
    assert model.checks == 3
