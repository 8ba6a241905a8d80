"""From float32 to float16 in an ONNX graph, in place: constants, activations and caches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

# Nearly everything in onnx-ir's own annotations is optional.
Model: TypeAlias = Any
Graph: TypeAlias = Any
Node: TypeAlias = Any
Value: TypeAlias = Any
Tensor: TypeAlias = Any

LOGITS = "logits"
HIDDEN = -60_000.0
"""Mask value of a hidden row: near float16's lowest, and finite, since −∞ less −∞ is NaN."""


def half(model: Model) -> None:
    """Make floats float16, in place: constants, activations and caches.

    Other inputs and the logits keep their type, with a Cast inside. The nodes after the logits
    (bias, argmax) compute in float32: a forced token's 1e9 and the sampler's noise do not fit
    float16.
    """
    graph = model.graph
    floats = ir.DataType.FLOAT
    halves = ir.DataType.FLOAT16
    outputs = {value.name: value for value in graph.outputs}
    after = _nodes_after(outputs[LOGITS])
    before = [node for node in graph if node not in after]

    _cast_inputs(graph, after, outputs)
    for value in list(graph.initializers.values()):
        if value.dtype == floats and not all(use.node in after for use in value.uses()):
            value.const_value = _halved(value.const_value)
            value.dtype = halves
    for node in before:
        _halve_attributes(node)
        for value in node.outputs:
            if value.dtype == floats:
                value.dtype = halves

    _cast_logits(graph, outputs[LOGITS])
    _add_masks(graph)


def _nodes_after(value: Value) -> set[Node]:
    """Return every node that depends on `value`."""
    found: set[Node] = set()
    waiting = [value]
    while waiting:
        for node in {use.node for use in waiting.pop().uses()} - found:
            found.add(node)
            waiting += node.outputs
    return found


def _cast_inputs(graph: Graph, after: set[Node], outputs: Mapping[str | None, Value]) -> None:
    """Make caches float16, and cast every other float input for the nodes before the logits."""
    first = next(iter(graph))
    for value in graph.inputs:
        if value.dtype != ir.DataType.FLOAT:
            continue
        if f"{value.name}_out" in outputs:
            value.dtype = ir.DataType.FLOAT16
        elif uses := [use for use in value.uses() if use.node not in after]:
            cast = ir.val(f"{value.name}_half", ir.DataType.FLOAT16, value.shape)
            node = ir.node("Cast", [value], {"to": ir.DataType.FLOAT16.value}, outputs=[cast])
            graph.insert_before(first, node)
            for use in uses:
                use.node.replace_input_with(use.idx, cast)


def _cast_logits(graph: Graph, logits: Value) -> None:
    """Give the head's output another name and cast it to the graph's float32 logits."""
    head = logits.producer()
    made = ir.val(LOGITS, ir.DataType.FLOAT, logits.shape)
    for use in list(logits.uses()):
        use.node.replace_input_with(use.idx, made)
    index = next(index for index, value in enumerate(graph.outputs) if value is logits)
    graph.outputs[index] = made
    logits.name = f"{LOGITS}_half"
    graph.insert_after(
        head, ir.node("Cast", [logits], {"to": ir.DataType.FLOAT.value}, outputs=[made])
    )


def _add_masks(graph: Graph) -> None:
    """Let each Attention add a float16 mask that is made once from the boolean mask.

    TensorRT-RTX 1.7.1 fails on a boolean mask that several layers share, at some window lengths
    (66, not 912).
    """
    added: dict[Value, Value] = {}
    for node in [node for node in graph if node.op_type == "Attention"]:
        mask = node.inputs[3]
        if mask not in added:
            added[mask] = ir.val(f"{mask.name}_added", ir.DataType.FLOAT16, mask.shape)
            where = ir.node(
                "Where",
                [mask, _scalar(graph, "seen", 0.0), _scalar(graph, "hidden", HIDDEN)],
                outputs=[added[mask]],
            )
            graph.insert_before(node, where)
        node.replace_input_with(3, added[mask])


def _scalar(graph: Graph, name: str, value: float) -> Value:
    if found := graph.initializers.get(name):
        return found
    tensor: Tensor = ir.tensor(np.array(value, np.float16), name=name)
    made = ir.val(name, tensor.dtype, tensor.shape, const_value=tensor)
    graph.register_initializer(made)
    return made


def _halve_attributes(node: Node) -> None:
    """Make a Cast to float32, or a float32 constant, one of float16."""
    if node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT.value:
        node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT16.value)
    value = node.attributes.get("value")
    if (
        value is not None
        and value.type == ir.AttributeType.TENSOR
        and value.as_tensor().dtype == ir.DataType.FLOAT
    ):
        node.attributes["value"] = ir.AttrTensor("value", _halved(value.as_tensor()))


def _halved(tensor: Tensor) -> Tensor:
    """Return the tensor in float16, made when it is written and not kept."""
    largest = np.finfo(np.float16).max

    def make() -> Tensor:
        return ir.tensor(
            np.clip(tensor.numpy(), -largest, largest).astype(np.float16), name=tensor.name
        )

    return ir.LazyTensor(make, ir.DataType.FLOAT16, tensor.shape, name=tensor.name)
