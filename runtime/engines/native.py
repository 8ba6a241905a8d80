"""A policy compiled for this machine's CPU: `native.c` runs a whole tick in one call."""

from __future__ import annotations

import ctypes
import os
import platform
import weakref
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.bundle import WEIGHTS_FILE, Manifest, open_checked
from gatort.runtime.context import Block, Frame
from gatort.runtime.errors import EngineError
from gatort.runtime.patches import patch_intervals
from gatort.runtime.spec import (
    CONTINUOUS_BINS,
    FIRST_CONTINUOUS_ID,
    VOCABULARY,
    ModelDims,
    PolicySpec,
)

from .engine import Mark, no_mark
from .graph import BLOCK_INPUTS, PATCHES
from .native_build import SOURCE, load_kernels
from .native_weights import LANES, NativeModel, NativePrecision

MOST_THREADS = 16


class _Pass(ctypes.Structure):
    _fields_ = [
        ("rows", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in (*BLOCK_INPUTS, PATCHES, "token", "logits")),
    ]


class _Bound(NamedTuple):
    """A frame and the passes that hold its addresses."""

    frame: Frame
    """Frame, kept alive so that its id and its memory stay its own."""
    passes: ctypes.Array[_Pass]
    """Passes as `native.c` reads them: `sight` first, if there is one."""
    ahead: int
    """Number of passes that run before the joints are read: 1 with a `sight`, else 0."""


class NativeEngine:
    """The bundle's `model.safetensors`, run by `native.c`; see `Engine`.

    At w8a8 each matrix of the layers is rounded to the nearest 8-bit codes, with a scale per
    output. Its inputs are rounded to 8 bits with a scale per token. Embeddings, head, norms,
    attention and cache stay in float32. All ticks of an engine must come from one thread.
    """

    stepwise = False
    source: ClassVar[Path] = SOURCE
    """C file to compile: `native.c`, or one that includes it and defines its seams."""
    norm_biases: ClassVar[bool] = True
    """True if the model's norms have a bias."""

    def __init__(
        self,
        directory: Path,
        manifest: Manifest,
        threads: int,
        precision: NativePrecision = "fp32",
    ) -> None:
        """Compile the kernels, read the weights, allocate the cache and start the threads.

        The engine takes at most 16 threads, and no more than the cores that the caller may use:
        further threads would only wait.

        Raises:
            BundleError: the weights changed since the bundle was written.
            EngineError: the engine has no kernel for the policy or this processor, the compiler
                failed, or the weights are not those of the manifest's model.
            MissingDependency: GCC is not installed.
        """
        self.name = f"native {precision}"
        spec = manifest.spec
        dims = manifest.model
        _require_kernels(dims)

        decodes = spec.action_tokens - 1
        self._shape = ((spec.observation_tokens + 2, *[1] * decodes), spec.window_tokens)
        self._first_id = dims.first_token_id
        self._bound: dict[int, _Bound] = {}
        passes = len(self._shape[0]) + 1  # A prefill may come in two.

        self._library = load_kernels(self.source, _constants(spec, dims, precision))
        with open_checked(directory, manifest, WEIGHTS_FILE) as file:
            self._model = NativeModel(
                file,
                directory / WEIGHTS_FILE,
                dims,
                precision,
                _cache_rows(spec),
                _patch_positions(spec),
                norm_biases=self.norm_biases,
            )
        self._engine = self._start(threads, passes)

    def _start(self, threads: int, passes: int) -> int:
        """Start the threads and return the address of the C engine."""
        threads = max(1, min(threads, len(os.sched_getaffinity(0)), MOST_THREADS))
        engine: int | None = self._library.start(ctypes.byref(self._model.struct), threads, passes)
        if not engine:
            raise EngineError(f"{self.name}: no memory or no threads for {threads} threads")

        # The threads must end before their memory is freed. At exit the process takes both along.
        weakref.finalize(self, self._library.stop, engine).atexit = False
        return engine

    def see(self, frame: Frame) -> None:
        """See `Engine.see`.

        Raises:
            EngineError: the frame belongs to another policy, or an id has no embedding.
        """
        bound = self._bound.get(id(frame)) or self._bind(frame)
        if frame.sight is not None:
            self._run(bound, frame.sight.ids, 0, bound.ahead)

    def tick(self, frame: Frame, mark: Mark = no_mark) -> None:
        """See `Engine.tick`.

        Raises:
            EngineError: the frame belongs to another policy, or an id has no embedding.
        """
        bound = self._bound.get(id(frame)) or self._bind(frame)
        first = bound.ahead if frame.seen else 0
        self._run(bound, frame.prefill.ids, first, len(bound.passes))
        mark()

    def _run(self, bound: _Bound, ids: NDArray[np.int64], first: int, end: int) -> None:
        """Run the passes from `first` to before `end`, which read `ids`."""
        if ids.min() < self._first_id or ids.max() >= VOCABULARY:
            raise EngineError(
                f"expected token ids in [{self._first_id}, {VOCABULARY}), "
                f"found {ids.min()} to {ids.max()}"
            )
        at = ctypes.byref(bound.passes, first * ctypes.sizeof(_Pass))
        self._library.tick(self._engine, at, end - first)

    def _bind(self, frame: Frame) -> _Bound:
        """Take the addresses of a frame's arrays once."""
        found = (tuple(len(block.local) for block in frame.passes), frame.prefill.mask.shape[1])
        if found != self._shape:
            raise EngineError(f"expected a frame of passes and window {self._shape}, found {found}")

        passes = [] if frame.sight is None else [_pass(frame.sight)]
        ahead = len(passes)
        for index, block in enumerate((frame.rest, *frame.passes[1:])):
            token, logits = frame.tokens[index : index + 1], frame.logits[index]
            passes.append(_pass(block, token.ctypes.data, logits.ctypes.data))
        bound = _Bound(frame, (_Pass * len(passes))(*passes), ahead)
        self._bound[id(frame)] = bound
        return bound

    def reset(self) -> None:
        """See `Engine.reset`; the mask hides old rows, and zeros keep runs equal to the bit."""
        for cached in self._model.caches:
            cached.fill(0)


def _pass(block: Block, token: int | None = None, logits: int | None = None) -> _Pass:
    """Return a pass over a block. It fills the cache alone without token and logits."""
    read = [getattr(block, name).ctypes.data for name in BLOCK_INPUTS]
    patches = block.patches
    pixels = patches.ctypes.data if patches is not None and len(patches) else None
    return _Pass(len(block.local), *read, pixels, token, logits)


def _require_kernels(dims: ModelDims) -> None:
    """Check that `native.c` has kernels for the processor and the model.

    Raises:
        EngineError: it has none.
    """
    if platform.machine() != "x86_64":
        raise EngineError(
            f"--engine native is written for x86-64, found {platform.machine()}; use --engine onnx"
        )
    if dims.first_token_id > FIRST_CONTINUOUS_ID:
        raise EngineError(
            f"expected first_token_id up to {FIRST_CONTINUOUS_ID}, found {dims.first_token_id}"
        )
    for name in ("head_size", "width", "ff_half_width"):
        # The bounds of `ModelDims` keep sizes of the kernels' memory within its 64-bit indices.
        if getattr(dims, name) % LANES:
            raise EngineError(
                f"--engine native takes multiples of {LANES}, found {name} {getattr(dims, name)}; "
                "use --engine onnx"
            )


def _cache_rows(spec: PolicySpec) -> int:
    """Return the rows of a head's cache: the window in whole pairs of panels."""
    return -(-spec.window_tokens // (2 * LANES)) * 2 * LANES


def _patch_positions(spec: PolicySpec) -> NDArray[np.int64]:
    """Return the mean row and column of each patch of a frame, (2, p)."""
    if not spec.image_tokens:
        return np.empty((2, 0), np.int64)
    low, high = patch_intervals(spec)
    return (low + high) // 2


def _constants(spec: PolicySpec, dims: ModelDims, precision: NativePrecision) -> tuple[str, ...]:
    """Return the definitions with which `native.c` is compiled."""
    values = {
        "LAYERS": dims.layers,
        "WIDTH": dims.width,
        "HEADS": dims.heads,
        "HEAD": dims.head_size,
        "HALF_WIDTH": dims.ff_half_width,
        "WINDOW": spec.window_tokens,
        "SPAN": _cache_rows(spec),
        "ROWS": spec.observation_tokens + 2,
        "PATCHES": spec.image_tokens,
        "IMAGE_AT": 1 + sum(key.tokens for key in spec.observations if key.encoding == "text"),
        "BINS": CONTINUOUS_BINS,
        "FIRST_ID": dims.first_token_id,
        "FIRST_BIN_ID": FIRST_CONTINUOUS_ID,
        "MOST_THREADS": MOST_THREADS,
        "CODES": int(precision == "w8a8"),
    }
    return tuple(f"-D{name}={value}" for name, value in values.items())
