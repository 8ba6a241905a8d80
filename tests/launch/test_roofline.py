"""`gatort profile --roofline`: the count is that of the exported graph, and the arithmetic on it is right."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

import numpy as np
import pytest

from gatort.launch import cli
from gatort.launch.rates import (
    Device,
    last_level_cache_bytes,
    measure_cpu,
)
from gatort.launch.roofline import (
    Roofline,
    _storage,
    passes_p50_ms,
)
from gatort.launch.work import (
    Rates,
    Storage,
    Work,
    floor_s,
    pass_work,
    tick_work,
)
from gatort.policies.loading import PolicyOptions
from gatort.policies.presets import preset
from gatort.runtime.bundle import (
    ONNX_FILE,
    TrainingRecord,
)
from gatort.runtime.errors import EngineError
from gatort.runtime.spec import (
    PolicySpec,
    Precision,
)
from gatort.runtime.telemetry import Telemetry
from gatort.sim.tasks.stacking.task import (
    CAMERA_SPEC,
    GATO_SPEC,
    STACK_SPEC,
)

onnx = pytest.importorskip("onnx")
FP32 = Storage("fp32", float_bytes=4)


class Counted:
    """A graph at one size of its dynamic axes, its work counted node by node from the shapes that ONNX infers."""

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
        # The slice of the patches' positions has a length that is not inferred; all of them are read.
        sizes += [
            prod(self.shapes[node.output[0]]) or prod(self.weights[node.input[0]]) for node in rows
        ]
        return 4 * sum(sizes)


def export(directory: Path, spec: PolicySpec) -> Path:
    import torch

    from gatort.export.bundle_writer import write_bundle
    from gatort.policies.model import Gato

    torch.manual_seed(0)
    model = Gato(spec, preset("tiny"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()  # the exporter keeps equal constants once, and fresh norms are all ones
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


def made(flat_out_ms: float, cache_bytes: int = 0) -> Roofline:
    """Two passes of 1 GB at 100 GB/s: a floor of 20 ms."""
    device = Device("d", Rates(100e9, 1e12), None, cache_bytes, "nothing")
    work = Work(weights_bytes=0.9e9, cache_bytes=0.1e9, flops=1e9)
    return Roofline(device, FP32, (work, work), (1, 1), paced_ms=40.0, flat_out_ms=flat_out_ms)


def test_the_share_is_the_floor_over_what_was_measured_and_projects_the_floor_elsewhere() -> None:
    found = made(flat_out_ms=25.0)
    assert found.floor_ms == pytest.approx(20.0)
    assert (found.share(40.0), found.share(25.0)) == (pytest.approx(0.5), pytest.approx(0.8))
    assert found.bytes_s(25.0) == pytest.approx(80e9)
    projections = found.projections()
    assert len(projections) == 9
    assert all(each.paced_ms == pytest.approx(2 * each.floor_ms) for each in projections)
    assert all(each.flat_out_ms == pytest.approx(each.floor_ms / 0.8) for each in projections)


def test_a_share_above_all_is_never_projected_and_weights_in_the_cache_are_said_to_be() -> None:
    found = made(flat_out_ms=10.0, cache_bytes=2_000_000_000)
    assert found.share(10.0) == pytest.approx(2.0)
    assert all(each.flat_out_ms == each.floor_ms for each in found.projections())
    assert any("fits in the last-level cache (2000 MB)" in str(part) for part in found.report())
    assert not any("fits in" in str(part) for part in made(25.0).report())


def test_the_median_is_over_prefill_and_decodes_together_and_leaves_out_ticks_that_stopped_before() -> (
    None
):
    telemetry = Telemetry(STACK_SPEC, capacity=4)
    steps_ns = np.arange(1, len(telemetry.stages) + 1) * 1_000_000
    telemetry.stamps[:3, 1:] = 1 + np.cumsum(steps_ns)
    telemetry.stamps[:3, 0] = 1
    telemetry.stamps[2, 4:] = 0
    telemetry.ticks = 3
    assert passes_p50_ms(telemetry) == pytest.approx(sum(range(3, 11)))
    telemetry.stamps[:, 4:] = 0
    with pytest.raises(EngineError, match="no tick came to the end of its passes"):
        passes_p50_ms(telemetry)


@pytest.mark.parametrize(
    ("engine", "asked", "exported", "storage"),
    [
        ("onnx", None, "int8", Storage("int8", 4)),
        ("onnx", None, "fp16", Storage("fp16", 2)),
        ("torch", None, "int8", Storage("fp32", 4)),
        ("torch-cuda", None, "fp32", Storage("fp16", 2)),
        ("torch-cuda", "fp32", "fp32", Storage("fp32", 4)),
        ("onnx-cuda", None, "int4", Storage("int4", 2)),
    ],
)
def test_the_weights_counted_are_those_that_the_engine_holds(
    engine: str, asked: Precision | None, exported: Precision, storage: Storage
) -> None:
    assert _storage(PolicyOptions(engine=engine, precision=asked), exported) == storage


def test_this_machine_reads_and_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatort.launch.rates.LARGEST_SHARE", 0.0005)
    monkeypatch.setattr("gatort.launch.rates.CPU_SIDE", 64)
    monkeypatch.setattr("gatort.launch.rates.REPEATS", 1)
    found = measure_cpu()
    assert found.rates.read_bytes_s >= (found.one_thread_read_bytes_s or 0) > 0
    assert found.rates.flop_s > 0
    assert found.cache_bytes == last_level_cache_bytes() >= 0


def test_a_profile_reports_the_roofline_of_both_paces(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    device = Device("a device", Rates(1e9, 1e12), 1e9, 0, "nothing")
    monkeypatch.setattr("gatort.launch.roofline.measure_cpu", lambda: device)
    report = tmp_path / "p.json"
    arguments = ["--robot", "scripted", "--ticks", "5", "--budget-ms", "5000", "--max-misses", "5"]
    assert (
        cli.main(
            ["profile", "--bundle", str(bundle), *arguments, "--roofline", "--json", str(report)]
        )
        == 0
    )
    record = json.loads(report.read_text())["roofline"]
    assert record["floor_ms"] > 0
    assert record["share_of_floor"]["paced"] == pytest.approx(
        record["floor_ms"] / record["paced_ms"]
    )
    assert len(record["projection_not_measurement_rtx_3090"]) == 9
    out = capsys.readouterr().out
    assert "projection, not measurement" in out
    assert "a device: 1.0 GB/s" in out
