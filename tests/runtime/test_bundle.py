from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gatort.runtime.bundle import (
    Manifest,
    SuccessRecord,
    TrainingRecord,
    load_manifest,
    open_checked,
    sha256_of,
    verify,
    write_manifest,
)
from gatort.runtime.errors import BundleError
from gatort.runtime.regular_file import by_descriptor
from gatort.runtime.spec import ModelDims, PolicySpec

GRAPH = b"\x08\x0a"
"""The shortest ONNX model that says anything: ir_version 10."""


@pytest.fixture
def bundle(spec: PolicySpec, dims: ModelDims, tmp_path: Path) -> Path:
    (tmp_path / "policy.onnx").write_bytes(GRAPH)
    (tmp_path / "model.safetensors").write_bytes(bytes(dims.least_weights_bytes))
    manifest = Manifest(
        name="test",
        spec=spec,
        model=dims,
        files={name: sha256_of(tmp_path / name) for name in ("policy.onnx", "model.safetensors")},
        training=TrainingRecord(
            recipe="none", demonstrations="none", training_seeds=((0, 9),), parameters=1, steps=0
        ),
        success=SuccessRecord(
            trials=10, first_seed=5000, successes=9, rate=0.9, wilson_95=(0.6, 0.98)
        ),
    )
    write_manifest(tmp_path, manifest)
    return tmp_path


def change(bundle: Path, **fields: object) -> None:
    path = bundle / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_manifest_is_read_as_it_was_written(
    bundle: Path, spec: PolicySpec, dims: ModelDims
) -> None:
    manifest = verify(bundle)
    assert manifest.spec == spec
    assert manifest.model == dims
    assert manifest.training.training_seeds == ((0, 9),)
    assert manifest == load_manifest(bundle)


def test_a_changed_file_is_named(bundle: Path) -> None:
    (bundle / "policy.onnx").write_bytes(b"grapH")
    with pytest.raises(BundleError, match=r"policy\.onnx: changed since the bundle was written"):
        verify(bundle)


def test_a_file_cut_in_half_is_named(bundle: Path) -> None:
    (bundle / "model.safetensors").write_bytes(b"wei")
    with pytest.raises(BundleError, match=r"model\.safetensors: changed"):
        verify(bundle)


def test_a_file_that_is_absent_is_named(bundle: Path) -> None:
    (bundle / "policy.onnx").unlink()
    with pytest.raises(BundleError, match=r"policy\.onnx: .*No such file"):
        verify(bundle)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "..", "sub/file", ""])
def test_no_name_leads_out_of_the_bundle(bundle: Path, name: str) -> None:
    change(
        bundle, files=json.loads((bundle / "manifest.json").read_text())["files"] | {name: "0" * 64}
    )
    with pytest.raises(BundleError, match="plain file name"):
        verify(bundle)


def test_a_link_is_refused(bundle: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    (bundle / "policy.onnx").rename(target)
    (bundle / "policy.onnx").symlink_to(target)
    with pytest.raises(BundleError, match="found a link"):
        verify(bundle)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format_version": 2}, "format_version: expected 1, found 2"),
        ({"surprise": 1}, "surprise: expected no such key, found 1"),
        ({"files": {"policy.onnx": "short"}}, r"files\.policy\.onnx"),
        ({"model": None}, "model"),
    ],
)
def test_a_manifest_that_is_not_valid_names_the_field(
    bundle: Path, fields: dict[str, object], message: str
) -> None:
    change(bundle, **fields)
    with pytest.raises(BundleError, match=message):
        load_manifest(bundle)


def test_a_manifest_cut_in_half_is_refused(bundle: Path) -> None:
    path = bundle / "manifest.json"
    path.write_text(path.read_text()[:200])
    with pytest.raises(BundleError, match=r"manifest\.json: the file: expected JSON"):
        load_manifest(bundle)


def test_a_directory_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="expected a bundle's manifest"):
        verify(tmp_path / "nowhere")


def test_a_manifest_that_does_not_vouch_for_the_graph_is_refused(bundle: Path) -> None:
    change(bundle, files={"model.safetensors": sha256_of(bundle / "model.safetensors")})
    with pytest.raises(BundleError, match=r"lacks policy\.onnx"):
        verify(bundle)


@pytest.mark.parametrize(
    ("dimension", "value"),
    [("heads", 2**40), ("layers", 10**9), ("width", 10**30), ("local_positions", 2**62)],
)
def test_dimensions_beyond_any_model_are_refused_by_name(
    bundle: Path, dims: ModelDims, dimension: str, value: int
) -> None:
    change(bundle, model=dims.model_dump() | {dimension: value})
    with pytest.raises(BundleError, match=rf"model\.{dimension}: expected at most"):
        load_manifest(bundle)


def test_a_small_file_of_weights_must_not_claim_a_large_model(
    bundle: Path, dims: ModelDims
) -> None:
    change(bundle, model=dims.model_dump() | {"layers": 256, "width": 16_384})
    with pytest.raises(BundleError, match=r"model\.safetensors: expected at least \d+ bytes"):
        verify(bundle)


def test_a_manifest_larger_than_any_is_refused_unread(bundle: Path) -> None:
    with (bundle / "manifest.json").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(BundleError, match=r"manifest\.json: expected .* of at most \d+ bytes"):
        load_manifest(bundle)


@pytest.mark.parametrize("name", ["manifest.json", "policy.onnx"])
def test_a_pipe_in_place_of_a_file_is_refused_without_waiting(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    with pytest.raises(BundleError, match=rf"{name}: expected .*, found a pipe"):
        verify(bundle)


def test_a_file_stays_the_checked_one_when_another_takes_its_name(bundle: Path) -> None:
    manifest = verify(bundle)
    with open_checked(bundle, manifest, "policy.onnx") as file:
        (bundle / "other").write_bytes(b"other")
        (bundle / "other").rename(bundle / "policy.onnx")
        assert Path(by_descriptor(file)).read_bytes() == file.read() == GRAPH
