"""PyTorch → ONNX: one graph for prefill and decode, the cache updated where it lies.

Opset 24: linear `TensorScatter` (DESIGN.md: TensorRT refuses the circular one, and no frame wraps), `Attention`
under an explicit mask, `RotaryEmbedding`. The token axis t and the patch axis p are dynamic; everything else is
fixed. Letters as in `policies/model.py`.

    inputs   ids (1, t − p)  [patches (p, 3, 16, 16)]  local (t,)  cos, sin (t, h/2)  mask (t, W)  write_index (1,)
             bias (R,)  k_0, v_0, … (1, H, W, h)
    outputs  logits (R,)  token (1, 1), the bin where logits + bias is largest, as an id
             k_0_out, v_0_out, … : bind each to its input's memory
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
import torch
from torch import Tensor, nn
from torch.export import Dim

from gatort.policies.model import (
    Cache,
    Gato,
)
from gatort.runtime.context import allocate_frame
from gatort.runtime.spec import FIRST_CONTINUOUS_ID

OPSET = 24
INLINE_BYTES = 256 << 20
"""Weights beyond this go to a file of their own: inside the graph they are held four times while it is written."""


def export_onnx(model: Gato, path: Path) -> None:
    """Write `forward_cached` as an ONNX graph; weights beyond `INLINE_BYTES` go to `<path>.data` beside it.

    The model is left in evaluation mode. Nothing of this machine (paths, stack traces) goes into the file, and the
    same weights give the same bytes.
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
    program.save(path, external_data=weights_bytes > INLINE_BYTES)


def _example(model: Gato) -> tuple[Any, ...]:
    """A prefill's block as `_Pass` takes it; values do not matter, shapes do."""
    block, device = allocate_frame(model.spec, model.dims).prefill, model.tokens.weight.device
    ids = np.full_like(block.ids, FIRST_CONTINUOUS_ID)  # an id that every table has
    arrays = (
        ids,
        block.patches,
        block.local,
        block.cos,
        block.sin,
        block.mask,
        block.write_index,
        block.bias,
    )
    caches = [tensor for pair in model.empty_caches() for tensor in pair]
    return *(
        None if array is None else torch.from_numpy(array).to(device) for array in arrays
    ), caches


def _dynamic_axes(model: Gato) -> dict[str, Any]:
    """Which axes vary: t everywhere, p of the patches; none of the ring's."""
    token = {0: Dim.DYNAMIC}
    return {
        "ids": {1: Dim.DYNAMIC},
        "patches": {0: Dim.DYNAMIC} if model.patches is not None else None,
        "local": token,
        "cos": token,
        "sin": token,
        "mask": token,
        "write_index": None,
        "bias": None,
        "caches": [None] * (2 * len(model.layers)),
    }


def _cache_names(model: Gato) -> list[str]:
    return [f"{kind}_{layer}" for layer in range(len(model.layers)) for kind in "kv"]


def _input_names(model: Gato) -> list[str]:
    patches = ["patches"] if model.patches is not None else []
    return [
        "ids",
        *patches,
        "local",
        "cos",
        "sin",
        "mask",
        "write_index",
        "bias",
        *_cache_names(model),
    ]


def _output_names(model: Gato) -> list[str]:
    return ["logits", "token", *(f"{name}_out" for name in _cache_names(model))]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes about itself (absent torchvision, renamed axes) from the person who exports."""
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
    """Drop what the exporter notes on every node: stack traces with paths, half of a small file's size."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        values += node.outputs
    for value in values:
        value.metadata_props.clear()


def _straighten(model: Any) -> None:
    """Copy each turned matrix just before it is written: NumPy writes a view number by number, ten times slower."""
    import onnx_ir as ir

    for value in model.graph.initializers.values():
        turned = value.const_value
        if not turned.numpy().flags.c_contiguous:
            copied = partial(_copied, turned)
            value.const_value = ir.LazyTensor(
                copied, dtype=turned.dtype, shape=turned.shape, name=turned.name
            )


def _copied(turned: Any) -> Any:
    import onnx_ir as ir

    return ir.Tensor(
        torch.from_numpy(turned.numpy()).contiguous().numpy(), dtype=turned.dtype, name=turned.name
    )


class OnnxAttention:
    """ONNX's own operators in place of PyTorch's; see `gatort.policies.model.CachedAttention`."""

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """`RotaryEmbedding` over neighbouring pairs."""
        return torch.onnx.ops.symbolic(
            "RotaryEmbedding",
            (x, cos[None], sin[None]),
            attrs={"interleaved": 1},
            dtype=x.dtype,
            shape=x.shape,
            version=OPSET,
        )

    def write(self, cache: Tensor, rows: Tensor, write_index: Tensor) -> Tensor:
        """`TensorScatter`, linear."""
        return torch.onnx.ops.symbolic(
            "TensorScatter",
            (cache, rows, write_index),
            attrs={"mode": "linear", "axis": -2},
            dtype=cache.dtype,
            shape=cache.shape,
            version=OPSET,
        )

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """`Attention` with the mask given; never `is_causal`, which is wrong once slots rotate."""
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
            ids, patches, local, cos, sin, mask, write_index, pairs, OnnxAttention()
        )
        # Two axes, because TensorRT refuses an ArgMax over one.
        token = (logits + bias)[None].argmax(dim=1, keepdim=True) + FIRST_CONTINUOUS_ID  # (1, 1)
        return logits, token, *(tensor for pair in written for tensor in pair)
