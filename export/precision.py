"""From a float32 ONNX graph to a graph of another precision, one weight at a time, without PyTorch.

    fp16   weights, activations and caches in float16; other inputs and outputs of the graph keep
    their type int8   each MatMul's weight as int8 codes and a scale per output channel int4   each
    MatMul's weight as int4 codes and a scale per output channel and BLOCK inputs w8a8   int8, and
    each MatMul's input as 8-bit codes and one scale, found while it runs

The codes of int8 and int4 become `DequantizeLinear` + `MatMul`. TensorRT and ONNX Runtime both read
that, and multiply in the graph's float type. The codes of w8a8 meet in `MatMulInteger`, for ONNX
Runtime on a CPU alone.

Three parts stay in float. A tick reads a few rows of the embedding table, so codes would save space
but no time, and every token passes through it. The head, 1024 of the table's rows, decides between
bins that nearly tie. The patch embedding is 0.3 % of the largest preset and is computed once a
tick.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .half_floats import half
from .rounding import Bits, Rounded, block_of, round_nearest
from .shared_weights import unshare_weights

# Nearly everything in onnx-ir's own annotations is optional.
Model: TypeAlias = Any
Graph: TypeAlias = Any
Node: TypeAlias = Any
Value: TypeAlias = Any
Tensor: TypeAlias = Any

INLINE_BYTES = 1_500_000_000
"""Size from which weights lie in a file beside the graph: a protobuf holds 2 GB."""
EXTERNAL_THRESHOLD_BYTES = 1024
"""Smallest tensor that moves to the file beside the graph."""

OnMatrix = Callable[[int, int], None]
"""Callback with the number of rounded matrices and the number of all matrices."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """Result of `convert`."""

    weights_bytes: int
    """Size of the graph's constants as they are stored."""
    rounded: int
    """Number of matrices on a grid."""
    kept: tuple[str, ...]
    """Names of the matrices that stay in float because no block divides their inputs."""


def ignore_matrix(_done: int, _of: int) -> None:
    """Do nothing: the default callback."""


def convert(
    source: Path,
    target: Path,
    bits: Bits | None,
    *,
    half_floats: bool,
    round_activations: bool = False,
    on_matrix: OnMatrix = ignore_matrix,
) -> Conversion:
    """Write the graph of `source` to `target` in another precision; a weights file goes to
    `<target>.data`.

    Args:
        source: a float32 graph that `export_onnx` wrote.
        target: a new file.
        bits: bits of a weight's code, `None` to leave weights in float.
        half_floats: make floats float16, as a GPU wants them; ONNX Runtime on a CPU is faster in
            float32.
        round_activations: with 8 bits, multiply whole numbers: w8a8.
        on_matrix: called after each matrix.
    """
    model: Model = ir.load(source)
    unshare_weights(model)
    rounded, kept = quantise(model, bits, round_activations, on_matrix) if bits else (0, ())
    if half_floats:
        half(model)
    weights_bytes = sum(value.const_value.nbytes for value in model.graph.initializers.values())

    _save(model, target, apart=weights_bytes > INLINE_BYTES)
    del model
    # Nodes and values hold each other, and with them the source's file, which is mapped in memory.
    gc.collect()
    return Conversion(weights_bytes, rounded, kept)


def _save(model: Model, target: Path, *, apart: bool) -> None:
    if apart:
        ir.save(
            model,
            target,
            external_data=f"{target.name}.data",
            size_threshold_bytes=EXTERNAL_THRESHOLD_BYTES,
        )
    else:
        ir.external_data.load_to_model(model)
        ir.save(model, target)


def weights_of_products(model: Model) -> Iterator[tuple[Node, Value]]:
    """Yield each MatMul with a constant matrix as its second input, and that matrix (K, N)."""
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
    round_activations: bool = False,
    on_matrix: OnMatrix = ignore_matrix,
) -> tuple[int, tuple[str, ...]]:
    """Put each MatMul's constant weight on a grid, in place; a weight that no block fits stays in
    float.

    Returns:
        Number of rounded matrices, and names of the matrices that stay in float.
    """
    found = list(weights_of_products(model))
    kept = []
    for done, (node, weight) in enumerate(found, 1):
        matrix = weight.const_value.numpy()  # (K, N)
        block = block_of(bits, len(matrix))

        if not block:
            kept.append(weight.name or "")
        elif round_activations:
            _multiply_codes(model.graph, node, weight, round_nearest(matrix, bits, block))
        else:
            rounded = round_nearest(matrix, bits, block)
            _dequantise(model.graph, node, weight, rounded, bits, block)
        on_matrix(done, len(found))
    return len(found) - len(kept), tuple(kept)


def _dequantise(
    graph: Graph, node: Node, weight: Value, rounded: Rounded, bits: int, block: int
) -> None:
    """Feed `node` from a DequantizeLinear of the codes instead of `weight`."""
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
    """Replace `node` with a product of 8-bit codes; ONNX Runtime fuses it into one kernel (VNNI on
    x86).
    """
    (product,) = node.outputs
    codes = _constant(graph, f"{weight.name}_codes", _stored(rounded.codes, 8))
    scales = _constant(graph, f"{weight.name}_scales", ir.tensor(rounded.scales[0]))

    coding = ir.node("DynamicQuantizeLinear", [node.inputs[0]], num_outputs=3)
    input_codes, input_scale, zero_point = coding.outputs
    whole = ir.node("MatMulInteger", [input_codes, codes, zero_point])
    cast = ir.node("Cast", [whole.outputs[0]], {"to": ir.DataType.FLOAT.value})
    scale = ir.node("Mul", [input_scale, scales])
    scaled = ir.node("Mul", [cast.outputs[0], scale.outputs[0]])
    graph.insert_before(node, [coding, whole, cast, scale, scaled])

    made = scaled.outputs[0]
    made.shape = product.shape
    made.dtype = product.dtype
    name = product.name
    ir.convenience.replace_all_uses_with(product, made, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    made.name = name
    if not weight.uses():
        del graph.initializers[weight.name or ""]


def _stored(codes: NDArray[np.int8], bits: int) -> Tensor:
    """Return codes as ONNX stores them: two int4 to a byte, the earlier one in the lower half."""
    if bits == 8:
        return ir.tensor(codes)
    flat = codes.reshape(-1, 2).view(np.uint8)
    packed = (flat[:, 0] & 0xF) | (flat[:, 1] << 4)
    return ir.PackedTensor(packed, ir.DataType.INT4, shape=codes.shape)


def _constant(graph: Graph, name: str, tensor: Tensor) -> Value:
    tensor.name = name
    value = ir.val(name, tensor.dtype, tensor.shape, const_value=tensor)
    graph.register_initializer(value)
    return value
