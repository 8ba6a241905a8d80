"""Real builds for a GPU that this machine need not have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("tensorrt_rtx")

import onnx_ir as ir
import torch

from gatort.export.precision import convert
from gatort.export.to_onnx import export_onnx
from gatort.export.to_tensorrt import build_engine
from gatort.policies.model import Gato
from gatort.policies.presets import preset
from gatort.runtime.bundle import ONNX_FILE
from gatort.runtime.errors import EngineError
from gatort.sim.tasks.stacking.specifications import GATO_SPEC

KERNELS_BYTES = 13_000_000
"""Largest part of an engine beside its weights, whatever their size: 7 to 12 MB were seen."""


@pytest.fixture(scope="module")
def gato_79m(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export the smallest of the paper's sizes, in its frame."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("gato-79m") / ONNX_FILE
    export_onnx(Gato(GATO_SPEC, preset("gato-79m")), path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "bytes_per_weight"), [(None, 2.0), (8, 1.0), (4, 0.52)])
def test_gato_79m_compiles_for_the_rtx_3090_and_holds_its_weights_once(
    gato_79m: Path, tmp_path: Path, bits: int | None, bytes_per_weight: float
) -> None:
    graph = tmp_path / "graph.onnx"
    converted = convert(gato_79m, graph, bits, half_floats=True)  # type: ignore[arg-type]
    built = build_engine(graph, GATO_SPEC, "rtx3090", "tensorrt-rtx")
    matrices = 8 * (768 * 2304 + 768 * 768 + 768 * 3584 + 1792 * 768)
    kept_in_half = 79_200_000 - matrices  # mostly the table of 33,025 tokens
    expected = matrices * bytes_per_weight + kept_in_half * 2
    assert converted.weights_bytes == pytest.approx(expected, rel=0.02)
    assert built.plan.nbytes < 1.05 * converted.weights_bytes + KERNELS_BYTES
    assert built.plan.nbytes > converted.weights_bytes
    assert built.fused_layers < built.layers / 10
    assert built.seconds > 0
    assert built.peak_memory_bytes > built.plan.nbytes


@pytest.fixture(scope="module")
def small(
    make_model: Callable[..., Gato], tmp_path_factory: pytest.TempPathFactory
) -> dict[int, Path]:
    """Export graphs without cameras and with two; TensorRT has a kernel for four heads of 32."""
    directory = tmp_path_factory.mktemp("small")
    for cameras in (0, 2):
        model = make_model(cameras)
        export_onnx(
            Gato(model.spec, model.dims.model_copy(update={"heads": 4, "head_size": 32})),
            directory / f"{cameras}.onnx",
        )
    return {cameras: directory / f"{cameras}.onnx" for cameras in (0, 2)}


@pytest.mark.parametrize("cameras", [0, 2])
@pytest.mark.parametrize("bits", [None, 8, 4])
def test_a_small_policy_compiles_at_every_precision(
    small: dict[int, Path],
    make_model: Callable[..., Gato],
    tmp_path: Path,
    cameras: int,
    bits: int | None,
) -> None:
    convert(small[cameras], tmp_path / "half.onnx", bits, half_floats=True)  # type: ignore[arg-type]
    built = build_engine(
        tmp_path / "half.onnx", make_model(cameras).spec, "rtx3090", "tensorrt-rtx"
    )
    assert built.plan.nbytes > 0


@pytest.fixture
def half(small: dict[int, Path], tmp_path: Path) -> Path:
    convert(small[0], tmp_path / "half.onnx", None, half_floats=True)
    return tmp_path / "half.onnx"


def test_progress_is_reported_phase_by_phase(half: Path, make_model: Callable[..., Gato]) -> None:
    told: list[tuple[str, int, int]] = []
    build_engine(
        half, make_model().spec, "rtx3090", "tensorrt-rtx", lambda *step: told.append(step)
    )
    assert told
    assert all(0 <= done <= of for _, done, of in told)


def test_an_interrupt_ends_a_build(half: Path, make_model: Callable[..., Gato]) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(half, make_model().spec, "rtx3090", "tensorrt-rtx", interrupt)


def test_the_refusal_of_attention_without_a_kernel_quotes_the_builder(
    make_model: Callable[..., Gato], tmp_path: Path
) -> None:
    model = make_model()
    odd = Gato(model.spec, model.dims.model_copy(update={"heads": 1, "head_size": 10}))
    export_onnx(odd, tmp_path / "whole.onnx")
    convert(tmp_path / "whole.onnx", tmp_path / "half.onnx", None, half_floats=True)
    with pytest.raises(
        EngineError, match=r"cannot build .*Attention operation was not supported by a dedicated"
    ):
        build_engine(tmp_path / "half.onnx", model.spec, "rtx3090", "tensorrt-rtx")


def test_the_refusal_of_a_node_names_it(half: Path, make_model: Callable[..., Gato]) -> None:
    model = ir.load(half)
    for node in model.graph:
        if node.op_type == "TensorScatter":
            node.attributes["mode"] = ir.AttrString("mode", "circular")
    ir.save(model, half)
    with pytest.raises(EngineError, match=r"refuses .*half\.onnx: TensorScatter"):
        build_engine(half, make_model().spec, "rtx3090", "tensorrt-rtx")


def test_a_file_that_is_no_graph_is_refused(
    tmp_path: Path, make_model: Callable[..., Gato]
) -> None:
    (tmp_path / "noise.onnx").write_bytes(b"noise")
    with pytest.raises(EngineError, match=r"noise\.onnx"):
        build_engine(tmp_path / "noise.onnx", make_model().spec, "rtx3090", "tensorrt-rtx")
