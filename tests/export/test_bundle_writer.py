from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.export.conftest import onnx_parity

from gatort.export import to_onnx
from gatort.export.bundle_writer import write_bundle
from gatort.export.parity import LOGIT_TOLERANCE
from gatort.export.shared_weights import unshare_weights
from gatort.policies.grid import snap
from gatort.policies.model import Gato
from gatort.policies.weights import read_model
from gatort.runtime.bundle import (
    ONNX_FILE,
    WEIGHTS_FILE,
    SuccessRecord,
    TrainingRecord,
    load_manifest,
    record_success,
    sha256_of,
    verify,
    write_manifest,
)
from gatort.runtime.errors import BundleError
from gatort.runtime.external_data import external_locations


@pytest.fixture
def own_bundle(bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundle, tmp_path / "bundle")


class Unexportable(Gato):
    """Model whose head fails: writing its bundle fails half-way."""

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        raise ValueError(f"no head for {hidden.shape}")


def test_the_model_comes_back_as_it_was_written(
    bundle: Path, make_model: Callable[..., Gato]
) -> None:
    written, read = make_model().state_dict(), read_model(bundle).state_dict()
    assert written.keys() == read.keys()
    assert all(torch.equal(written[name], read[name]) for name in written)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_rounding_keeps_a_model_whose_weights_are_on_the_grid(
    tmp_path: Path,
    make_model: Callable[..., Gato],
    training: TrainingRecord,
    precision: Literal["int8", "int4"],
) -> None:
    model = make_model()
    snap(model)
    written = write_bundle(tmp_path / "rounded", "rounded", model, training, rounding=precision)
    report = onnx_parity(tmp_path / "rounded")
    assert report.precision == written.precision == precision
    assert report.argmax_agreement == 1.0
    assert report.largest_difference < LOGIT_TOLERANCE


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_rounding_changes_a_model_whose_weights_are_not_on_the_grid(
    bundle: Path,
    tmp_path: Path,
    make_model: Callable[..., Gato],
    training: TrainingRecord,
    precision: Literal["int8", "int4"],
) -> None:
    write_bundle(tmp_path / "rounded", "rounded", make_model(), training, rounding=precision)
    report = onnx_parity(tmp_path / "rounded")
    assert report.largest_difference > 10 * LOGIT_TOLERANCE
    stored = (tmp_path / "rounded" / WEIGHTS_FILE).read_bytes()
    assert (bundle / WEIGHTS_FILE).read_bytes() == stored


def test_w8a8_multiplies_whole_numbers_and_stays_near_the_exact_logits(
    tmp_path: Path, make_model: Callable[..., Gato], training: TrainingRecord
) -> None:
    model = make_model()
    write_bundle(tmp_path / "rounded", "rounded", model, training, rounding="w8a8")
    nodes = [node.op_type for node in onnx.load(tmp_path / "rounded" / ONNX_FILE).graph.node]
    matrices = 4 * len(model.layers)  # qkv, out, up, down; the head stays in float
    assert nodes.count("MatMulInteger") == nodes.count("DynamicQuantizeLinear") == matrices
    report = onnx_parity(tmp_path / "rounded")
    assert LOGIT_TOLERANCE < report.largest_difference < 0.2 * report.largest_logit


def test_a_bundle_holds_only_its_manifest_and_the_files_named_there(
    bundle: Path,
) -> None:
    assert set(verify(bundle).files) == {ONNX_FILE, WEIGHTS_FILE}
    assert {path.name for path in bundle.iterdir()} == {"manifest.json", ONNX_FILE, WEIGHTS_FILE}


@pytest.mark.parametrize("largest_inline_bytes", [0, to_onnx.LARGEST_INLINE_EXPORT_BYTES])
def test_the_graph_reads_its_weights_from_the_safetensors_file(
    tmp_path: Path,
    make_model: Callable[..., Gato],
    training: TrainingRecord,
    monkeypatch: pytest.MonkeyPatch,
    largest_inline_bytes: int,
) -> None:
    monkeypatch.setattr(to_onnx, "LARGEST_INLINE_EXPORT_BYTES", largest_inline_bytes)
    directory = tmp_path / "shared"
    write_bundle(directory, "shared", make_model(cameras=2), training)
    assert set(verify(directory).files) == {ONNX_FILE, WEIGHTS_FILE}
    with (directory / ONNX_FILE).open("rb") as graph:
        assert external_locations(directory / ONNX_FILE, graph) == {WEIGHTS_FILE}
    assert (directory / ONNX_FILE).stat().st_size < 0.2 * (directory / WEIGHTS_FILE).stat().st_size
    assert onnx_parity(directory).agrees


def test_a_shared_graph_becomes_the_exported_one_before_it_is_rounded(
    camera_bundle: Path, tmp_path: Path, make_model: Callable[..., Gato]
) -> None:
    to_onnx.export_onnx(make_model(cameras=2), tmp_path / ONNX_FILE)
    exported: Any = ir.load(tmp_path / ONNX_FILE)
    shared: Any = ir.load(camera_bundle / ONNX_FILE)
    unshare_weights(shared)
    expected = {name: value.const_value for name, value in exported.graph.initializers.items()}
    found = {name: value.const_value for name, value in shared.graph.initializers.items()}
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name].numpy(), tensor.numpy())


def test_each_step_is_announced_before_it_begins(
    tmp_path: Path, make_model: Callable[..., Gato], training: TrainingRecord
) -> None:
    begun: list[str] = []
    write_bundle(tmp_path / "bundle", "told", make_model(), training, begin=begun.append)
    assert begun == [f"writing {WEIGHTS_FILE}", f"writing {ONNX_FILE}", "hashing"]


def test_a_newer_bundle_replaces_an_older_one_and_leaves_nothing_beside_it(
    own_bundle: Path, make_model: Callable[..., Gato], training: TrainingRecord
) -> None:
    before = sha256_of(own_bundle / WEIGHTS_FILE)
    write_bundle(own_bundle, "newer", make_model(seed=1), training)
    assert verify(own_bundle).name == "newer"
    assert sha256_of(own_bundle / WEIGHTS_FILE) != before
    assert [path.name for path in own_bundle.parent.iterdir()] == ["bundle"]


def test_a_failed_export_leaves_the_older_bundle(
    own_bundle: Path, training: TrainingRecord
) -> None:
    manifest = load_manifest(own_bundle)
    with pytest.raises(Exception, match="no head for"):
        write_bundle(own_bundle, "broken", Unexportable(manifest.spec, manifest.model), training)
    assert verify(own_bundle) == manifest
    assert [path.name for path in own_bundle.parent.iterdir()] == ["bundle"]


def test_a_folder_that_is_no_bundle_is_never_replaced(
    tmp_path: Path, make_model: Callable[..., Gato], training: TrainingRecord
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(
        BundleError, match="expected a free name, an empty folder or a bundle to replace"
    ):
        write_bundle(tmp_path, "careless", make_model(), training)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_measured_success_goes_into_the_manifest_and_touches_no_other_file(
    own_bundle: Path,
) -> None:
    files = load_manifest(own_bundle).files
    success = SuccessRecord(
        trials=200, first_seed=5000, successes=196, rate=0.98, wilson_95=(0.95, 0.99)
    )
    record_success(own_bundle, success)
    manifest = verify(own_bundle)
    assert (manifest.success, manifest.files) == (success, files)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def _drop_tensor(path: Path) -> None:
    tensors = load_file(path)
    del tensors["norm.bias"]
    save_file(tensors, path)


def _reshape_tensor(path: Path) -> None:
    tensors = load_file(path)
    save_file({**tensors, "norm.bias": torch.zeros(7)}, path)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_cut, "expected a whole safetensors file|expected at least"),
        (_drop_tensor, r"found a difference in norm.bias"),
        (_reshape_tensor, r"norm.bias: expected float32 \(32,\), found float32 \(7,\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    own_bundle: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    damage(own_bundle / WEIGHTS_FILE)
    with pytest.raises(BundleError, match="changed since the bundle was written"):
        read_model(own_bundle)
    manifest = load_manifest(own_bundle)
    files = {**manifest.files, WEIGHTS_FILE: sha256_of(own_bundle / WEIGHTS_FILE)}
    write_manifest(own_bundle, manifest.model_copy(update={"files": files}))
    with pytest.raises(BundleError, match=sentence):
        read_model(own_bundle)
