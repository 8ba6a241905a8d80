"""Weights on a grid of a few bits: whole codes times a scale, numpy alone.

A group of `block` consecutive inputs shares a scale in each output channel. Letters: K inputs, N outputs of a matrix
(K, N), B inputs in a group, G = K / B groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

DAMPING = 0.01
"""Share of the mean diagonal that is added to the Gram matrix (Frantar et al., section 3.3)."""
SAMPLE_ROWS = 64
"""Rows on which a coarser grid has to fit before it is tried on all."""
COLUMNS_AT_ONCE = 256
"""So many fit a core's cache, which halves the time."""
GRID_TOLERANCE = 1e-4
"""In steps of the grid: float32 division of a code by its scale is off by 1e-5 of a step at most."""


@dataclass(frozen=True, slots=True)
class Rounded:
    """A matrix as `codes` times `scales`."""

    codes: NDArray[np.int8]
    """(K, N), in [−2^(bits−1), 2^(bits−1) − 1]."""
    scales: Floats
    """(G, N)"""

    def values(self) -> Floats:
        """The matrix that they stand for, (K, N)."""
        groups, outputs = self.scales.shape
        return (self.codes.reshape(groups, -1, outputs) * self.scales[:, None]).reshape(-1, outputs)


def round_nearest(
    weight: Floats, bits: int, block: int, importance: NDArray[np.float64] | None = None
) -> Rounded:
    """Round each weight (K, N) to the nearest code, the scales searched so that the squared error is least.

    Args:
        weight: (K, N).
        bits: of a code.
        block: B, a divisor of K.
        importance: (K,) weight of each input's error, all alike when none.
    """
    inputs, outputs = weight.shape
    groups = weight.reshape(-1, block, outputs)  # (G, B, N)
    weights = np.ones(inputs) if importance is None else importance
    scales = np.stack(
        [
            best_scales(group, bits, each.astype(np.float32))
            for group, each in zip(groups, weights.reshape(-1, block), strict=True)
        ]
    )  # (G, N)
    codes = np.empty((len(groups), block, outputs), np.int8)
    for group, scale, code in zip(groups, scales, codes, strict=True):
        code[:] = _codes(group, scale, bits)
    return Rounded(codes.reshape(inputs, outputs), scales)


def round_compensated(weight: Floats, bits: int, block: int, gram: NDArray[np.float64]) -> Rounded:
    """Round input after input, each error made good by the inputs not yet rounded: GPTQ.

    Frantar et al., arXiv 2210.17323. What is kept is the layer's output over the recorded inputs, not its weights.

    Args:
        weight: (K, N).
        bits: of a code.
        block: B, a divisor of K.
        gram: (K, K), sum over recorded inputs x of x·xᵀ.
    """
    inputs, outputs = weight.shape
    upper = _inverse_factor(gram)  # (K, K)
    left = weight.astype(np.float32)  # a copy, what is still to be rounded
    codes = np.empty((inputs, outputs), np.int8)
    scales = np.empty((inputs // block, outputs), np.float32)
    step = min(block, 128)  # errors reach later rows in one product per step
    for start in range(0, inputs, step):
        rows = slice(start, start + step)
        if start % block == 0:
            whole = slice(start, start + block)
            scales[start // block] = best_scales(
                left[whole], bits, np.diag(gram)[whole].astype(np.float32)
            )
        codes[rows], errors = _compensate_within(
            left[rows], upper[rows, rows], scales[start // block], bits
        )
        left[start + step :] -= upper[rows, start + step :].T @ errors
    return Rounded(codes, scales)


def _inverse_factor(gram: NDArray[np.float64]) -> Floats:
    """Upper Cholesky factor of the damped Gram matrix's inverse, (K, K)."""
    damped = gram + np.eye(len(gram)) * (
        DAMPING * np.trace(gram) / len(gram) + np.finfo(np.float32).tiny
    )
    factor: Floats = np.linalg.cholesky(np.linalg.inv(damped)).T.astype(np.float32)
    return factor


def _compensate_within(
    rows: Floats, upper: Floats, scale: Floats, bits: int
) -> tuple[NDArray[np.int8], Floats]:
    """Round `rows` (b, N) in order, in place; their codes (b, N) and errors (b, N) in units of the factor."""
    codes, errors = np.empty(rows.shape, np.int8), np.empty_like(rows)
    for index, row in enumerate(rows):
        codes[index] = _codes(row, scale, bits)
        errors[index] = (row - codes[index] * scale) / upper[index, index]
        rows[index + 1 :] -= np.outer(upper[index, index + 1 :], errors[index])
    return codes, errors


def best_scales(group: Floats, bits: int, importance: Floats) -> Floats:
    """Scale (N,) of each column of `group` (B, N) with the least squared error weighted by `importance` (B,).

    Tried are the largest magnitude over the largest code, somewhat less than that (the largest weights are then cut,
    and all others rounded more finely), and every coarser grid on which the column already lies: such a column comes
    back exactly, if its scale has at most 16 significant bits, as every float16 has.
    """
    chunks = range(0, group.shape[1], COLUMNS_AT_ONCE)
    parts = (np.ascontiguousarray(group[:, first : first + COLUMNS_AT_ONCE]) for first in chunks)
    return np.concatenate([_best_scales(part, bits, importance) for part in parts])


def _best_scales(group: Floats, bits: int, importance: Floats) -> Floats:
    """`best_scales` of a few columns."""
    most = 2 ** (bits - 1) - 1
    largest = np.maximum(np.abs(group).max(axis=0), np.finfo(np.float32).tiny)  # (N,)
    best = largest / most
    least = _errors(group, best, bits, importance)
    for reach in (most + 1, *(most * more for more in (1.05, 1.1, 1.2, 1.35))):
        _keep_better(best, least, largest / np.float32(reach), slice(None), group, bits, importance)
    sample = group[:: max(1, len(group) // SAMPLE_ROWS)]
    for reach in range(1, most):
        scale = largest / np.float32(reach)
        steps = sample / scale
        fits = np.flatnonzero((np.abs(steps - np.rint(steps)) < GRID_TOLERANCE).all(axis=0))
        if len(fits):
            _keep_better(best, least, scale[fits], fits, group[:, fits], bits, importance)
    scales: Floats = best
    return scales


def _keep_better(
    best: Floats,
    least: Floats,
    scale: Floats,
    columns: slice | NDArray[np.int64],
    group: Floats,
    bits: int,
    importance: Floats,
) -> None:
    """Put `scale` into `best` and its error into `least` where it is the better of the two."""
    errors = _errors(group, scale, bits, importance)
    best[columns] = np.where(errors < least[columns], scale, best[columns])
    least[columns] = np.minimum(errors, least[columns])


def _errors(group: Floats, scale: Floats, bits: int, importance: Floats) -> Floats:
    """Weighted squared error of each column, (N,)."""
    apart = _steps(group, scale, bits)
    apart *= scale
    apart -= group
    np.square(apart, out=apart)
    errors: Floats = np.einsum("b,bn->n", importance, apart)
    return errors


def _steps(weight: Floats, scale: Floats, bits: int) -> Floats:
    """Whole numbers of steps nearest to the weight, within the codes' range."""
    steps: Floats = weight / scale
    np.rint(steps, out=steps)
    np.clip(steps, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, out=steps)
    return steps


def _codes(weight: Floats, scale: Floats, bits: int) -> NDArray[np.int8]:
    return _steps(weight, scale, bits).astype(np.int8)
