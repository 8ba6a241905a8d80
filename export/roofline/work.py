"""Bytes to move and operations to compute in a tick, counted from frame and model dimensions.

Letters as in `policies/model.py`: D width, F half of the feed-forward width, H heads, h head size,
L layers, W window, R action bins, t positions and p patches of one pass. A matrix (K, N) has K
inputs and N outputs.

A prefill reads O + 2 positions, and each of the A − 1 decodes reads one. Keys and values of the
whole window are read, masked or not. The last layer computes its queries and everything after them
for one position alone. Activations between operators are left out: they are a few megabytes and
stay in a cache. The count is therefore a floor, not an estimate. Tests compare it with an exported
graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd

from gatort.export.rounding import BLOCK, SMALLEST_BLOCK
from gatort.runtime.spec import CONTINUOUS_BINS, PATCH_PIXELS, ModelDims, PolicySpec, Precision

# Sizes of the patch embedding in `policies/model.py`, whose import would need PyTorch.
_PATCH_CHANNELS = 96
_PATCH_STRIDE = 4
_CELLS = (PATCH_PIXELS // _PATCH_STRIDE) ** 2
_ROOT = 3 * _PATCH_STRIDE**2 * _PATCH_CHANNELS
_CONVOLUTION = 9 * _PATCH_CHANNELS**2

Matrix = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Rates:
    """Speed of a machine."""

    read_bytes_s: float
    """Bytes read from memory in a second."""
    flop_s: float
    """Floating-point operations in a second."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Size of numbers in memory."""

    precision: Precision
    """Precision of the layers' matrices."""
    float_bytes: int
    """Size of any other number (cache, head, embeddings, norms, scales): 4 or 2."""

    def matrix_bytes(self, matrix: Matrix) -> float:
        """Return the size of a layer's matrix, its codes and scales; see
        `gatort.export.precision`.
        """
        inputs, outputs = matrix
        block = gcd(inputs, BLOCK)
        if self.precision == "int8":
            return inputs * outputs + outputs * self.float_bytes
        if self.precision == "int4" and block >= SMALLEST_BLOCK:
            return inputs * outputs / 2 + inputs // block * outputs * self.float_bytes
        return inputs * outputs * self.float_bytes


@dataclass(frozen=True, slots=True)
class Work:
    """Least work of one pass."""

    weights_bytes: float
    """Size of the weights that are read."""
    cache_bytes: float
    """Size of the keys and values that are read and written."""
    flops: float
    """Number of multiplications and additions in matrix products, attention and convolutions."""

    @property
    def moved_bytes(self) -> float:
        """Size of weights and cache together."""
        return self.weights_bytes + self.cache_bytes

    def memory_s(self, rates: Rates) -> float:
        """Return the time that moving the bytes takes."""
        return self.moved_bytes / rates.read_bytes_s

    def compute_s(self, rates: Rates) -> float:
        """Return the time that computing takes."""
        return self.flops / rates.flop_s

    def floor_s(self, rates: Rates) -> float:
        """Return the longer of both times: at best they overlap (Williams 2009,
        10.1145/1498765.1498785).
        """
        return max(self.memory_s(rates), self.compute_s(rates))


def tick_work(spec: PolicySpec, dims: ModelDims, storage: Storage) -> tuple[Work, ...]:
    """Return the work of a tick's A passes: the prefill and A − 1 decodes."""
    prefill = pass_work(spec, dims, storage, spec.observation_tokens + 2, spec.image_tokens)
    return prefill, *[pass_work(spec, dims, storage, 1, 0)] * (spec.action_tokens - 1)


def floor_s(passes: tuple[Work, ...], rates: Rates) -> float:
    """Return the shortest time of a tick: each pass waits for the token before it, so floors add
    up.
    """
    return sum(each.floor_s(rates) for each in passes)


def pass_work(
    spec: PolicySpec, dims: ModelDims, storage: Storage, positions: int, patches: int
) -> Work:
    """Return the work of one pass over t positions, p of them patches."""
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
    """Yield a layer's matrices in order: qkv, out, up, down."""
    row = dims.heads * dims.head_size
    yield dims.width, 3 * row
    yield row, dims.width
    yield dims.width, 2 * dims.ff_half_width
    yield dims.ff_half_width, dims.width


def _products(dims: ModelDims, positions: int) -> int:
    """Return the multiplications in the layers' matrices.

    The last layer needs qkv at every position and its other matrices at one.
    """
    qkv, *rest = (inputs * outputs for inputs, outputs in _matrices(dims))
    return dims.layers * positions * qkv + ((dims.layers - 1) * positions + 1) * sum(rest)


def _patch_products(dims: ModelDims) -> int:
    """Return the multiplications per patch: three convolutions over its cells, one projection."""
    return _CELLS * (_ROOT + 2 * _CONVOLUTION) + _CELLS * _PATCH_CHANNELS * dims.width


def _other_weights(dims: ModelDims, positions: int, patches: int) -> int:
    """Return the count of numbers read beside the layers' matrices.

    These are the head, the norms, rows of the embeddings and the patch embedding.
    """
    head = CONTINUOUS_BINS * dims.width
    norms = (4 * dims.layers + 2) * dims.width
    rows = (2 * positions - patches) * dims.width
    embedding = _patch_weights(dims, patches) if patches else 0
    return head + norms + rows + embedding


def _patch_weights(dims: ModelDims, patches: int) -> int:
    """Return the count of a patch embedding's weights.

    These are convolutions, norms, the projection, and a row for each patch's place in its image.
    """
    biases = 3 * _PATCH_CHANNELS + 4 * _PATCH_CHANNELS + dims.width
    projection = _CELLS * _PATCH_CHANNELS * dims.width
    return _ROOT + 2 * _CONVOLUTION + biases + projection + patches * dims.width
