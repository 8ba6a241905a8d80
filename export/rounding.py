"""Weights on a grid of a few bits: whole codes times a scale, in NumPy alone.

A group of `block` consecutive inputs shares a scale in each output channel. Letters: K inputs and N
outputs of a matrix (K, N), B inputs in a group, G = K / B groups. A weight that was trained on the
grid comes back exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Bits = Literal[4, 8]
FloatMatrix = NDArray[np.float32]

BLOCK = 128
"""Inputs that share a scale in int4."""
SMALLEST_BLOCK = 16
"""Smallest block that ONNX Runtime's kernel takes."""
SAMPLE_ROWS = 64
"""Number of rows that a coarser grid has to fit before it is tried on all rows."""
COLUMNS_AT_ONCE = 256
"""Number of columns that fit a core's cache, which halves the time."""
GRID_TOLERANCE = 1e-4
"""Tolerance in steps of the grid: float32 division of a code by its scale errs by at most 1e-5 of a
step."""
SHORTER_REACHES = (1.05, 1.1, 1.2, 1.35)
"""Multiples of the largest code that the largest magnitude is divided by, beside the code
itself."""


@dataclass(frozen=True, slots=True)
class Rounded:
    """A matrix as `codes` times `scales`."""

    codes: NDArray[np.int8]
    """Codes (K, N) in [−2^(bits−1), 2^(bits−1) − 1]."""
    scales: FloatMatrix
    """Scales (G, N), one per group and output."""

    def values(self) -> FloatMatrix:
        """Return the matrix (K, N) that codes and scales stand for."""
        groups, outputs = self.scales.shape
        return (self.codes.reshape(groups, -1, outputs) * self.scales[:, None]).reshape(-1, outputs)


def block_of(bits: Bits, inputs: int) -> int:
    """Return the number of inputs that share a scale, 0 where no block fits.

    All inputs share one in int8. In int4 it is BLOCK, else the largest power of two that divides
    the inputs and is at least SMALLEST_BLOCK.
    """
    if bits == 8:
        return inputs
    block = BLOCK
    while inputs % block:
        block //= 2
    return block if block >= SMALLEST_BLOCK else 0


def round_nearest(weight: FloatMatrix, bits: Bits, block: int) -> Rounded:
    """Round each weight to the nearest code, with the scales of the least squared error.

    Args:
        weight: matrix (K, N).
        bits: bits of a code.
        block: B, a divisor of K.
    """
    inputs, outputs = weight.shape
    groups = weight.reshape(-1, block, outputs)  # (G, B, N)
    scales = np.stack([best_scales(group, bits) for group in groups])  # (G, N)

    codes = np.empty((len(groups), block, outputs), np.int8)
    for group, scale, code in zip(groups, scales, codes, strict=True):
        code[:] = _steps(group, scale, bits)
    return Rounded(codes.reshape(inputs, outputs), scales)


def best_scales(group: FloatMatrix, bits: Bits) -> FloatMatrix:
    """Return the scale (N,) of each column of `group` (B, N) with the least squared error.

    Three kinds of scale are tried. The first is the largest magnitude over the largest code. The
    second is somewhat smaller: it cuts the largest weights and rounds all others more finely. The
    third is every coarser grid that the column already lies on. Such a column comes back exactly if
    its scale has at most 16 significant bits, as every float16 has.
    """
    chunks = range(0, group.shape[1], COLUMNS_AT_ONCE)
    parts = (np.ascontiguousarray(group[:, first : first + COLUMNS_AT_ONCE]) for first in chunks)
    return np.concatenate([_best_scales(part, bits) for part in parts])


def _best_scales(group: FloatMatrix, bits: Bits) -> FloatMatrix:
    """Return `best_scales` of a few columns."""
    most = 2 ** (bits - 1) - 1
    largest = np.maximum(np.abs(group).max(axis=0), np.finfo(np.float32).tiny)  # (N,)
    best: FloatMatrix = largest / most
    least = _errors(group, best, bits)

    for reach in (most + 1, *(most * more for more in SHORTER_REACHES)):
        _keep_better(best, least, largest / np.float32(reach), slice(None), group, bits)

    sample = group[:: max(1, len(group) // SAMPLE_ROWS)]
    for reach in range(1, most):
        scale = largest / np.float32(reach)
        steps = sample / scale
        fits = np.flatnonzero((np.abs(steps - np.rint(steps)) < GRID_TOLERANCE).all(axis=0))
        if len(fits):
            _keep_better(best, least, scale[fits], fits, group[:, fits], bits)
    return best


def _keep_better(
    best: FloatMatrix,
    least: FloatMatrix,
    scale: FloatMatrix,
    columns: slice | NDArray[np.int64],
    group: FloatMatrix,
    bits: Bits,
) -> None:
    """Write `scale` to `best` and its error to `least` where the error is smaller."""
    errors = _errors(group, scale, bits)
    best[columns] = np.where(errors < least[columns], scale, best[columns])
    least[columns] = np.minimum(errors, least[columns])


def _errors(group: FloatMatrix, scale: FloatMatrix, bits: Bits) -> FloatMatrix:
    """Return the squared error (N,) of each column."""
    apart = _steps(group, scale, bits)
    apart *= scale
    apart -= group
    errors: FloatMatrix = np.einsum("bn,bn->n", apart, apart)
    return errors


def _steps(weight: FloatMatrix, scale: FloatMatrix, bits: Bits) -> FloatMatrix:
    """Return the nearest whole numbers of steps within the codes' range."""
    steps: FloatMatrix = weight / scale
    np.rint(steps, out=steps)
    np.clip(steps, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, out=steps)
    return steps
