"""The counted work of a pass is that of the exported graph."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import torch

from gatort.export.bundle_writer import write_bundle
from gatort.export.roofline.work import Rates, Storage, floor_s, pass_work, tick_work
from gatort.policies.model import Gato
from gatort.policies.presets import preset
from gatort.runtime.bundle import ONNX_FILE, TrainingRecord
from gatort.runtime.spec import PolicySpec, Precision
from gatort.sim.tasks.stacking.specifications import CAMERA_SPEC, GATO_SPEC, STACK_SPEC

FP32 = Storage("fp32", float_bytes=4)


class Counted:
    """A graph at one size of its dynamic axes; its work is counted per node from inferred
    shapes."""

    def __init__(self, path: Path, positions: int, patches: int) -> None:
        model = onnx.load(path)
        sizes = {"ids": [1, positions - patches], "patches": [patches, 3, 16, 16]}
        for value in model.graph.input:
            for axis, size in zip(
                value.type.tensor_type.shape.dim, sizes.get(value.name, []), strict=False
            ):
                axis.dim_value = size
            first = value.type.tensor_type.shape.dim[0]
            if value.name in ("local", "cos", "sin", "mask"):
                first.dim_value = positions
            if value.name == "bias":
                first.dim_value = 1
        _choose_last(model.graph, positions)
        del model.graph.value_info[:]
        graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        self.weights = {each.name: tuple(each.dims) for each in graph.initializer}
        values = (*graph.value_info, *graph.input, *graph.output)
        self.shapes = self.weights | {
            value.name: tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
            for value in values
        }
        self.nodes = graph.node

    def flops(self) -> int:
        return 2 * sum(self._multiplied(node) for node in self.nodes)

    def _multiplied(self, node: object) -> int:
        read, (made, *_) = [self.shapes.get(name, ()) for name in node.input], node.output
        if node.op_type in ("MatMul", "Gemm"):
            return prod(self.shapes[made]) * read[0][-1]
        if node.op_type == "Conv":
            return prod(self.shapes[made]) * prod(read[1][1:])
        if node.op_type == "Attention":
            return 2 * prod(read[0]) * read[1][-2]
        return 0

    def weights_bytes(self) -> int:
        """Every constant once; of a table only the rows that are gathered or sliced."""
        rows = [
            node
            for node in self.nodes
            if node.op_type in ("Gather", "Slice") and node.input[0] in self.weights
        ]
        tables = {node.input[0] for node in rows}
        whole = {
            name for node in self.nodes for name in node.input if name in self.weights
        } - tables
        sizes = [prod(self.weights[name]) for name in whole]
        # ONNX infers no length for the slice of the patches' positions; all of them are read.
        sizes += [
            prod(self.shapes[node.output[0]]) or prod(self.weights[node.input[0]]) for node in rows
        ]
        return 4 * sum(sizes)


def _choose_last(graph: onnx.GraphProto, positions: int) -> None:
    """Let only the last position choose a token. ONNX itself does not follow that computation."""
    starts = {node.input[1] for node in graph.node if node.op_type == "Slice"}
    for node in [node for node in graph.node if node.output[0] in starts]:
        last = np.array([positions - 1], np.int64)
        graph.initializer.append(onnx.numpy_helper.from_array(last, node.output[0]))
        graph.node.remove(node)


def export(directory: Path, spec: PolicySpec) -> Path:
    torch.manual_seed(0)
    model = Gato(spec, preset("tiny"))
    with torch.no_grad():
        for parameter in model.parameters():
            # Fresh norms are all ones, and the exporter stores equal constants once.
            parameter.normal_()
    training = TrainingRecord(recipe="none", demonstrations="none", parameters=0, steps=0)
    write_bundle(directory / "bundle", "counted", model, training)
    return directory / "bundle"


@pytest.mark.parametrize("spec", [STACK_SPEC, CAMERA_SPEC], ids=["blocks", "cameras"])
def test_the_count_is_that_of_the_exported_graph(spec: PolicySpec, tmp_path: Path) -> None:
    graph, dims = export(tmp_path, spec) / ONNX_FILE, preset("tiny")
    for positions, patches in ((spec.observation_tokens + 2, spec.image_tokens), (1, 0)):
        counted, work = (
            Counted(graph, positions, patches),
            pass_work(spec, dims, FP32, positions, patches),
        )
        assert work.flops == counted.flops()
        if (
            patches or not spec.image_tokens
        ):  # without patches the graph's convolutions have nothing to read
            # A few dozen constants of shapes and indices are not weights.
            assert work.weights_bytes == pytest.approx(counted.weights_bytes(), abs=1_000)


def test_the_cache_is_read_whole_and_written_where_the_pass_stands() -> None:
    dims = preset("stack")
    work = pass_work(STACK_SPEC, dims, FP32, 26, 0)
    row_bytes = 4 * dims.heads * dims.head_size
    assert work.cache_bytes == 2 * dims.layers * (STACK_SPEC.window_tokens + 26) * row_bytes


@pytest.mark.parametrize(
    ("precision", "bits"),
    [("fp16", 16), ("int8", 8 + 16 / 2048), ("int4", 4 + 16 / 128)],
    ids=["fp16", "int8", "int4"],
)
def test_a_matrix_is_its_codes_and_its_scales(precision: Precision, bits: float) -> None:
    assert Storage(precision, 2).matrix_bytes((2048, 6144)) == 2048 * 6144 * bits / 8


def test_a_matrix_that_no_block_of_int4_fits_stays_in_float() -> None:
    assert Storage("int4", 2).matrix_bytes((200, 10)) == 200 * 10 * 2


def test_the_papers_largest_size_has_the_floor_that_its_weights_over_the_bandwidth_give() -> None:
    passes = tick_work(GATO_SPEC, preset("gato-1.2b"), Storage("fp16", 2))
    assert len(passes) == 8
    decode_s = (passes[1].weights_bytes + passes[1].cache_bytes) / 936e9
    prefill_s = passes[0].flops / 71e12
    assert prefill_s > passes[0].moved_bytes / 936e9
    assert floor_s(passes, Rates(936e9, 71e12)) == pytest.approx(prefill_s + 7 * decode_s)
    # 24 layers of 46.66 M weights and the head, two bytes each.
    assert passes[1].weights_bytes == pytest.approx(2 * (24 * 46.66e6 + 1024 * 2048), rel=1e-3)
