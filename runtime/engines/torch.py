"""The PyTorch module itself as an engine: the reference for parity, and the yardstick on a GPU."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from numpy.typing import NDArray

from gatort.runtime.context import Frame
from gatort.runtime.errors import (
    DeviceError,
    EngineError,
    MissingDependency,
)
from gatort.runtime.spec import (
    FIRST_CONTINUOUS_ID,
    ModelDims,
    PolicySpec,
)

from .engine import (
    Mark,
    no_mark,
)

if TYPE_CHECKING:
    from torch import Tensor


class CachedModel(Protocol):
    """What the engine needs of a module; it is handed in, so that the runtime does not import the policies."""

    def eval(self) -> Any:
        """Switch to inference."""

    def parameters(self) -> Any:
        """Weights, whose device and precision the cache takes."""

    def forward_cached(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
        """Logits (R,) of the last position, from a block's arrays in the order of `_Pass.read` and the caches.

        Keys and values are written into the caches in place at `write_index`.
        """


class _Pass(NamedTuple):
    """One pass's tensors, views of the frame's memory or of its twin on the GPU."""

    read: tuple[Tensor | None, ...]
    """ids, patches, local, cos, sin, mask, write_index"""
    bias: Tensor
    logits: Tensor
    token: Tensor
    """(1,)"""


class _Bound(NamedTuple):
    """What a frame is bound to."""

    frame: Frame
    """Kept so that its id stays taken."""
    passes: list[_Pass]
    graph: Any
    """The captured tick; none on the CPU."""


class TorchEngine:
    """Runs `forward_cached` with a cache of its own; see `Engine`.

    On a GPU the whole tick is one CUDA graph: the frame's inputs copied in, A compiled passes that feed each other,
    its outputs copied out. It is captured at the first tick over a frame, which is the warm-up's.
    """

    def __init__(self, model: CachedModel, spec: PolicySpec, dims: ModelDims) -> None:
        """Allocate the cache on the model's device.

        Raises:
            MissingDependency: PyTorch is not installed.
        """
        self._torch = torch = _import_torch()
        model.eval()
        like = next(iter(model.parameters()))
        self._device = like.device
        self.stepwise = self._device.type == "cpu"
        self.name = f"torch {self._device.type} {str(like.dtype).removeprefix('torch.')}"
        shape = (1, dims.heads, spec.window_tokens, dims.head_size)
        self._caches = [(like.new_zeros(shape), like.new_zeros(shape)) for _ in range(dims.layers)]
        # Prefill and decode are the only shapes, so each is compiled for itself: the norms, rotations and gates
        # between the products become a kernel each.
        self._forward = (
            model.forward_cached
            if self.stepwise
            else torch.compile(model.forward_cached, dynamic=False)
        )
        self._bound: dict[int, _Bound] = {}

    def tick(self, frame: Frame, mark: Mark = no_mark) -> None:
        """See `Engine.tick`.

        Raises:
            DeviceError: the GPU failed; its context is lost, so the process has to end.
            EngineError: a pass failed on the CPU.
        """
        try:
            with self._torch.inference_mode():
                bound = self._bound.get(id(frame)) or self._bind(frame)
                if bound.graph is not None:
                    bound.graph.replay()
                    self._torch.cuda.current_stream().synchronize()
                    mark()
                    return
                for one in bound.passes:
                    self._run(one)
                    mark()
        except RuntimeError as error:
            failure = EngineError if self.stepwise else DeviceError
            raise failure(f"{self.name}: the pass failed: {error}") from error

    def _run(self, one: _Pass) -> None:
        """Run one pass and write its logits and token."""
        logits, _ = self._forward(*one.read, self._caches)
        one.logits.copy_(logits)
        one.token.copy_((logits + one.bias).argmax(dim=0, keepdim=True) + FIRST_CONTINUOUS_ID)

    def _bind(self, frame: Frame) -> _Bound:
        host = self._torch.from_numpy(frame.memory)
        memory = host if self.stepwise else self._torch.zeros_like(host, device=self._device)
        passes = [self._pass(frame, memory, index) for index in range(len(frame.passes))]
        graph = None if self.stepwise else self._capture(host, memory, frame.outputs_at, passes)
        bound = self._bound[id(frame)] = _Bound(frame, passes, graph)
        return bound

    def _pass(self, frame: Frame, memory: Tensor, index: int) -> _Pass:
        """One pass's tensors in `memory`, which is laid out as the frame's."""

        def view(array: NDArray[Any]) -> Tensor:
            start = frame.offset(array)
            flat = memory[start : start + array.nbytes].view(self._torch.from_numpy(array).dtype)
            return flat.reshape(array.shape)

        block = frame.passes[index]
        arrays = (
            block.ids,
            block.patches,
            block.local,
            block.cos,
            block.sin,
            block.mask,
            block.write_index,
        )
        return _Pass(
            read=tuple(None if array is None else view(array) for array in arrays),
            bias=view(block.bias),
            logits=view(frame.logits[index]),
            token=view(frame.tokens[index : index + 1]),
        )

    def _capture(self, host: Tensor, memory: Tensor, outputs_at: int, passes: list[_Pass]) -> Any:
        """Record copy in, passes and copy out, after a run that compiles; pins the host's memory."""
        cuda = self._torch.cuda
        cuda.check_error(int(cuda.cudart().cudaHostRegister(host.data_ptr(), host.numel(), 0)))
        # The finalizer holds the memory: pages that are freed while they are registered would be anyone's.
        weakref.finalize(self, _unpin, cuda, host)

        def run() -> None:
            memory[:outputs_at].copy_(host[:outputs_at], non_blocking=True)
            for one in passes:
                self._run(one)
            host[outputs_at:].copy_(memory[outputs_at:], non_blocking=True)

        run()
        cuda.synchronize()
        graph = cuda.CUDAGraph()
        with cuda.graph(graph):
            run()
        return graph

    def reset(self) -> None:
        """See `Engine.reset`; the mask hides old rows, zeros keep runs alike to the bit."""
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
