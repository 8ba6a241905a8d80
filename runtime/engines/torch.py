"""The PyTorch module itself as an engine: the reference for parity, and the yardstick on a GPU."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from numpy.typing import NDArray

from gatort.runtime.context import Frame
from gatort.runtime.errors import DeviceError, EngineError, MissingDependency
from gatort.runtime.spec import FIRST_CONTINUOUS_ID, ModelDims, PolicySpec

from .engine import Mark, no_mark
from .graph import cache_shape

if TYPE_CHECKING:
    from torch import Tensor


class CachedModel(Protocol):
    """Module that the engine runs; the caller provides it, since policies import the runtime."""

    def eval(self) -> Any:
        """Switch to inference."""

    def parameters(self) -> Any:
        """Return the weights, whose device and precision the cache takes."""

    def forward_cached(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
        """Return the logits (R,) of the last position.

        Arguments are a block's arrays in the order of `_Pass.read`, then the caches. Keys and
        values are written into the caches in place at `write_index`.
        """


class _Pass(NamedTuple):
    """Tensors of one pass: views of the frame's memory, or of its copy on the GPU."""

    read: tuple[Tensor | None, ...]
    """ids, patches, local, cos, sin, mask, write_index"""
    bias: Tensor
    """Bias of the logits (R,)."""
    logits: Tensor
    """Logits (R,), written by the pass."""
    token: Tensor
    """Token (1,), written by the pass."""


class _Bound(NamedTuple):
    """A frame and its passes."""

    frame: Frame
    """Frame, kept alive so that its id stays its own."""
    passes: list[_Pass]
    """Tensors of each pass."""
    graph: Any
    """Captured tick; `None` on the CPU."""


class TorchEngine:
    """Engine that runs `forward_cached` with a cache of its own; see `Engine`.

    On a GPU the whole tick is one CUDA graph. It copies the frame's inputs in, runs A compiled
    passes that feed each other, and copies the outputs out. The first tick over a frame captures
    it, which is the warm-up's.
    """

    def __init__(self, model: CachedModel, spec: PolicySpec, dims: ModelDims) -> None:
        """Allocate the cache on the model's device.

        Raises:
            MissingDependency: PyTorch is not installed.
        """
        self._torch = _import_torch()
        self._bound: dict[int, _Bound] = {}
        model.eval()
        like = next(iter(model.parameters()))
        self._device = like.device
        self.stepwise = self._device.type == "cpu"
        self.name = f"torch {self._device.type} {str(like.dtype).removeprefix('torch.')}"

        shape = cache_shape(spec, dims)
        self._caches = [(like.new_zeros(shape), like.new_zeros(shape)) for _ in range(dims.layers)]

        self._forward = model.forward_cached
        if not self.stepwise:
            # Prefill and decode are the only shapes, so each is compiled for itself. The norms,
            # rotations and gates between the products become one kernel each.
            self._forward = self._torch.compile(model.forward_cached, dynamic=False)

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
                if bound.graph is None:
                    self._run_stepwise(bound.passes, mark)
                else:
                    bound.graph.replay()
                    self._torch.cuda.current_stream().synchronize()
                    mark()
        except RuntimeError as error:
            failure = EngineError if self.stepwise else DeviceError
            raise failure(f"{self.name}: the pass failed: {error}") from error

    def _run_stepwise(self, passes: list[_Pass], mark: Mark) -> None:
        for one in passes:
            self._run(one)
            mark()

    def _run(self, one: _Pass) -> None:
        """Run one pass and write its logits and token."""
        logits, _ = self._forward(*one.read, self._caches)
        one.logits.copy_(logits)
        one.token.copy_((logits + one.bias).argmax(dim=0, keepdim=True) + FIRST_CONTINUOUS_ID)

    def _bind(self, frame: Frame) -> _Bound:
        """Make the tensors of a frame's passes once, and capture the tick on a GPU."""
        host = self._torch.from_numpy(frame.memory)
        memory = host if self.stepwise else self._torch.zeros_like(host, device=self._device)
        passes = [self._pass(frame, memory, index) for index in range(len(frame.passes))]
        graph = None if self.stepwise else self._capture(host, memory, frame.outputs_at, passes)

        bound = _Bound(frame, passes, graph)
        self._bound[id(frame)] = bound
        return bound

    def _pass(self, frame: Frame, memory: Tensor, index: int) -> _Pass:
        """Return one pass's tensors in `memory`, which has the frame's layout."""

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
        """Pin the host's memory, run the tick once to compile it, then record it as a graph."""
        cuda = self._torch.cuda
        cuda.check_error(int(cuda.cudart().cudaHostRegister(host.data_ptr(), host.numel(), 0)))
        # The finalizer holds the memory: pages freed while registered could go to any program.
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
