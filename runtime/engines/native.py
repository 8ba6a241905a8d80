"""A policy compiled for this machine's CPU: `native.c` runs a whole tick in one call."""

from __future__ import annotations

import ctypes
import os
import platform
import weakref
from copy import copy
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

from .engine import Decoding, Mark, named, no_mark
from .graph import BLOCK_INPUTS, PATCHES
from .native_build import SOURCE, load_kernels
from .native_weights import LANES, NativeModel, NativePrecision
from .settle import hide_guess, unsettled

MOST_THREADS = 16
POSITION_INPUTS = tuple(name for name in BLOCK_INPUTS if name != "bias")
"""Inputs of a pass that have a row for each position."""


class _Pass(ctypes.Structure):
    _fields_ = [
        ("rows", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in (*POSITION_INPUTS, PATCHES)),
        ("decides", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("bias", "logits", "tokens")),
        ("apart", ctypes.c_int64),
    ]


class _Draft(ctypes.Structure):
    _fields_ = [
        ("check", _Pass),
        ("guess", ctypes.c_void_p),
        ("tokens", ctypes.c_void_p),
        ("apart", ctypes.c_int64),
        ("most", ctypes.c_int64),
        ("runs", ctypes.c_int64),
    ]


class _Bound(NamedTuple):
    """A frame and the passes that hold its addresses."""

    frame: Frame
    """Frame, kept alive so that its id and its memory stay its own."""
    passes: ctypes.Array[_Pass]
    """Passes as `native.c` reads them: `sight` first, if there is one."""
    ahead: int
    """Number of passes that run before the joints are read: 1 with a `sight`, else 0."""
    draft: _Draft | None
    """Guesses that follow the last of the passes; `None` in a greedy tick."""


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
        decoding: Decoding = "greedy",
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
        self.name = named(f"native {precision}", decoding)
        self.decoding = decoding
        spec = manifest.spec
        dims = manifest.model
        _require_kernels(dims)

        decodes = spec.action_tokens - 1
        self._shape = ((spec.observation_tokens + 2, *[1] * decodes), spec.window_tokens)
        self._first_id = dims.first_token_id
        self._threads = threads
        self._most_passes = len(self._shape[0]) + 1  # A prefill may come in two.

        self._library = load_kernels(self.source, _constants(spec, dims, precision))
        with open_checked(directory, manifest, WEIGHTS_FILE) as file:
            model = NativeModel(
                file,
                directory / WEIGHTS_FILE,
                dims,
                precision,
                _cache_rows(spec),
                _patch_positions(spec),
                norm_biases=self.norm_biases,
            )
        self._take(model)

    def another(self) -> NativeEngine:
        """See `SharedEngine.another`."""
        made = copy(self)
        made._take(self._model.with_own_cache())  # noqa: SLF001  # of this class
        return made

    def _take(self, model: NativeModel) -> None:
        """Take a model with its cache, and start threads for it."""
        self._model = model
        self._bound: dict[int, _Bound] = {}
        self._engine = self._start()

    def _start(self) -> int:
        """Start the threads and return the address of the C engine."""
        threads = max(1, min(self._threads, len(os.sched_getaffinity(0)), MOST_THREADS))
        model = ctypes.byref(self._model.struct)
        engine: int | None = self._library.start(model, threads, self._most_passes)
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
        if bound.draft is not None:
            bound.draft.most = frame.most_runs
        if self.decoding == "parallel":
            hide_guess(frame)
            frame.runs = 1
        self._run(bound, frame.prefill.ids, first, len(bound.passes), bound.draft)
        if bound.draft is not None:
            frame.runs = bound.draft.runs
            if not frame.runs:
                raise unsettled(frame.most_runs)
        mark()

    def _run(
        self,
        bound: _Bound,
        ids: NDArray[np.int64],
        first: int,
        end: int,
        draft: _Draft | None = None,
    ) -> None:
        """Run the passes from `first` to before `end`, which read `ids`, and check a draft."""
        if ids.min() < self._first_id or ids.max() >= VOCABULARY:
            raise EngineError(
                f"expected token ids in [{self._first_id}, {VOCABULARY}), "
                f"found {ids.min()} to {ids.max()}"
            )
        at = ctypes.byref(bound.passes, first * ctypes.sizeof(_Pass))
        checked = ctypes.byref(draft) if draft is not None else None
        self._library.tick(self._engine, at, end - first, checked)

    def _bind(self, frame: Frame) -> _Bound:
        """Take the addresses of a frame's arrays once."""
        found = (tuple(len(block.local) for block in frame.passes), frame.prefill.mask.shape[1])
        if found != self._shape:
            raise EngineError(f"expected a frame of passes and window {self._shape}, found {found}")

        passes = [] if frame.sight is None else [_pass(frame.sight)]
        ahead = len(passes)
        if self.decoding == "greedy":
            blocks = (frame.rest, *frame.passes[1:])
            passes += [_deciding(frame, block, index, 1) for index, block in enumerate(blocks)]
            draft = None
        else:
            passes.append(_deciding(frame, frame.full_rest, 0, len(frame.tokens)))
            draft = _draft(frame) if self.decoding == "exact" else None
            if draft is not None:
                passes[-1].apart = 1  # Its tokens stay in the engine, to be checked.
        bound = _Bound(frame, (_Pass * len(passes))(*passes), ahead, draft)
        self._bound[id(frame)] = bound
        return bound

    def reset(self) -> None:
        """See `Engine.reset`; the mask hides old rows, and zeros keep runs equal to the bit."""
        for cached in self._model.caches:
            cached.fill(0)


def _pass(block: Block) -> _Pass:
    """Return a pass over a block that fills the cache alone."""
    read = [getattr(block, name).ctypes.data for name in POSITION_INPUTS]
    patches = block.patches
    pixels = patches.ctypes.data if patches is not None and len(patches) else None
    return _Pass(len(block.local), *read, pixels)


def _deciding(frame: Frame, block: Block, first: int, tokens: int) -> _Pass:
    """Return a pass over a block whose last rows choose tokens of a frame, from `first` on."""
    made = _pass(block)
    made.decides = tokens
    made.bias = frame.bias[first:].ctypes.data
    made.logits = frame.logits[first:].ctypes.data
    made.tokens = frame.tokens[first:].ctypes.data
    made.apart = frame.tokens.strides[0] // frame.tokens.itemsize
    return made


def _draft(frame: Frame) -> _Draft:
    return _Draft(
        check=_deciding(frame, frame.check, 1, len(frame.check.local)),
        guess=frame.guess.ctypes.data,
        tokens=frame.tokens.ctypes.data,
        apart=frame.tokens.strides[0] // frame.tokens.itemsize,
    )


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
        "ROWS": spec.frame_tokens,
        "ACTIONS": spec.action_tokens,
        "PATCHES": spec.image_tokens,
        "IMAGE_AT": 1 + sum(key.tokens for key in spec.observations if key.encoding == "text"),
        "BINS": CONTINUOUS_BINS,
        "FIRST_ID": dims.first_token_id,
        "FIRST_BIN_ID": FIRST_CONTINUOUS_ID,
        "MOST_THREADS": MOST_THREADS,
        "CODES": int(precision == "w8a8"),
    }
    return tuple(f"-D{name}={value}" for name, value in values.items())
