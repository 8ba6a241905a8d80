from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from gatort.export import precision
from gatort.export.compare import compare_actions
from gatort.export.graph_engine import GraphEngine
from gatort.export.parity import compare
from gatort.export.precision import convert
from gatort.export.rounding import BLOCK, best_scales, block_of, round_nearest
from gatort.export.shared_weights import unshare_weights
from gatort.policies import grid
from gatort.policies.grid import on_grid
from gatort.policies.weights import read_model
from gatort.runtime.bundle import ONNX_FILE, load_manifest
from gatort.runtime.context import Context
from gatort.runtime.decoding import FORCED
from gatort.runtime.episode import Episode
from gatort.runtime.spec import FIRST_CONTINUOUS_ID

BITS = (8, 4)


def random_matrix(inputs: int = 256, outputs: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((inputs, outputs)).astype(np.float32)


@pytest.mark.parametrize("bits", BITS)
def test_a_weight_that_was_trained_onto_the_grid_comes_back_exactly(bits: int) -> None:
    weight = on_grid(torch.from_numpy(random_matrix(384, 64)).T).T.numpy()
    rounded = round_nearest(weight, bits, block_of(bits, 384))
    np.testing.assert_array_equal(rounded.values(), weight)
    np.testing.assert_array_equal(
        rounded.scales.astype(np.float16).astype(np.float32), rounded.scales
    )


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("shrunk", [1.0, 0.5, 0.25])
def test_a_column_of_integers_times_a_scale_is_exact_whichever_codes_it_uses(
    bits: int, shrunk: float
) -> None:
    largest = int((2 ** (bits - 1) - 1) * shrunk)
    codes = np.random.default_rng(1).integers(-largest, largest + 1, (128, 16))
    weight = (codes * 0.0078125 * 3).astype(np.float32)
    np.testing.assert_array_equal(round_nearest(weight, bits, 128).values(), weight)


@pytest.mark.parametrize("bits", BITS)
def test_searched_scales_are_never_worse_than_the_largest_magnitude_over_the_largest_code(
    bits: int,
) -> None:
    weight, most = random_matrix(128), 2 ** (bits - 1) - 1
    plain = np.abs(weight).max(axis=0) / most

    def error(scale: np.ndarray) -> np.ndarray:
        return ((np.clip(np.rint(weight / scale), -most - 1, most) * scale - weight) ** 2).sum(
            axis=0
        )

    found = error(best_scales(weight, bits))
    assert (found <= error(plain) * 1.0001).all()
    assert found.sum() < error(plain).sum()


def converted(bundle: Path, target: Path, bits: int | None, half: bool) -> Path:
    convert(bundle / ONNX_FILE, target, bits, half_floats=half)  # type: ignore[arg-type]
    return target


def test_a_half_precision_graph_keeps_the_types_at_its_edge_and_halves_the_caches(
    camera_bundle: Path, tmp_path: Path
) -> None:
    model = ir.load(converted(camera_bundle, tmp_path / "half.onnx", None, True))
    types = {value.name: value.dtype for value in (*model.graph.inputs, *model.graph.outputs)}
    half = {name for name, dtype in types.items() if dtype == ir.DataType.FLOAT16}
    floats = {name for name, dtype in types.items() if dtype == ir.DataType.FLOAT}
    assert floats == {"cos", "sin", "patches", "bias", "logits"}
    assert half == {
        f"{kind}_{layer}{out}" for kind in "kv" for layer in (0, 1) for out in ("", "_out")
    }
    assert types["token"] == ir.DataType.INT64


@pytest.mark.parametrize("bits", [None, 8, 4])
@pytest.mark.parametrize("half", [False, True])
def test_every_precision_is_a_valid_graph(
    camera_bundle: Path, tmp_path: Path, bits: int | None, half: bool
) -> None:
    onnx.checker.check_model(
        converted(camera_bundle, tmp_path / "graph.onnx", bits, half), full_check=True
    )


def test_a_half_precision_graph_agrees_with_pytorch_over_three_wraps(
    camera_bundle: Path, tmp_path: Path
) -> None:
    engine = GraphEngine(converted(camera_bundle, tmp_path / "half.onnx", None, True))
    report = compare(read_model(camera_bundle), engine)
    assert report.wraps >= 3
    # float16 has 11 bits: sums of some hundred products are off by some 1e-3 of logits near 100.
    assert report.largest_difference < 0.01 * report.largest_logit


def test_a_forced_token_wins_in_half_precision_too(bundle: Path, tmp_path: Path) -> None:
    manifest = load_manifest(bundle)
    engine = GraphEngine(converted(bundle, tmp_path / "half.onnx", None, True))
    context = Context(manifest.spec, manifest.model)
    context.frame.bias[:, 7] = FORCED
    engine.tick(context.frame)
    assert (context.frame.tokens == FIRST_CONTINUOUS_ID + 7).all()
    assert np.isfinite(context.frame.logits).all()


@pytest.mark.parametrize("bits", BITS)
def test_dequantised_weights_compute_what_the_rounded_matrices_compute(
    bundle: Path, tmp_path: Path, bits: int
) -> None:
    # A float graph that holds the rounded values shows whether codes, packing, scales and axes fit.
    engine = GraphEngine(converted(bundle, tmp_path / "codes.onnx", bits, False))
    model: Any = ir.load(bundle / ONNX_FILE)
    unshare_weights(model)
    for _, weight in precision.weights_of_products(model):
        matrix = weight.const_value.numpy()
        values = round_nearest(matrix, bits, block_of(bits, len(matrix))).values()
        weight.const_value = ir.tensor(values, name=weight.name)
    ir.external_data.load_to_model(model)
    ir.save(model, tmp_path / "values.onnx")
    manifest = load_manifest(bundle)
    logits = []
    for each in (engine, GraphEngine(tmp_path / "values.onnx")):
        context = Context(manifest.spec, manifest.model)
        each.tick(context.frame)
        logits.append(context.frame.logits.copy())
    np.testing.assert_allclose(
        *logits, atol=1e-4 * np.abs(logits[0]).max()
    )  # sums in another order


@pytest.mark.parametrize("bits", BITS)
def test_onnx_runtime_multiplies_by_the_codes_and_never_unpacks_them(
    bundle: Path, tmp_path: Path, bits: int
) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(converted(bundle, tmp_path / "codes.onnx", bits, False), options)
    ran = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert ran.count("MatMulNBits") == 8
    assert "DequantizeLinear" not in ran


def test_weights_too_large_for_one_file_lie_beside_the_graph_and_count_as_before(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = convert(bundle / ONNX_FILE, tmp_path / "whole.onnx", 4, half_floats=True)
    monkeypatch.setattr(precision, "INLINE_BYTES", 0)
    apart = convert(bundle / ONNX_FILE, tmp_path / "apart.onnx", 4, half_floats=True)
    assert apart.weights_bytes == whole.weights_bytes
    assert (tmp_path / "apart.onnx.data").stat().st_size > 0.8 * whole.weights_bytes
    onnx.checker.check_model(tmp_path / "apart.onnx", full_check=True)
    manifest = load_manifest(bundle)
    frames = []
    for name in ("whole", "apart"):
        context = Context(manifest.spec, manifest.model)
        GraphEngine(tmp_path / f"{name}.onnx").tick(context.frame)
        frames.append(context.frame.logits)
    np.testing.assert_array_equal(*frames)


def test_inputs_that_no_block_divides_stay_in_float_and_are_named() -> None:
    assert [block_of(4, inputs) for inputs in (4864, 192, 48, 36)] == [128, 64, 16, 0]


def recorded(bundle: Path, ticks: int, seed: int) -> Episode:
    spec, random = load_manifest(bundle).spec, np.random.default_rng(seed)
    observations = tuple(
        random.uniform(-1, 1, (ticks, *key.shape)).astype(np.float32) for key in spec.observations
    )
    actions = np.zeros((ticks, spec.action_tokens), np.float32)
    return Episode(seed, False, observations, actions, actions)


def test_a_graph_compared_with_itself_has_no_error(bundle: Path) -> None:
    manifest, graph = load_manifest(bundle), bundle / ONNX_FILE
    found = compare_actions(
        "itself",
        GraphEngine(graph),
        GraphEngine(graph),
        manifest.spec,
        manifest.model,
        [recorded(bundle, 5, 0)],
    )
    assert (found.graph, found.tokens, found.same_argmax) == ("itself", 5 * 3, 1.0)
    assert found.error == (0.0, 0.0, 0.0)


def test_weights_are_trained_in_the_blocks_that_they_are_rounded_in() -> None:
    assert grid.BLOCK == BLOCK
