"""The PyTorch module itself as an engine: the reference that ONNX Runtime is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .context import Block
from .errors import EngineError, MissingDependency
from .spec import CONTINUOUS_BINS, ModelDims, PolicySpec

if TYPE_CHECKING:
    from torch import Tensor


class CachedModel(Protocol):
    """What the engine needs of a module; it is handed in, so that the runtime does not import the policies."""

    def eval(self) -> Any:
        """Switch to inference."""

    def parameters(self) -> Any:
        """Weights, whose device and precision the cache takes."""

    def forward_cached(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
        """Logits (R,) of the last position, from a block's arrays in the order of `_Bound` and the caches.

        Keys and values are written into the caches in place at `write_index`.
        """


class _Bound(NamedTuple):
    """A block's arrays as tensors over the same memory: ids, patches, local, cos, sin, mask, write_index."""

    block: Block
    tensors: tuple[Tensor | None, ...]


class TorchEngine:
    """Runs `forward_cached` with a cache of its own; see `Engine`."""

    def __init__(self, model: CachedModel, spec: PolicySpec, dims: ModelDims) -> None:
        """Allocate the cache on the model's device.

        Raises:
            MissingDependency: PyTorch is not installed.
        """
        self._torch = _import_torch()
        self._model = model
        model.eval()
        like = next(iter(model.parameters()))
        self._device = like.device
        self.name = f"torch {self._device.type}"
        shape = (1, dims.heads, spec.window_tokens, dims.head_size)
        self._caches = [(like.new_zeros(shape), like.new_zeros(shape)) for _ in range(dims.layers)]
        self._logits = np.zeros(CONTINUOUS_BINS, np.float32)  # (R,)
        self._logits_tensor = self._torch.from_numpy(self._logits)
        self._bound: dict[int, _Bound] = {}

    def forward(self, block: Block) -> NDArray[np.float32]:
        """See `Engine.forward`."""
        bound = self._bound.get(id(block)) or self._bind(block)
        # On the CPU, `to` gives the same tensor back: the block's own memory.
        tensors = [None if tensor is None else tensor.to(self._device) for tensor in bound.tensors]
        try:
            with self._torch.inference_mode():
                logits, _ = self._model.forward_cached(*tensors, self._caches)
                self._logits_tensor.copy_(logits)
        except RuntimeError as error:
            raise EngineError(f"{self.name}: the pass failed: {error}") from error
        return self._logits

    def _bind(self, block: Block) -> _Bound:
        """Wrap a block's memory once; the block is kept too, so that its id stays taken."""
        arrays = (block.ids, block.patches, block.local, block.cos, block.sin, block.mask, block.write_index)
        tensors = tuple(None if array is None else self._torch.from_numpy(array) for array in arrays)
        bound = self._bound[id(block)] = _Bound(block, tensors)
        return bound

    def reset(self) -> None:
        """See `Engine.reset`; the mask hides old rows, zeros keep runs alike to the bit."""
        with self._torch.inference_mode():
            for keys, values in self._caches:
                keys.zero_()
                values.zero_()


def _import_torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingDependency("PyTorch is not installed: pip install 'gatort[train]'") from error
    return torch
