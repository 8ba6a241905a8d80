"""The PyTorch module itself as an engine: the reference for parity, and the yardstick on a GPU."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.context import Block, Frame
from gatort.runtime.errors import DeviceError, EngineError, MissingDependency
from gatort.runtime.spec import FIRST_CONTINUOUS_ID, ModelDims, PolicySpec

from .engine import Decoding, Mark, named, no_mark
from .graph import cache_shape
from .settle import run_guessed

if TYPE_CHECKING:
    from torch import Tensor


class CachedModel(Protocol):
    """Module that the engine runs; the caller provides it, since policies import the runtime."""

    def eval(self) -> Any:
        """Switch to inference."""

    def parameters(self) -> Any:
        """Return the weights, whose device and precision the cache takes."""

    def forward_cached(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
        """Return the logits (d, R) of the last `decides` positions.

        Arguments are a block's arrays in the order of `_Pass`, then the caches. Keys and
        values are written into the caches in place at `write_index`.
        """


class _Pass(NamedTuple):
    """Tensors of one pass: views of the frame's memory, or of its copy on the GPU."""

    ids: Tensor
    """Token ids (1, t − p)."""
    others: tuple[Tensor | None, ...]
    """patches, local, cos, sin, mask, write_index"""
    bias: Tensor
    """Bias of the logits (d, R)."""
    logits: Tensor
    """Logits (d, R), written by the pass."""
    tokens: Tensor
    """Tokens (d,), written by the pass."""


class _Bound(NamedTuple):
    """A frame, and the calls that run its passes."""

    frame: Frame
    """Frame, kept alive so that its id stays its own."""
    run: Callable[..., None]
    """Runs all passes of a greedy tick, or the first of another. Takes a `Mark`."""
    check: Callable[..., None] | None
    """Runs the check of an exact tick; `None` in any other."""


class TorchEngine:
    """Engine that runs `forward_cached` with a cache of its own; see `Engine`.

    On a GPU the whole greedy tick is one CUDA graph. It copies the frame's inputs in, runs A
    compiled passes that feed each other, and copies the outputs out. An exact tick has one graph
    for its first pass and one for a check. The first tick over a frame captures them, which is the
    warm-up's.
    """

    def __init__(
        self,
        model: CachedModel,
        spec: PolicySpec,
        dims: ModelDims,
        decoding: Decoding = "greedy",
    ) -> None:
        """Allocate the cache on the model's device.

        Raises:
            MissingDependency: PyTorch is not installed.
        """
        self._torch = _import_torch()
        model.eval()
        like = self._like = next(iter(model.parameters()))
        self._device = like.device
        self._on_cpu = self._device.type == "cpu"
        self.decoding = decoding
        self.stepwise = self._on_cpu and decoding == "greedy"
        precision = str(like.dtype).removeprefix("torch.")
        self.name = named(f"torch {self._device.type} {precision}", decoding)

        self._shape, self._layers = cache_shape(spec, dims), dims.layers
        self._allocate()

        self._forward = model.forward_cached
        if not self._on_cpu:
            # There are two shapes of passes, and each is compiled for itself. The norms, rotations
            # and gates between the products become one kernel each.
            self._forward = self._torch.compile(model.forward_cached, dynamic=False)

    def another(self) -> TorchEngine:
        """See `SharedEngine.another`."""
        made = copy(self)
        made._allocate()  # noqa: SLF001  # of this class
        return made

    def _allocate(self) -> None:
        """Allocate the cache, to which no frame is bound yet."""
        new = self._like.new_zeros
        self._caches = [(new(self._shape), new(self._shape)) for _ in range(self._layers)]
        self._bound: dict[int, _Bound] = {}

    def see(self, frame: Frame) -> None:
        """See `Engine.see`. The reference keeps a prefill whole."""

    def tick(self, frame: Frame, mark: Mark = no_mark) -> None:
        """See `Engine.tick`.

        Raises:
            DeviceError: the GPU failed; its context is lost, so the process has to end.
            EngineError: a pass failed on the CPU.
        """
        try:
            with self._torch.inference_mode():
                bound = self._bound.get(id(frame)) or self._bind(frame)
                if self.decoding == "greedy":
                    bound.run(mark if self.stepwise else no_mark)
                else:
                    run_guessed(frame, bound.run, bound.check)
                if not self.stepwise:
                    mark()
        except RuntimeError as error:
            failure = EngineError if self._on_cpu else DeviceError
            raise failure(f"{self.name}: the pass failed: {error}") from error

    def _run(self, passes: list[_Pass], mark: Mark = no_mark) -> None:
        """Run passes and write their logits and tokens."""
        for one in passes:
            logits, _ = self._forward(one.ids, *one.others, self._caches, decides=len(one.logits))
            one.logits.copy_(logits)
            one.tokens.copy_((logits + one.bias).argmax(dim=1) + FIRST_CONTINUOUS_ID)
            mark()

    def _check(self, check: _Pass, chosen: Tensor) -> None:
        """Run the tokens in `chosen` (A,) but the last again, and write all but the first."""
        check.ids.copy_(chosen[None, :-1])
        self._run([check])

    def _bind(self, frame: Frame) -> _Bound:
        """Make the tensors of a frame's passes once, and capture the passes on a GPU."""
        host = self._torch.from_numpy(frame.memory)
        memory = host if self._on_cpu else self._torch.zeros_like(host, device=self._device)
        made = partial(self._pass, frame, memory)
        run: Callable[..., None]
        check: Callable[..., None] | None = None
        if self.decoding == "greedy":
            rows = [slice(index, index + 1) for index in range(len(frame.passes))]
            passes = [
                made(block, frame.logits[row], frame.tokens[row])
                for block, row in zip(frame.passes, rows, strict=True)
            ]
            run = partial(self._run, passes)
        else:
            full = made(frame.full, frame.logits, frame.chosen)
            again = made(frame.check, frame.logits[1:], frame.chosen[1:])
            run = partial(self._run, [full])
            check = partial(self._check, again, full.tokens) if self.decoding == "exact" else None

        if not self._on_cpu:
            self._pin(host)
            at = frame.outputs_at
            run = self._capture(run, host, memory, (slice(None, at), slice(at, None)))
            check = check and self._capture(check, host, memory, (slice(0), slice(at, None)))
        bound = _Bound(frame, run, check)
        self._bound[id(frame)] = bound
        return bound

    def _pass(
        self,
        frame: Frame,
        memory: Tensor,
        block: Block,
        logits: NDArray[np.float32],
        tokens: NDArray[np.int64],
    ) -> _Pass:
        """Return one pass's tensors in `memory`, which has the frame's layout."""

        def view(array: NDArray[Any]) -> Tensor:
            start = frame.offset(array)
            flat = memory[start : start + array.nbytes].view(self._torch.from_numpy(array).dtype)
            return flat.reshape(array.shape)

        others = (
            block.patches,
            block.local,
            block.cos,
            block.sin,
            block.mask,
            block.write_index,
        )
        return _Pass(
            ids=view(block.ids),
            others=tuple(None if array is None else view(array) for array in others),
            bias=view(block.bias),
            logits=view(logits),
            tokens=view(tokens),
        )

    def _pin(self, host: Tensor) -> None:
        """Pin the host's memory, from which the GPU copies without the driver's help."""
        cuda = self._torch.cuda
        cuda.check_error(int(cuda.cudart().cudaHostRegister(host.data_ptr(), host.numel(), 0)))
        # The finalizer holds the memory: pages freed while registered could go to any program.
        weakref.finalize(self, _unpin, cuda, host)

    def _capture(
        self, part: Callable[..., None], host: Tensor, memory: Tensor, copied: tuple[slice, slice]
    ) -> Callable[..., None]:
        """Run a part of the tick once to compile it, then record it as a graph.

        Args:
            part: passes to record.
            host: the frame's memory.
            memory: its copy on the GPU.
            copied: bytes that are copied in before, and out afterwards.
        """
        cuda = self._torch.cuda
        before, after = copied

        def run() -> None:
            memory[before].copy_(host[before], non_blocking=True)
            part()
            host[after].copy_(memory[after], non_blocking=True)

        def replay(_: Mark = no_mark) -> None:
            graph.replay()
            cuda.current_stream().synchronize()

        run()
        cuda.synchronize()
        graph = cuda.CUDAGraph()
        with cuda.graph(graph):
            run()
        return replay

    def reset(self) -> None:
        """See `Engine.reset`; the mask hides old rows, and zeros keep runs equal to the bit."""
        with self._torch.inference_mode():
            for keys, values in self._caches:
                keys.zero_()
                values.zero_()


def _unpin(cuda: Any, host: Tensor) -> None:
    cuda.cudart().cudaHostUnregister(host.data_ptr())


def _import_torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingDependency("PyTorch is not installed: pip install 'gatort[train]'") from error
    return torch
