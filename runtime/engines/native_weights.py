"""A bundle's weights in the order in which the kernels of `native.c` read them.

Letters: N outputs and K inputs of a matrix. A panel holds 16 outputs side by side.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from gatort.runtime.errors import EngineError
from gatort.runtime.spec import CONTINUOUS_BINS, FIRST_CONTINUOUS_ID, VOCABULARY, ModelDims

LANES = 16
"""Number of outputs in a panel, and of floats in a vector."""
LARGEST_CODE = 127
"""Largest absolute value of a weight's code."""
INPUT_OFFSET = 128
"""Code of an input that is 0."""

NativePrecision = Literal["fp32", "w8a8"]
Weights = dict[str, NDArray[np.float32]]

_NORM_PARTS = ("weight", "bias")


# -- Structs of `native.c` -----------------------------------------------------------------------


class _Matrix(ctypes.Structure):
    _fields_ = [
        ("panels", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
    ]


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("norm_1", "norm_1_bias", "norm_2", "norm_2_bias")),
        *((name, _Matrix) for name in ("qkv", "out", "up", "down")),
        *((name, ctypes.c_void_p) for name in ("keys", "values")),
    ]


@cache
def _model_type(layers: int) -> type[ctypes.Structure]:
    """Return the C struct of a model with this number of layers."""
    names = ("tokens", "local", "norm", "norm_bias", "head")
    fields = [*((name, ctypes.c_void_p) for name in names), ("layers", _Layer * layers)]
    return type("_Model", (ctypes.Structure,), {"_fields_": fields})


# -- Reading -------------------------------------------------------------------------------------


class NativeModel:
    """A model's weights and cache, at addresses that stay valid as long as this object lives."""

    struct: ctypes.Structure
    """The model as `native.c` reads it."""
    caches: list[NDArray[np.float32]]
    """Keys and values of each layer in turn, in panels."""

    def __init__(
        self,
        path: Path,
        dims: ModelDims,
        precision: NativePrecision,
        cache_rows: int,
        *,
        norm_biases: bool,
    ) -> None:
        """Read the weights, bring them into the kernels' order and allocate the cache.

        Args:
            path: safetensors file.
            dims: dimensions of the model.
            precision: precision of the layers' matrices.
            cache_rows: rows of a head's cache, in whole pairs of panels.
            norm_biases: true if the model's norms have a bias.

        Raises:
            EngineError: the file cannot be read, or its weights are not those of the model.
        """
        try:
            weights: Weights = load_file(path)
            _require_shapes(weights, dims, norm_biases=norm_biases)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise EngineError(
                f"{path}: expected the weights of the manifest's model: {error}"
            ) from error

        self._weights = weights
        self._precision = precision
        self._kept: list[NDArray[np.generic]] = []
        size = dims.heads * cache_rows * dims.head_size
        self.caches = [_huge((size,), np.float32) for _ in range(2 * dims.layers)]

        layers = (_Layer * dims.layers)(*(self._layer(index) for index in range(dims.layers)))
        embeddings = [self._keep(weights[f"{name}.weight"]) for name in ("tokens", "local")]
        head = self._keep(_panels(_bin_embeddings(weights, dims)))
        self.struct = _model_type(dims.layers)(*embeddings, *self._norm("norm"), head, layers)
        del self._weights

    def _layer(self, index: int) -> _Layer:
        at = f"layers.{index}"
        keys, values = self.caches[2 * index : 2 * index + 2]
        return _Layer(
            *self._norm(f"{at}.norm_1"),
            *self._norm(f"{at}.norm_2"),
            self._matrix(f"{at}.attention.qkv.weight"),
            self._matrix(f"{at}.attention.out.weight"),
            self._matrix(f"{at}.feed_forward.up.weight"),
            self._matrix(f"{at}.feed_forward.down.weight"),
            keys.ctypes.data,
            values.ctypes.data,
        )

    def _norm(self, name: str) -> list[int | None]:
        """Return the addresses of a norm's weight and bias; `None` for a bias that it lacks."""
        arrays = (self._weights.get(f"{name}.{part}") for part in _NORM_PARTS)
        return [None if array is None else self._keep(array) for array in arrays]

    def _matrix(self, name: str) -> _Matrix:
        weight = self._weights[name]
        if self._precision == "w8a8":
            return self._coded(weight)
        return _Matrix(self._keep(_panels(weight)))

    def _coded(self, weight: NDArray[np.float32]) -> _Matrix:
        """Return a matrix (N, K) as codes, scales, and sums of codes times the inputs' offset."""
        largest = np.maximum(np.abs(weight).max(axis=1), np.finfo(np.float32).tiny)  # (N,)
        scales = largest / np.float32(LARGEST_CODE)  # (N,)
        codes = np.rint(weight / scales[:, None]).astype(np.int8)  # (N, K)
        offsets = codes.sum(axis=1, dtype=np.int32) * np.int32(INPUT_OFFSET)  # (N,)
        return _Matrix(*(self._keep(array) for array in (_code_panels(codes), scales, offsets)))

    def _keep(self, array: NDArray[np.generic]) -> int:
        """Keep an array alive and return its address."""
        self._kept.append(np.ascontiguousarray(array))
        return int(self._kept[-1].ctypes.data)


def _require_shapes(weights: Weights, dims: ModelDims, *, norm_biases: bool) -> None:
    """Check every array that a kernel reads through a bare address.

    Raises:
        KeyError, ValueError: an array is absent, of another shape or not finite; names it.
    """
    for name, shape in _expected_shapes(dims, norm_biases=norm_biases).items():
        found = weights[name]
        if found.shape != shape or found.dtype != np.float32:
            raise ValueError(f"{name}: expected float32 {shape}, found {found.dtype} {found.shape}")
        if not np.isfinite(found).all():
            raise ValueError(f"{name}: expected finite numbers, found NaN or infinity")


def _expected_shapes(dims: ModelDims, *, norm_biases: bool) -> dict[str, tuple[int, ...]]:
    width = dims.width
    inner = dims.heads * dims.head_size
    half = dims.ff_half_width
    shapes: dict[str, tuple[int, ...]] = {
        "tokens.weight": (VOCABULARY - dims.first_token_id, width),
        "local.weight": (dims.local_positions, width),
    }
    norms = ["norm"]
    for index in range(dims.layers):
        at = f"layers.{index}"
        norms += [f"{at}.norm_1", f"{at}.norm_2"]
        shapes |= {
            f"{at}.attention.qkv.weight": (3 * inner, width),
            f"{at}.attention.out.weight": (width, inner),
            f"{at}.feed_forward.up.weight": (2 * half, width),
            f"{at}.feed_forward.down.weight": (width, half),
        }

    parts = _NORM_PARTS if norm_biases else _NORM_PARTS[:1]
    return shapes | {f"{norm}.{part}": (width,) for norm in norms for part in parts}


# -- Panels --------------------------------------------------------------------------------------


def _bin_embeddings(weights: Weights, dims: ModelDims) -> NDArray[np.float32]:
    """Return the embeddings of the action bins, which are also the head (R, D)."""
    first = FIRST_CONTINUOUS_ID - dims.first_token_id
    return weights["tokens.weight"][first : first + CONTINUOUS_BINS]


def _huge(shape: Sequence[int], dtype: type[np.generic]) -> NDArray[Any]:
    """Return zeros in pages of 2 MB where the system has them.

    A decode reads all weights; in pages of 4 KB it would look up an address for each.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # Real-time kernels have no such pages.
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype).reshape(shape)


def _panels(weight: NDArray[np.float32]) -> NDArray[np.generic]:
    """Return a matrix (N, K) as (N / 16, K, 16): an input's weights in 16 outputs side by side."""
    panels = _huge((len(weight) // LANES, weight.shape[1], LANES), np.float32)
    panels[:] = weight.reshape(-1, LANES, weight.shape[1]).swapaxes(1, 2)
    return panels


def _code_panels(codes: NDArray[np.int8]) -> NDArray[np.generic]:
    """Return codes (N, K) as (N / 16, K / 4, 16, 4).

    VNNI instructions multiply four inputs of an output that lie side by side.
    """
    panels = _huge((len(codes) // LANES, codes.shape[1] // 4, LANES, 4), np.int8)
    panels[:] = codes.reshape(len(codes) // LANES, LANES, -1, 4).swapaxes(1, 2)
    return panels
