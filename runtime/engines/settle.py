"""Exact decoding: run the action tokens again until they come out as they went in.

A causal model's first token depends on no guess. So each pass makes one more token right at least,
and A passes give the tokens of greedy decoding (Jacobi iteration; Santilli et al. 2023, arXiv
2305.10427). A token that comes out as it went in stays right whatever stands behind it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.context import Frame
from gatort.runtime.errors import EngineError
from gatort.runtime.spec import SEPARATOR_ID


def run_guessed(frame: Frame, first: Callable[[], None], check: Callable[[], None] | None) -> None:
    """Run a tick whose first pass chooses all its tokens.

    Args:
        frame: frame of the tick; its `chosen` is where both passes write.
        first: runs `frame.full`, or the rest of it after `see`.
        check: runs `frame.check`, as `settle` asks for it, in an exact tick. `None` in a parallel
            one, in which no action token sees another.

    Raises:
        EngineError: a pass failed, or the tokens did not settle.
    """
    if check is None:
        hide_guess(frame)
    first()
    frame.runs = 1 if check is None else settle(frame.chosen, check, frame.most_runs)
    frame.tokens[:] = frame.chosen


def hide_guess(frame: Frame) -> None:
    """Replace the guess by separators, which tell nothing."""
    frame.guess[:] = SEPARATOR_ID


def settle(chosen: NDArray[np.int64], check: Callable[[], None], most: int) -> int:
    """Check the tokens of a first pass until none changes. Return the number of passes.

    There is always one check. So the result is what the pass over A − 1 positions gives, whose
    products may differ from the longer first pass in the last bit.

    Args:
        chosen: (A,) tokens of the first pass; at the end those of greedy decoding.
        check: reads the tokens in `chosen` but the last and writes all but the first.
        most: largest number of passes, the first one included. A passes always suffice.

    Raises:
        EngineError: some tokens still changed in the last pass.
    """
    for passes in range(2, min(most, len(chosen)) + 1):
        fed = chosen[1:-1].copy()
        check()
        if np.array_equal(chosen[1:-1], fed):
            return passes
    if most < len(chosen):
        raise unsettled(most)
    return len(chosen)


def unsettled(most: int) -> EngineError:
    """Return the error of a tick that ends without tokens that are known to be exact."""
    return EngineError(
        f"expected tokens that settle in {most} passes (--most-passes), found some that changed in "
        "the last one"
    )
