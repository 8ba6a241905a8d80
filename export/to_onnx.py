"""PyTorch → ONNX: one graph for prefill and decode, which updates the cache in place.

Opset 24 has linear `TensorScatter`, `Attention` under an explicit mask, and `RotaryEmbedding`.
TensorRT refuses a circular `TensorScatter`; no frame wraps, so none is needed (see DESIGN.md). The
axes t, p and d are dynamic; everything else is fixed. `runtime/engines/graph.py`
has the names. Letters as in `policies/model.py`.

    inputs   ids (1, t − p)  [patches (p, 3, 16, 16)]  local (t,)  cos, sin (t, h/2)  mask (t, W)
             write_index (1,)  bias (d, R)  k_0, v_0, … (1, H, W, h)
    outputs  logits (d, R) of the last d positions, d ≤ t
             token (1, d): ids of the bins with the largest logits + bias
             k_0_out, v_0_out, …: to be bound to the memory of their inputs
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.export import Dim

from gatort.policies.model import Cache, Gato
from gatort.runtime.context import allocate_frame
from gatort.runtime.engines.graph import BLOCK_INPUTS, PATCHES, cache_names, cache_output
from gatort.runtime.spec import FIRST_CONTINUOUS_ID

OPSET = 24
LARGEST_INLINE_EXPORT_BYTES = 256 << 20
"""Largest weights that stay inside an exported graph; others go to a file of their own.

While a graph is written, the weights inside it are in memory four times."""


def export_onnx(model: Gato, path: Path) -> None:
    """Write `forward_cached` as an ONNX graph, and large weights as `<path>.data` beside it.

    The model is left in evaluation mode. The file holds nothing of this machine (paths, stack
    traces), and the same weights give the same bytes.
    """
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            _Pass(model.eval()),
            _example(model),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=_dynamic_axes(model),
            input_names=_input_names(model),
            output_names=_output_names(model),
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")

    _forget_machine(program.model)
    _straighten(program.model)
    weights_bytes = sum(parameter.nbytes for parameter in model.parameters())
    program.save(path, external_data=weights_bytes > LARGEST_INLINE_EXPORT_BYTES)


# -- Inputs and outputs --------------------------------------------------------------------------


def _example(model: Gato) -> tuple[Any, ...]:
    """Return a whole frame's block as `_Pass` takes it. Only its shapes matter.

    No dynamic axis may be 1 long, because the exporter would take it for a fixed one.
    """
    block = allocate_frame(model.spec, model.dims).full
    device = model.tokens.weight.device
    arrays = (
        np.full_like(block.ids, FIRST_CONTINUOUS_ID),  # an id that every table has
        block.patches,
        block.local,
        block.cos,
        block.sin,
        block.mask,
        block.write_index,
        block.bias,
    )
    tensors = (None if array is None else torch.from_numpy(array).to(device) for array in arrays)
    caches = [tensor for pair in model.empty_caches() for tensor in pair]
    return *tensors, caches


def _dynamic_axes(model: Gato) -> dict[str, Any]:
    """Return the axes that vary: t everywhere, p of the patches, and none of the ring."""
    token = {0: Dim.DYNAMIC}
    return {
        "ids": {1: Dim.DYNAMIC},
        "patches": {0: Dim.DYNAMIC} if model.patches is not None else None,
        "local": token,
        "cos": token,
        "sin": token,
        "mask": token,
        "write_index": None,
        "bias": token,
        "caches": [None] * (2 * len(model.layers)),
    }


def _input_names(model: Gato) -> list[str]:
    """Return the names in the order of `_Pass.forward`: the patches stand after the ids."""
    ids, *others = BLOCK_INPUTS
    patches = [PATCHES] if model.patches is not None else []
    return [ids, *patches, *others, *cache_names(len(model.layers))]


def _output_names(model: Gato) -> list[str]:
    caches = cache_names(len(model.layers))
    return ["logits", "token", *(cache_output(name) for name in caches)]


# -- Cleaning ------------------------------------------------------------------------------------


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporter's notes about itself, such as absent torchvision or renamed axes."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _forget_machine(model: Any) -> None:
    """Drop the exporter's notes on every node.

    They are stack traces with paths, and make up half of a small file.
    """
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        values += node.outputs
    for value in values:
        value.metadata_props.clear()


def _straighten(model: Any) -> None:
    """Copy each transposed matrix just before it is written.

    NumPy writes a view number by number, ten times slower.
    """
    for value in model.graph.initializers.values():
        turned = value.const_value
        if not turned.numpy().flags.c_contiguous:
            value.const_value = ir.LazyTensor(
                partial(_copied, turned), dtype=turned.dtype, shape=turned.shape, name=turned.name
            )


def _copied(turned: Any) -> Any:
    straight = torch.from_numpy(turned.numpy()).contiguous().numpy()
    return ir.Tensor(straight, dtype=turned.dtype, name=turned.name)


# -- The exported module -------------------------------------------------------------------------


class OnnxAttention:
    """ONNX's own operators in place of PyTorch's; see `gatort.policies.model.CachedAttention`."""

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return `RotaryEmbedding` over neighbouring pairs."""
        return torch.onnx.ops.symbolic(
            "RotaryEmbedding",
            (x, cos[None], sin[None]),
            attrs={"interleaved": 1},
            dtype=x.dtype,
            shape=x.shape,
            version=OPSET,
        )

    def write(self, cache: Tensor, rows: Tensor, write_index: Tensor) -> Tensor:
        """Return a linear `TensorScatter`."""
        return torch.onnx.ops.symbolic(
            "TensorScatter",
            (cache, rows, write_index),
            attrs={"mode": "linear", "axis": -2},
            dtype=cache.dtype,
            shape=cache.shape,
            version=OPSET,
        )

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Return `Attention` under the given mask.

        `is_causal` is never used: it is wrong once slots rotate.
        """
        return torch.onnx.ops.symbolic(
            "Attention",
            (query, keys, values, mask),
            attrs={"scale": query.shape[-1] ** -0.5},
            dtype=query.dtype,
            shape=query.shape,
            version=OPSET,
        )


class _Pass(nn.Module):
    """`Gato.forward_cached` with flat inputs and outputs, as a graph has them."""

    def __init__(self, model: Gato) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        ids: Tensor,
        patches: Tensor | None,
        local: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor,
        write_index: Tensor,
        bias: Tensor,
        caches: list[Tensor],
    ) -> tuple[Tensor, ...]:
        pairs: list[Cache] = list(zip(caches[::2], caches[1::2], strict=True))
        logits, written = self.model.forward_cached(
            ids,
            patches,
            local,
            cos,
            sin,
            mask,
            write_index,
            pairs,
            OnnxAttention(),
            bias.shape[0],
        )
        token = (logits + bias).argmax(dim=1)[None] + FIRST_CONTINUOUS_ID  # (1, d)
        return logits, token, *(tensor for pair in written for tensor in pair)
