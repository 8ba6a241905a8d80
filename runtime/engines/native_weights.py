"""A bundle's weights in the order in which the kernels of `native.c` read them.

Letters: N outputs and K inputs of a matrix. A panel holds 16 outputs side by side.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from contextlib import suppress
from copy import copy
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.errors import EngineError
from gatort.runtime.patches import PATCH_INTERVALS
from gatort.runtime.spec import CONTINUOUS_BINS, FIRST_CONTINUOUS_ID, VOCABULARY, ModelDims
from gatort.runtime.tensors import TensorKind, read_tensors

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


_EYE_LAYERS = ("root", "norm_1", "conv_1", "norm_2", "conv_2", "project")
PATCH_CHANNELS = 96
PATCH_CELLS = 16
"""Cells of a patch, four by four."""


class _Eye(ctypes.Structure):
    _fields_ = [
        *((f"{layer}{part}", ctypes.c_void_p) for layer in _EYE_LAYERS for part in ("", "_bias")),
        ("place", ctypes.c_void_p),
    ]


@cache
def _model_type(layers: int) -> type[ctypes.Structure]:
    """Return the C struct of a model with this number of layers."""
    names = ("eye", "tokens", "local", "norm", "norm_bias", "head")
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
        file: IO[bytes],
        path: Path,
        dims: ModelDims,
        precision: NativePrecision,
        cache_rows: int,
        patch_positions: NDArray[np.int64],
        *,
        norm_biases: bool,
    ) -> None:
        """Read the weights, bring them into the kernels' order and allocate the cache.

        Args:
            file: open safetensors file.
            path: path of that file, for messages.
            dims: dimensions of the model.
            precision: precision of the layers' matrices.
            cache_rows: rows of a head's cache, in whole pairs of panels.
            patch_positions: row and column of each patch of a frame, (2, p).
            norm_biases: true if the model's norms have a bias.

        Raises:
            EngineError: the file cannot be read, or its weights are not those of the model.
        """
        shapes = _expected_shapes(dims, norm_biases=norm_biases)
        if patch_positions.size:
            shapes |= _eye_shapes(dims)
        weights = self._weights = _read(file, path, shapes)
        self._precision = precision
        self._kept: list[NDArray[np.generic]] = []
        size = dims.heads * cache_rows * dims.head_size
        self.caches = [_huge((size,), np.float32) for _ in range(2 * dims.layers)]

        layers = (_Layer * dims.layers)(*(self._layer(index) for index in range(dims.layers)))
        embeddings = [self._keep(weights[f"{name}.weight"]) for name in ("tokens", "local")]
        head = self._keep(_panels(_bin_embeddings(weights, dims)))
        eye = self._eye(patch_positions) if patch_positions.size else None
        self.struct = _model_type(dims.layers)(eye, *embeddings, *self._norm("norm"), head, layers)
        del self._weights

    def with_own_cache(self) -> NativeModel:
        """Return a model with the same weights, at the same addresses, and an empty cache."""
        made = copy(self)
        made.caches = [_huge(each.shape, np.float32) for each in self.caches]
        made.struct = type(self.struct).from_buffer_copy(self.struct)
        for index, layer in enumerate(made.struct.layers):
            keys, values = made.caches[2 * index : 2 * index + 2]
            layer.keys, layer.values = keys.ctypes.data, values.ctypes.data
        return made

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

    def _eye(self, positions: NDArray[np.int64]) -> int:
        """Return the address of the patches' embedding. It stays in float32 at every precision."""
        weights = self._weights
        matrices = {name: _eye_matrix(name, weights) for name in _EYE_LAYERS if "norm" not in name}
        addresses: list[int] = []
        for layer in _EYE_LAYERS:
            weight = weights[f"patches.{layer}.weight"]
            kept = _panels(matrices[layer]) if layer in matrices else weight
            addresses += [self._keep(kept), self._keep(weights[f"patches.{layer}.bias"])]
        row, column = positions
        place = weights["patches.row.weight"][row] + weights["patches.column.weight"][column]
        self._eye_struct = _Eye(*addresses, self._keep(place))
        return ctypes.addressof(self._eye_struct)

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


def _eye_matrix(layer: str, weights: Weights) -> NDArray[np.float32]:
    """Return a layer's weight as (N, K), with K in the order of the rows of `native_patches.h`.

    A convolution gives a matrix for each point, one below the other: (36 N, channels).
    """
    weight = weights[f"patches.{layer}.weight"]
    match layer:
        case "root":  # (N, colours, 4, 4), read in this order
            return weight.reshape(len(weight), -1)
        case "project":  # (N, channels · cells), read cell after cell
            cells = weight.reshape(len(weight), PATCH_CHANNELS, PATCH_CELLS)
            return cells.swapaxes(1, 2).reshape(len(weight), -1)
        case _:  # (N, channels, 3, 3), a matrix for each of 36 points
            values = _tap_values()
            points = np.einsum("vd,ncde,we->vwnc", values, weight, values)  # (6, 6, N, channels)
            rounded: NDArray[np.float32] = points.astype(np.float32)
            return rounded.reshape(-1, PATCH_CHANNELS)


def _tap_values() -> NDArray[np.float64]:
    """Return the values (6, 3) of three taps as a polynomial at the points of `native_patches.h`.

    A point's scale is that of Lagrange's interpolation: one over the product of the distances to
    the other points.
    """
    points = np.array([0.0, 0.75, -0.75, 1.5, -1.5])  # and infinity
    apart = points[:, None] - points
    np.fill_diagonal(apart, 1.0)
    values = np.vander(points, 3, increasing=True) / apart.prod(axis=1, keepdims=True)
    return np.vstack((values, [0.0, 0.0, 1.0]))


def _read(file: IO[bytes], path: Path, shapes: dict[str, tuple[int, ...]]) -> Weights:
    """Return every array that a kernel reads through a bare address.

    Raises:
        EngineError: an array is absent, of another shape or not finite; names it.
    """
    expected = {name: TensorKind(shape) for name, shape in shapes.items()}
    weights: Weights = {}
    for name, found in read_tensors(
        file, path, expected, EngineError, framework="np", exactly=False
    ):
        if not np.isfinite(found).all():
            raise EngineError(f"{path}: {name}: expected finite numbers, found NaN or infinity")
        weights[name] = found
    return weights


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


def _eye_shapes(dims: ModelDims) -> dict[str, tuple[int, ...]]:
    width = dims.width
    channels = PATCH_CHANNELS
    shapes: dict[str, tuple[int, ...]] = {
        "root.weight": (channels, 3, 4, 4),
        "project.weight": (width, channels * PATCH_CELLS),
        "project.bias": (width,),
        "row.weight": (PATCH_INTERVALS, width),
        "column.weight": (PATCH_INTERVALS, width),
        "root.bias": (channels,),
    }
    for index in (1, 2):
        shapes |= {f"norm_{index}.{part}": (channels,) for part in ("weight", "bias")}
        shapes[f"conv_{index}.weight"] = (channels, channels, 3, 3)
        shapes[f"conv_{index}.bias"] = (channels,)
    return {f"patches.{name}": shape for name, shape in shapes.items()}


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
