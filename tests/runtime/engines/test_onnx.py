from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
from tests.conftest import vouching

from gatort.policies.loading import PolicyOptions, load_policy
from gatort.runtime.bundle import Manifest, load_manifest, verify
from gatort.runtime.engines.onnx import OnnxConfig, OnnxEngine
from gatort.runtime.errors import BundleError, EngineError
from gatort.runtime.policy import Policy
from gatort.runtime.spec import ModelDims

if TYPE_CHECKING:
    from tests.conftest import Exported

ONE_THREAD = OnnxConfig(threads=1)


@pytest.fixture
def manifest(exported: Exported) -> Manifest:
    return load_manifest(exported.bundle)


def with_dims(manifest: Manifest, **changed: int) -> Manifest:
    return manifest.model_copy(
        update={"model": ModelDims(**{**manifest.model.model_dump(), **changed})}
    )


def test_a_loaded_policy_acts_within_its_actuators_ranges(exported: Exported) -> None:
    policy = load_policy(PolicyOptions(bundle=exported.bundle, threads=1))
    action = policy.act((np.zeros(3, np.float32), np.zeros(2, np.float32)))
    assert action.shape == (3,)
    assert (np.abs(action) < 30).all()


def test_the_refusal_of_an_absent_provider_names_those_present(
    exported: Exported, manifest: Manifest
) -> None:
    if "TensorrtExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has TensorRT")
    with pytest.raises(
        EngineError, match=r"--engine onnx-tensorrt: this ONNX Runtime has no such provider"
    ):
        OnnxEngine(exported.bundle, manifest, OnnxConfig(provider="tensorrt"))


def test_a_graph_of_another_size_than_the_manifests_is_refused(
    exported: Exported, manifest: Manifest
) -> None:
    with pytest.raises(
        EngineError, match=r"expected input k_0 of shape \(1, 4, 27, 8\), found \(1, 4, 27, 32\)"
    ):
        OnnxEngine(exported.bundle, with_dims(manifest, head_size=8), ONE_THREAD)
    with pytest.raises(EngineError, match=r"expected inputs .*k_2"):
        OnnxEngine(exported.bundle, with_dims(manifest, layers=3), ONE_THREAD)


def test_a_file_that_is_no_graph_is_refused(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "policy.onnx").write_bytes(b"\x08\x0a")
    with pytest.raises(EngineError, match=r"policy\.onnx: ONNX Runtime cannot load it"):
        OnnxEngine(tmp_path, vouching(manifest, tmp_path), ONE_THREAD)


def test_a_changed_graph_is_refused_before_onnx_runtime_sees_it(
    exported: Exported, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(exported.bundle, bundle)
    with (bundle / "policy.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match=r"policy\.onnx: changed"):
        load_policy(PolicyOptions(bundle=bundle, threads=1))


def test_a_graph_exchanged_after_the_bundle_was_checked_is_refused(
    exported: Exported, tmp_path: Path
) -> None:
    bundle = shutil.copytree(exported.bundle, tmp_path / "bundle")
    manifest = verify(bundle)
    graph = (bundle / "policy.onnx").read_bytes()
    (bundle / "other").write_bytes(graph + b"\x08\x0a")
    (bundle / "other").rename(bundle / "policy.onnx")
    with pytest.raises(BundleError, match=r"policy\.onnx: changed"):
        OnnxEngine(bundle, manifest, ONE_THREAD)


def test_denormal_numbers_stay_numbers_outside_the_pass(
    exported: Exported, manifest: Manifest
) -> None:
    tiny = np.array([1e-310])
    engine = OnnxEngine(exported.bundle, manifest, ONE_THREAD)
    assert (tiny * 1.0 > 0.0).all()
    policy = Policy.of(manifest.spec, manifest.model, engine)
    policy.act((np.zeros(3, np.float32), np.zeros(2, np.float32)))
    assert (tiny * 1.0 > 0.0).all()


def test_the_cache_is_written_in_place_and_never_copied(
    exported: Exported, manifest: Manifest
) -> None:
    engine = OnnxEngine(exported.bundle, manifest, ONE_THREAD)
    before = {name: value.data_ptr() for name, value in engine._cache.items()}
    policy = Policy.of(manifest.spec, manifest.model, engine)
    policy.act((np.ones(3, np.float32), np.ones(2, np.float32)))
    assert {name: value.data_ptr() for name, value in engine._cache.items()} == before
    written = engine._cache["k_0"].numpy()[0, 0]  # (W, head size)
    tokens = manifest.spec.frame_tokens
    assert (np.abs(written[:tokens]).sum(axis=1) > 0).all()
    assert not written[tokens:].any()
