"""The policy compiled for this very CPU: `native.c` with the model's dimensions as constants, a whole tick in one call.

GCC takes a second or two when the engine is made; what it makes is loaded from a private
folder that is gone at once, so that nothing compiled is ever found, trusted or stale.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from gatort.runtime.bundle import (
    WEIGHTS_FILE,
    Manifest,
)
from gatort.runtime.context import (
    Block,
    Frame,
)
from gatort.runtime.errors import (
    EngineError,
    MissingDependency,
)
from gatort.runtime.spec import (
    CONTINUOUS_BINS,
    FIRST_CONTINUOUS_ID,
    VOCABULARY,
    ModelDims,
    PolicySpec,
)

from .engine import (
    Mark,
    no_mark,
)

SOURCE = Path(__file__).with_name("native.c")
COMPILER = "gcc"
"""Its vector extensions are what `native.c` is written in."""
LANES = 16
"""Numbers side by side in a panel."""
MOST_THREADS = 16
LARGEST_CODE, INPUT_OFFSET = 127, 128
"""Of a weight's code; and what an input's code is when the input is 0."""

NativePrecision = Literal["fp32", "w8a8"]
Blocks = Literal["gato", "llama"]
"""LayerNorm and GEGLU; or RMSNorm and SwiGLU, what `benchmarks/peers` compares engines by."""

Weights = dict[str, NDArray[np.float32]]


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


_BLOCK_INPUTS = ("ids", "local", "cos", "sin", "mask", "write_index", "bias")


class _Pass(ctypes.Structure):
    _fields_ = [
        ("rows", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in (*_BLOCK_INPUTS, "token", "logits")),
    ]


class _Bound(NamedTuple):
    """What a frame is bound to."""

    frame: Frame
    """Kept so that its id stays taken and its memory where it is."""
    passes: ctypes.Array[_Pass]


class NativeEngine:
    """The bundle's `model.safetensors`, run by `native.c`; see `Engine`.

    At w8a8 each matrix of the layers is 8-bit codes with a scale an output, rounded to the nearest here, and what they
    multiply is rounded to 8 bits with a scale a token; embeddings, head, norms, attention and cache stay in float32.
    Ticks of one engine are one thread's.
    """

    stepwise = False

    def __init__(
        self,
        directory: Path,
        manifest: Manifest,
        threads: int,
        precision: NativePrecision = "fp32",
        blocks: Blocks = "gato",
    ) -> None:
        """Compile, bring the weights into the kernels' order, allocate the cache and start the threads.

        Threads beyond the cores that the caller may use, or 16, are left out: they would wait for each other.

        Raises:
            EngineError: the engine has no kernel for the policy or this processor, the compiler failed, or the
                weights are not those of the manifest's model.
            MissingDependency: GCC is not installed.
        """
        self.name = f"native {precision}"
        spec, dims = manifest.spec, manifest.model
        _require_kernels(spec, dims)
        threads = max(1, min(threads, len(os.sched_getaffinity(0)), MOST_THREADS))
        self._shape = (
            (spec.observation_tokens + 2, *[1] * (spec.action_tokens - 1)),
            spec.window_tokens,
        )
        self._first_id = dims.first_token_id
        self._library = _library(_constants(spec, dims, precision, blocks))
        self._kept: list[NDArray[np.generic]] = []
        cached = dims.heads * _span(spec) * dims.head_size
        self._caches = [_huge((cached,), np.float32) for _ in range(2 * dims.layers)]
        self._model = self._read(directory / WEIGHTS_FILE, dims, precision, blocks)
        self._bound: dict[int, _Bound] = {}
        self._engine = self._library.start(ctypes.byref(self._model), threads, spec.action_tokens)
        if not self._engine:
            raise EngineError(f"{self.name}: no memory or no threads for {threads} threads")
        # Threads end before the memory that they read is given back; a process that exits takes both along.
        weakref.finalize(self, self._library.stop, self._engine).atexit = False

    def _read(
        self, path: Path, dims: ModelDims, precision: NativePrecision, blocks: Blocks
    ) -> ctypes.Structure:
        """Weights in the kernels' order."""
        try:
            weights: Weights = load_file(path)
            _require_shapes(weights, dims, blocks)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise EngineError(
                f"{path}: expected the weights of the manifest's model: {error}"
            ) from error

        def vectors(*names: str) -> list[int | None]:
            return [self._keep(weights[name]) if name in weights else None for name in names]

        def matrix(name: str) -> _Matrix:
            return (
                self._coded(weights[name])
                if precision == "w8a8"
                else _Matrix(self._keep(_panels(weights[name])))
            )

        layers = (_Layer * dims.layers)()
        for index in range(dims.layers):
            at = f"layers.{index}."
            layers[index] = _Layer(
                *vectors(
                    *(
                        f"{at}{norm}.{part}"
                        for norm in ("norm_1", "norm_2")
                        for part in ("weight", "bias")
                    )
                ),
                *(matrix(f"{at}attention.{name}.weight") for name in ("qkv", "out")),
                *(matrix(f"{at}feed_forward.{name}.weight") for name in ("up", "down")),
                *(cached.ctypes.data for cached in self._caches[2 * index : 2 * index + 2]),
            )
        tables = vectors("tokens.weight", "local.weight", "norm.weight", "norm.bias")
        first = FIRST_CONTINUOUS_ID - dims.first_token_id
        bins = weights["tokens.weight"][first : first + CONTINUOUS_BINS]
        return _model_type(dims.layers)(*tables, self._keep(_panels(bins)), layers)

    def _coded(self, weight: NDArray[np.float32]) -> _Matrix:
        """A matrix (N, K) as codes, their scales, and their sums times the inputs' offset."""
        scales = np.maximum(np.abs(weight).max(axis=1), np.finfo(np.float32).tiny) / np.float32(
            LARGEST_CODE
        )  # (N,)
        codes = np.rint(weight / scales[:, None]).astype(np.int8)
        offsets = codes.sum(axis=1, dtype=np.int32) * np.int32(INPUT_OFFSET)
        return _Matrix(*(self._keep(array) for array in (_code_panels(codes), scales, offsets)))

    def _keep(self, array: NDArray[np.generic]) -> int:
        """Its address, and the array itself for as long as the engine lives."""
        self._kept.append(np.ascontiguousarray(array))
        return int(self._kept[-1].ctypes.data)

    def tick(self, frame: Frame, mark: Mark = no_mark) -> None:
        """See `Engine.tick`.

        Raises:
            EngineError: the frame is not one of the policy's, or an id has no embedding.
        """
        bound = self._bound.get(id(frame)) or self._bind(frame)
        ids = frame.prefill.ids
        if ids.min() < self._first_id or ids.max() >= VOCABULARY:
            raise EngineError(
                f"expected token ids in [{self._first_id}, {VOCABULARY}), found {ids.min()} to {ids.max()}"
            )
        self._library.tick(self._engine, bound.passes, len(bound.passes))
        mark()

    def _bind(self, frame: Frame) -> _Bound:
        found = tuple(len(block.local) for block in frame.passes), frame.prefill.mask.shape[1]
        if found != self._shape:
            raise EngineError(f"expected a frame of passes and window {self._shape}, found {found}")
        passes = (_Pass * len(frame.passes))(
            *(
                _pass(block, frame.tokens[index : index + 1], frame.logits[index])
                for index, block in enumerate(frame.passes)
            )
        )
        bound = self._bound[id(frame)] = _Bound(frame, passes)
        return bound

    def reset(self) -> None:
        """See `Engine.reset`; the mask hides old rows, zeros keep runs alike to the bit."""
        for cached in self._caches:
            cached.fill(0)


def _pass(block: Block, token: NDArray[np.int64], logits: NDArray[np.float32]) -> _Pass:
    read = (getattr(block, name) for name in _BLOCK_INPUTS)
    return _Pass(len(block.local), *(array.ctypes.data for array in (*read, token, logits)))


def _require_kernels(spec: PolicySpec, dims: ModelDims) -> None:
    if platform.machine() != "x86_64":
        raise EngineError(
            f"--engine native is written for x86-64, found {platform.machine()}; use --engine onnx"
        )
    if spec.image_tokens:
        images = [key.name for key in spec.observations if key.encoding == "image"]
        raise EngineError(
            f"--engine native embeds no image patches, and the policy reads {images}; use --engine onnx"
        )
    if dims.first_token_id > FIRST_CONTINUOUS_ID:
        raise EngineError(
            f"expected first_token_id up to {FIRST_CONTINUOUS_ID}, found {dims.first_token_id}"
        )
    for name in ("head_size", "width", "ff_half_width"):
        if getattr(dims, name) % LANES:
            raise EngineError(
                f"--engine native takes multiples of {LANES}, found {name} {getattr(dims, name)}; use --engine onnx"
            )


def _require_shapes(weights: Weights, dims: ModelDims, blocks: Blocks) -> None:
    """Check every array that a kernel will read through a bare address.

    Raises:
        KeyError, ValueError: naming the array.
    """
    width, inner, half = dims.width, dims.heads * dims.head_size, dims.ff_half_width
    expected: dict[str, tuple[int, ...]] = {
        "tokens.weight": (VOCABULARY - dims.first_token_id, width),
        "local.weight": (dims.local_positions, width),
    }
    norms = ["norm"]
    for index in range(dims.layers):
        at = f"layers.{index}."
        norms += [f"{at}norm_1", f"{at}norm_2"]
        expected |= {
            f"{at}attention.qkv.weight": (3 * inner, width),
            f"{at}attention.out.weight": (width, inner),
            f"{at}feed_forward.up.weight": (2 * half, width),
            f"{at}feed_forward.down.weight": (width, half),
        }
    parts = ("weight", "bias") if blocks == "gato" else ("weight",)
    expected |= {f"{norm}.{part}": (width,) for norm in norms for part in parts}
    for name, shape in expected.items():
        found = weights[name]
        if found.shape != shape or found.dtype != np.float32:
            raise ValueError(f"{name}: expected float32 {shape}, found {found.dtype} {found.shape}")
        if not np.isfinite(found).all():
            raise ValueError(f"{name}: expected finite numbers, found NaN or infinity")


def _span(spec: PolicySpec) -> int:
    """Rows of a head's cache: the window in whole pairs of panels."""
    return -(-spec.window_tokens // (2 * LANES)) * 2 * LANES


def _huge(shape: Sequence[int], dtype: type[np.generic]) -> NDArray[np.generic]:
    """Zeros in pages of 2 MB where the system has them: a decode reads all weights, a page's address each 4 KB else."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without them, as real-time ones are
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype).reshape(shape)


def _panels(weight: NDArray[np.float32]) -> NDArray[np.generic]:
    """A matrix (N, K) as (N / 16, K, 16): what one input weighs in 16 outputs lies side by side."""
    panels = _huge((len(weight) // LANES, weight.shape[1], LANES), np.float32)
    panels[:] = weight.reshape(-1, LANES, weight.shape[1]).swapaxes(1, 2)
    return panels


def _code_panels(codes: NDArray[np.int8]) -> NDArray[np.generic]:
    """Codes (N, K) as (N / 16, K / 4, 16, 4): four inputs of an output side by side, as VNNI multiplies them."""
    panels = _huge((len(codes) // LANES, codes.shape[1] // 4, LANES, 4), np.int8)
    panels[:] = codes.reshape(len(codes) // LANES, LANES, -1, 4).swapaxes(1, 2)
    return panels


@cache
def _model_type(layers: int) -> type[ctypes.Structure]:
    """The C struct of a model with so many layers."""
    names = ("tokens", "local", "norm", "norm_bias", "head")
    fields = [*((name, ctypes.c_void_p) for name in names), ("layers", _Layer * layers)]
    return type("_Model", (ctypes.Structure,), {"_fields_": fields})


def _constants(
    spec: PolicySpec, dims: ModelDims, precision: NativePrecision, blocks: Blocks
) -> tuple[str, ...]:
    """What `native.c` is compiled with."""
    values = {
        "LAYERS": dims.layers,
        "WIDTH": dims.width,
        "HEADS": dims.heads,
        "HEAD": dims.head_size,
        "HALF_WIDTH": dims.ff_half_width,
        "WINDOW": spec.window_tokens,
        "SPAN": _span(spec),
        "ROWS": spec.observation_tokens + 2,
        "BINS": CONTINUOUS_BINS,
        "FIRST_ID": dims.first_token_id,
        "FIRST_BIN_ID": FIRST_CONTINUOUS_ID,
        "MOST_THREADS": MOST_THREADS,
        "LLAMA": int(blocks == "llama"),
        "CODES": int(precision == "w8a8"),
    }
    return tuple(f"-D{name}={value}" for name, value in values.items())


@cache
def _library(constants: tuple[str, ...]) -> ctypes.CDLL:
    """Compile and load `native.c`, once a process for each set of constants."""
    if (compiler := shutil.which(COMPILER)) is None:
        raise MissingDependency(
            f"--engine native needs {COMPILER}: on Debian, apt-get install gcc libc6-dev"
        )
    options = [
        "-std=gnu11",
        "-O3",
        "-march=native",
        "-fno-math-errno",
        "-pthread",
        "-shared",
        "-fPIC",
        "-Wl,-Bsymbolic",
    ]
    try:
        with tempfile.TemporaryDirectory(prefix="gatort-") as folder:
            target = Path(folder) / "native.so"
            command = [compiler, *options, *constants, str(SOURCE), "-o", str(target)]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode:
                raise EngineError(
                    f"--engine native: {compiler} cannot compile {SOURCE.name}:\n{done.stderr}"
                )
            library = ctypes.CDLL(str(target))
    except OSError as error:
        raise EngineError(
            f"--engine native: {error}; TMPDIR names a folder that may hold what is compiled and run it"
        ) from error
    library.start.argtypes, library.start.restype = (
        [ctypes.c_void_p, ctypes.c_int, ctypes.c_int],
        ctypes.c_void_p,
    )
    library.tick.argtypes, library.tick.restype = (
        [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int],
        None,
    )
    library.stop.argtypes, library.stop.restype = [ctypes.c_void_p], None
    return library
