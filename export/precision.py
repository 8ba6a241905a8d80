"""From a float32 ONNX graph to one of another precision, weights a tensor at a time; needs no PyTorch.

    fp16   weights, activations and caches in float16; what crosses the graph's edge otherwise keeps its type
    int8   each MatMul's weight as int8 codes and a scale per output channel
    int4   each MatMul's weight as int4 codes and a scale per output channel and BLOCK inputs
    w8a8   int8, and each MatMul's input as 8-bit codes and a scale for the whole of it, found while it runs

The codes of int8 and int4 become `DequantizeLinear` + `MatMul`, which TensorRT and ONNX Runtime both read, and which
multiply in the graph's float type. Those of w8a8 meet in `MatMulInteger`, for ONNX Runtime on a CPU alone. Three things
stay in float. The embedding table: a tick reads a few rows of it, so that codes would save space but no time, and every
token goes through it. The head, 1024 of the table's rows: it decides between bins that nearly tie. The patch
embedding, 0.3 % of the largest preset: it is computed once a tick.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.errors import MissingDependency

from .rounding import (
    Rounded,
    round_compensated,
    round_nearest,
)

# Objects of onnx-ir, which is imported late. Nearly all that it gives is optional in its own annotations.
Model: TypeAlias = Any
Graph: TypeAlias = Any
Node: TypeAlias = Any
Value: TypeAlias = Any
Tensor: TypeAlias = Any

Bits = Literal[4, 8]
BLOCK = 128
"""Inputs that share a scale in int4."""
SMALLEST_BLOCK = 16
"""ONNX Runtime's kernel takes no smaller one."""
INLINE_BYTES = 1_500_000_000
"""A protobuf holds 2 GB; beyond this the weights lie in a file beside the graph."""
EXTERNAL_THRESHOLD_BYTES = 1024
LOGITS = "logits"
HIDDEN = -60_000.0
"""What a mask adds to hide a row: near float16's lowest, and finite, since −∞ less −∞ is NaN."""

Grams = Mapping[str, NDArray[np.float64]]
"""Name of a MatMul's weight to the Gram matrix (K, K) of its recorded inputs."""
Progress = Callable[[int, int], None]
"""Called with how many matrices are rounded, and of how many."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """What `convert` wrote."""

    weights_bytes: int
    """All constants of the graph as they are stored."""
    rounded: int
    """Matrices on a grid."""
    kept: tuple[str, ...]
    """Matrices that stay in float because no block divides their inputs."""


def no_progress(_done: int, _of: int) -> None:
    """For who does not watch."""


def convert(
    source: Path,
    target: Path,
    bits: Bits | None,
    *,
    half_floats: bool,
    round_activations: bool = False,
    grams: Grams | None = None,
    progress: Progress = no_progress,
) -> Conversion:
    """Write the graph of `source` to `target` in another precision; a weights file goes to `<target>.data`.

    Args:
        source: a float32 graph that `export_onnx` wrote.
        target: a new file.
        bits: of a weight's code, none to leave weights in float.
        half_floats: make floats float16, as a GPU wants them; ONNX Runtime on a CPU is faster in float32.
        round_activations: with 8 bits, multiply whole numbers: w8a8.
        grams: compensate rounding errors for these inputs; round to the nearest code when none.
        progress: called after each matrix.

    Raises:
        MissingDependency: onnx-ir is not installed.
    """
    ir = import_ir()
    model = ir.load(source)
    rounded, kept = quantise(model, bits, grams, round_activations, progress) if bits else (0, ())
    if half_floats:
        half(model)
    weights_bytes = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    if weights_bytes > INLINE_BYTES:
        ir.save(
            model,
            target,
            external_data=f"{target.name}.data",
            size_threshold_bytes=EXTERNAL_THRESHOLD_BYTES,
        )
    else:
        ir.external_data.load_to_model(model)
        ir.save(model, target)
    del model
    gc.collect()  # nodes and values hold each other, and with them the source's file mapped in memory
    return Conversion(weights_bytes, rounded, kept)


def weights_of_products(model: Model) -> Iterator[tuple[Node, Value]]:
    """Each MatMul with a constant matrix as its second input, and that matrix (K, N)."""
    for node in model.graph:
        if (
            node.op_type == "MatMul"
            and (weight := node.inputs[1]) is not None
            and weight.is_initializer()
        ):
            yield node, weight


def quantise(
    model: Model,
    bits: Bits,
    grams: Grams | None = None,
    round_activations: bool = False,
    progress: Progress = no_progress,
) -> tuple[int, tuple[str, ...]]:
    """Put each MatMul's constant weight on a grid, in place.

    int8 has one scale per output. int4 has one per output and BLOCK inputs; where BLOCK does not divide the inputs,
    the largest power of two that does, and where that is below SMALLEST_BLOCK the weight stays in float.

    Returns:
        How many matrices are rounded, and the names of those that are not.
    """
    found, kept = list(weights_of_products(model)), []
    for done, (node, weight) in enumerate(found, 1):
        matrix = weight.const_value.numpy()  # (K, N)
        block = len(matrix) if bits == 8 else _block(len(matrix))
        if block:
            name = weight.name or ""
            gram = None if grams is None else grams[name]
            rounded = (
                round_nearest(matrix, bits, block)
                if gram is None
                else round_compensated(matrix, bits, block, gram)
            )
            if round_activations:
                _multiply_codes(model.graph, node, weight, rounded)
            else:
                _dequantise(model.graph, node, weight, rounded, bits, block)
        else:
            kept.append(weight.name or "")
        progress(done, len(found))
    return len(found) - len(kept), tuple(kept)


def _block(inputs: int) -> int:
    """Inputs that share a scale, none when no block fits."""
    block = BLOCK
    while inputs % block:
        block //= 2
    return block if block >= SMALLEST_BLOCK else 0


def _dequantise(
    graph: Graph, node: Node, weight: Value, rounded: Rounded, bits: int, block: int
) -> None:
    """Feed `node` from a DequantizeLinear of the codes instead of `weight`."""
    ir = import_ir()
    name = weight.name or ""
    codes = _constant(graph, f"{name}_codes", _stored(rounded.codes, bits))
    if bits == 8:
        scales, attributes = rounded.scales[0], {"axis": 1}  # (N,)
    else:
        scales, attributes = rounded.scales, {"axis": 0, "block_size": block}  # (K / B, N)
    inputs = [codes, _constant(graph, f"{name}_scales", ir.tensor(scales))]
    dequantised = ir.val(f"{name}_values", ir.DataType.FLOAT, weight.shape)
    graph.insert_before(
        node, ir.node("DequantizeLinear", inputs, attributes, outputs=[dequantised])
    )
    node.replace_input_with(1, dequantised)
    if not weight.uses():
        del graph.initializers[name]


def _multiply_codes(graph: Graph, node: Node, weight: Value, rounded: Rounded) -> None:
    """Put a product of 8-bit codes in the place of `node`; ONNX Runtime fuses it into one kernel (VNNI on x86)."""
    ir = import_ir()
    (product,) = node.outputs
    made = [
        coding := ir.node("DynamicQuantizeLinear", [node.inputs[0]], num_outputs=3),
        whole := ir.node(
            "MatMulInteger",
            [
                coding.outputs[0],
                _constant(graph, f"{weight.name}_codes", _stored(rounded.codes, 8)),
                coding.outputs[2],
            ],
        ),
        cast := ir.node("Cast", [whole.outputs[0]], {"to": ir.DataType.FLOAT.value}),
        scale := ir.node(
            "Mul",
            [
                coding.outputs[1],
                _constant(graph, f"{weight.name}_scales", ir.tensor(rounded.scales[0])),
            ],
        ),
        scaled := ir.node("Mul", [cast.outputs[0], scale.outputs[0]]),
    ]
    graph.insert_before(node, made)
    name, scaled.outputs[0].shape, scaled.outputs[0].dtype = (
        product.name,
        product.shape,
        product.dtype,
    )
    ir.convenience.replace_all_uses_with(product, scaled.outputs[0], replace_graph_outputs=True)
    graph.remove(node, safe=True)
    scaled.outputs[0].name = name
    if not weight.uses():
        del graph.initializers[weight.name or ""]


def _stored(codes: NDArray[np.int8], bits: int) -> Tensor:
    """Codes as ONNX stores them: two int4 to a byte, the earlier one in the lower half."""
    ir = import_ir()
    if bits == 8:
        return ir.tensor(codes)
    flat = codes.reshape(-1, 2).view(np.uint8)
    return ir.PackedTensor(
        (flat[:, 0] & 0xF) | (flat[:, 1] << 4), ir.DataType.INT4, shape=codes.shape
    )


def _constant(graph: Graph, name: str, tensor: Tensor) -> Value:
    ir = import_ir()
    tensor.name = name
    value = ir.val(name, tensor.dtype, tensor.shape, const_value=tensor)
    graph.register_initializer(value)
    return value


def half(model: Model) -> None:
    """Make floats float16, in place: constants, activations and caches.

    Other inputs and the logits keep their type, with a Cast inside; what follows from the logits (bias, argmax) is
    computed in float32, where a forced token's 1e9 and the sampler's noise are at home.
    """
    ir = import_ir()
    graph, floats, halves = model.graph, ir.DataType.FLOAT, ir.DataType.FLOAT16
    outputs = {value.name: value for value in graph.outputs}
    after = _nodes_after(outputs[LOGITS])
    before = [node for node in graph if node not in after]
    _cast_inputs(graph, after, outputs)
    for value in list(graph.initializers.values()):
        if value.dtype == floats and not all(use.node in after for use in value.uses()):
            value.const_value, value.dtype = _halved(value.const_value), halves
    for node in before:
        _halve_attributes(node)
        for value in node.outputs:
            if value.dtype == floats:
                value.dtype = halves
    _cast_logits(graph, outputs[LOGITS])
    _add_masks(graph)


def _nodes_after(value: Value) -> set[Node]:
    """Every node that depends on `value`."""
    found: set[Node] = set()
    waiting = [value]
    while waiting:
        for node in {use.node for use in waiting.pop().uses()} - found:
            found.add(node)
            waiting += node.outputs
    return found


def _cast_inputs(graph: Graph, after: set[Node], outputs: Mapping[str | None, Value]) -> None:
    """Caches become float16; every other float input gets a Cast for the nodes before the logits."""
    ir = import_ir()
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
    ir = import_ir()
    head = logits.producer()
    made = ir.val(LOGITS, ir.DataType.FLOAT, logits.shape)
    for use in list(logits.uses()):
        use.node.replace_input_with(use.idx, made)
    graph.outputs[next(index for index, value in enumerate(graph.outputs) if value is logits)] = (
        made
    )
    logits.name = f"{LOGITS}_half"
    graph.insert_after(
        head, ir.node("Cast", [logits], {"to": ir.DataType.FLOAT.value}, outputs=[made])
    )


def _add_masks(graph: Graph) -> None:
    """Let each Attention add a float16 mask, made once from the boolean one.

    TensorRT-RTX 1.7.1 fails on a boolean mask that several layers share, at some window lengths (66, not 912).
    """
    ir = import_ir()
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
    return graph.initializers.get(name) or _constant(
        graph, name, import_ir().tensor(np.array(value, np.float16))
    )


def _halve_attributes(node: Node) -> None:
    """A Cast to float32, or a constant of it, becomes float16."""
    ir = import_ir()
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
    """The tensor in float16, made when it is written and not kept."""
    ir = import_ir()
    largest = np.finfo(np.float16).max

    def make() -> Tensor:
        return ir.tensor(
            np.clip(tensor.numpy(), -largest, largest).astype(np.float16), name=tensor.name
        )

    return ir.LazyTensor(make, ir.DataType.FLOAT16, tensor.shape, name=tensor.name)


def import_ir() -> Any:
    """The package that reads and writes graphs.

    Raises:
        MissingDependency: onnx-ir is not installed.
    """
    try:
        import onnx_ir
    except ImportError as error:
        raise MissingDependency(
            "onnx-ir is not installed: pip install 'gatort[tensorrt]'"
        ) from error
    return onnx_ir
