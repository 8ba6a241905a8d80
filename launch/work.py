"""What a tick has to move and to compute, counted from the policy's frame and the model's dimensions.

Letters as in `policies/model.py`: D width, F half of the feed-forward width, H heads, h head size, L layers, W window,
R action bins, t positions and p patches of one pass; a matrix is (K, N), K inputs and N outputs. A prefill reads
O + 2 positions, each of the A − 1 decodes one. Keys and values of the whole window are read, masked or not. The last
layer computes its queries and all that follows for one position alone. Activations between operators are left out: they
are a few megabytes and stay in a cache. So does a count give a floor, not an estimate. Tests count an exported graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd

from gatort.export.precision import (
    BLOCK,
    SMALLEST_BLOCK,
)
from gatort.runtime.spec import (
    CONTINUOUS_BINS,
    PATCH_PIXELS,
    ModelDims,
    PolicySpec,
    Precision,
)

# The patch embedding of `policies/model.py`, which needs PyTorch to be imported.
_PATCH_CHANNELS = 96
_PATCH_STRIDE = 4
_CELLS = (PATCH_PIXELS // _PATCH_STRIDE) ** 2
_ROOT = 3 * _PATCH_STRIDE**2 * _PATCH_CHANNELS
_CONVOLUTION = 9 * _PATCH_CHANNELS**2

Matrix = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast a machine reads and multiplies."""

    read_bytes_s: float
    flop_s: float


@dataclass(frozen=True, slots=True)
class Storage:
    """How numbers lie in memory."""

    precision: Precision
    """Of the layers' matrices."""
    float_bytes: int
    """Of everything else: cache, head, embeddings, norms, scales; 4 or 2."""

    def matrix_bytes(self, matrix: Matrix) -> float:
        """Codes and scales of a layer's matrix, see `gatort.export.precision`."""
        inputs, outputs = matrix
        block = gcd(inputs, BLOCK)
        if self.precision == "int8":
            return inputs * outputs + outputs * self.float_bytes
        if self.precision == "int4" and block >= SMALLEST_BLOCK:
            return inputs * outputs / 2 + inputs // block * outputs * self.float_bytes
        return inputs * outputs * self.float_bytes


@dataclass(frozen=True, slots=True)
class Work:
    """What one pass moves and computes at least."""

    weights_bytes: float
    cache_bytes: float
    """Keys and values read and written."""
    flops: float
    """Multiplications and additions of matrix products, attention and convolutions."""

    @property
    def moved_bytes(self) -> float:
        """Weights and cache."""
        return self.weights_bytes + self.cache_bytes

    def memory_s(self, rates: Rates) -> float:
        """How long moving takes."""
        return self.moved_bytes / rates.read_bytes_s

    def compute_s(self, rates: Rates) -> float:
        """How long computing takes."""
        return self.flops / rates.flop_s

    def floor_s(self, rates: Rates) -> float:
        """The longer of the two: at best they overlap (Williams et al. 2009, doi 10.1145/1498765.1498785)."""
        return max(self.memory_s(rates), self.compute_s(rates))


def tick_work(spec: PolicySpec, dims: ModelDims, storage: Storage) -> tuple[Work, ...]:
    """The A passes of a tick: the prefill and A − 1 decodes."""
    prefill = pass_work(spec, dims, storage, spec.observation_tokens + 2, spec.image_tokens)
    return prefill, *[pass_work(spec, dims, storage, 1, 0)] * (spec.action_tokens - 1)


def floor_s(passes: tuple[Work, ...], rates: Rates) -> float:
    """The shortest tick: passes wait for one another's token, so their floors add up."""
    return sum(each.floor_s(rates) for each in passes)


def pass_work(
    spec: PolicySpec, dims: ModelDims, storage: Storage, positions: int, patches: int
) -> Work:
    """One pass over t positions, p of them patches."""
    attended = positions * (dims.layers - 1) + 1
    row = dims.heads * dims.head_size  # H·h
    multiplied = _products(dims, positions) + 2 * row * spec.window_tokens * attended
    multiplied += CONTINUOUS_BINS * dims.width + patches * _patch_products(dims)
    matrices_bytes = dims.layers * sum(storage.matrix_bytes(matrix) for matrix in _matrices(dims))
    cache_rows = 2 * dims.layers * (spec.window_tokens + positions)
    return Work(
        weights_bytes=matrices_bytes
        + _other_weights(dims, positions, patches) * storage.float_bytes,
        cache_bytes=cache_rows * row * storage.float_bytes,
        flops=2 * multiplied,
    )


def _matrices(dims: ModelDims) -> Iterator[Matrix]:
    """A layer's matrices in order: qkv, out, up, down."""
    row = dims.heads * dims.head_size
    yield dims.width, 3 * row
    yield row, dims.width
    yield dims.width, 2 * dims.ff_half_width
    yield dims.ff_half_width, dims.width


def _products(dims: ModelDims, positions: int) -> int:
    """Multiplications in the layers' matrices; the last layer's qkv is wanted everywhere, the rest once."""
    qkv, *rest = (inputs * outputs for inputs, outputs in _matrices(dims))
    return dims.layers * positions * qkv + ((dims.layers - 1) * positions + 1) * sum(rest)


def _patch_products(dims: ModelDims) -> int:
    """Multiplications per patch: three convolutions over its cells, one projection."""
    return _CELLS * (_ROOT + 2 * _CONVOLUTION) + _CELLS * _PATCH_CHANNELS * dims.width


def _other_weights(dims: ModelDims, positions: int, patches: int) -> int:
    """How many numbers are read beside the layers' matrices: head, norms, rows of embeddings, patch embedding."""
    norms = (4 * dims.layers + 2) * dims.width
    rows = (2 * positions - patches) * dims.width
    return (
        CONTINUOUS_BINS * dims.width
        + norms
        + rows
        + (_patch_weights(dims, patches) if patches else 0)
    )


def _patch_weights(dims: ModelDims, patches: int) -> int:
    """Convolutions, norms, projection, and a row for where in its image each patch lies."""
    biases = 3 * _PATCH_CHANNELS + 4 * _PATCH_CHANNELS + dims.width
    projection = _CELLS * _PATCH_CHANNELS * dims.width
    return _ROOT + 2 * _CONVOLUTION + biases + projection + patches * dims.width
