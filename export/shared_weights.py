"""A graph that reads its weights from the bundle's safetensors file, which then holds them once.

PyTorch keeps a layer's matrix as (outputs, inputs), and a graph multiplies by (inputs, outputs).
The shared graph therefore transposes: ONNX Runtime and TensorRT do so once, when they load it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

# Nearly everything in onnx-ir's own annotations is optional.
Model: TypeAlias = Any
Value: TypeAlias = Any

SMALLEST_SHARED_BYTES = 4096
"""Smaller tensors stay inside the graph."""
_TRANSPOSED = "_stored"
"""Ending of the name of a matrix that the graph transposes."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """A tensor of a safetensors file."""

    offset: int
    """First byte in the file."""
    bytes: int
    values: NDArray[np.float32]
    """The tensor, mapped from the file."""


def share_weights(graph: Path, weights: Path) -> None:
    """Rewrite a graph so that it reads its large weights from a safetensors file beside it.

    Args:
        graph: graph that `export_onnx` wrote, with or without `<graph>.data`.
        weights: safetensors file of the same model, in the same folder.
    """
    model: Model = ir.load(graph)
    stored = list(_stored(weights))
    for value in list(model.graph.initializers.values()):
        shared = value.const_value.nbytes >= SMALLEST_SHARED_BYTES and _share(
            model, value, stored, weights
        )
        if not shared:
            # A copy, because it may lie in `<graph>.data`, which goes away.
            value.const_value = ir.tensor(value.const_value.numpy().copy(), name=value.name)

    part = graph.with_suffix(".part")
    ir.save(model, part)
    del model
    part.rename(graph)
    graph.with_name(f"{graph.name}.data").unlink(missing_ok=True)


def _stored(weights: Path) -> Iterator[_Stored]:
    """Yield the float32 tensors of a safetensors file: header size, JSON header, then bytes."""
    mapped = np.memmap(weights, np.uint8, mode="r")
    header_bytes = int(mapped[:8].view("<u8")[0])
    header = json.loads(mapped[8 : 8 + header_bytes].tobytes())
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            first, last = (8 + header_bytes + at for at in entry["data_offsets"])
            values = mapped[first:last].view(np.float32).reshape(entry["shape"])
            yield _Stored(first, last - first, values)


def _share(model: Model, value: Value, stored: list[_Stored], weights: Path) -> bool:
    """Let an initializer read the stored tensor that equals it, or the transpose of one.

    Returns:
        False if no tensor equals it.
    """
    wanted = value.const_value.numpy()
    for each in stored:
        if _equal(each.values, wanted):
            value.const_value = _external(each, value.name, weights)
            return True
    for each in stored:
        if each.values.ndim == 2 and _equal(each.values.T, wanted):
            _transpose(model, value, _external(each, f"{value.name}{_TRANSPOSED}", weights))
            return True
    return False


def _equal(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> bool:
    if found.shape != wanted.shape:
        return False
    # A first row tells most tensors apart without reading them whole.
    return np.array_equal(found[:1], wanted[:1]) and np.array_equal(found, wanted)


def _external(stored: _Stored, name: str, weights: Path) -> Any:
    return ir.ExternalTensor(
        weights.name,
        stored.offset,
        stored.bytes,
        ir.DataType.FLOAT,
        shape=ir.Shape(stored.values.shape),
        name=name,
        base_dir=weights.parent,
    )


def _transpose(model: Model, value: Value, tensor: Any) -> None:
    """Replace an initializer by the transpose of a stored one."""
    graph = model.graph
    read = ir.val(tensor.name, tensor.dtype, tensor.shape, const_value=tensor)
    graph.register_initializer(read)
    turned = ir.val(f"{value.name}_turned", value.dtype, value.shape)
    node = ir.node("Transpose", [read], {"perm": [1, 0]}, outputs=[turned])
    graph.insert_before(graph[0], node)
    value.replace_all_uses_with(turned)
    del graph.initializers[value.name]


def unshare_weights(model: Model) -> None:
    """Replace each transpose of an initializer by an initializer, as the exporter wrote it."""
    for node in list(model.graph):
        read = node.inputs[0] if node.inputs else None
        if node.op_type != "Transpose" or read is None or not read.is_initializer():
            continue
        (turned,) = node.outputs
        stored = read.const_value
        name = read.name.removesuffix(_TRANSPOSED)
        shape = ir.Shape(stored.shape[::-1])
        tensor = ir.LazyTensor(partial(_turned, stored), stored.dtype, shape, name=name)
        matrix = ir.val(name, stored.dtype, shape, const_value=tensor)
        model.graph.register_initializer(matrix)
        turned.replace_all_uses_with(matrix)
        model.graph.remove(node, safe=True)
        del model.graph.initializers[read.name]


def _turned(stored: Any) -> Any:
    return ir.tensor(np.ascontiguousarray(stored.numpy().T), dtype=stored.dtype)
