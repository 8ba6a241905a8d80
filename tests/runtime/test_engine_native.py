"""What the native engine alone promises; the rest is in tests/contracts/test_engine.py."""

from __future__ import annotations

import gc
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from gatort.launch.options import SHIPPED_BUNDLE
from gatort.runtime.bundle import WEIGHTS_FILE, Manifest, load_manifest
from gatort.runtime.context import Context
from gatort.runtime.engine_native import NativeEngine, NativePrecision
from gatort.runtime.engine_onnx import OnnxConfig, OnnxEngine
from gatort.runtime.errors import EngineError, MissingDependency
from gatort.runtime.spec import CONTINUOUS_BINS, FIRST_CONTINUOUS_ID

if TYPE_CHECKING:
    from tests.conftest import Exported

    from gatort.runtime.engine import Engine

FRAMES = 9
pytestmark = pytest.mark.native


@pytest.fixture(scope="module")
def shipped() -> Manifest:
    return load_manifest(SHIPPED_BUNDLE)


def logits_of(engine: Engine, manifest: Manifest, frames: int = FRAMES) -> NDArray[np.float32]:
    """(frames, A, R), each frame's tokens those that a generator draws, so that engines keep the same past."""
    context, rng = Context(manifest.spec, manifest.model), np.random.default_rng(0)
    logits = []
    for _ in range(frames):
        context.begin_frame()
        context.observation_ids[:] = FIRST_CONTINUOUS_ID + rng.integers(
            CONTINUOUS_BINS, size=len(context.observation_ids)
        )
        forced = rng.integers(CONTINUOUS_BINS, size=len(context.frame.bias))
        context.frame.bias[:] = 0.0
        context.frame.bias[np.arange(len(forced)), forced] = 1e9
        engine.tick(context.frame)
        logits.append(context.frame.logits.copy())
        context.end_frame(int(context.frame.tokens[-1]))
    return np.array(logits)


def test_the_number_of_threads_changes_no_bit(shipped: Manifest) -> None:
    one, two = (logits_of(NativeEngine(SHIPPED_BUNDLE, shipped, threads), shipped) for threads in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_a_reset_engine_gives_the_same_bits_again(shipped: Manifest) -> None:
    engine = NativeEngine(SHIPPED_BUNDLE, shipped, threads=2)
    first = logits_of(engine, shipped)
    engine.reset()
    np.testing.assert_array_equal(first, logits_of(engine, shipped))


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("w8a8", 1.0)])
def test_logits_are_those_of_onnx_runtime(shipped: Manifest, precision: NativePrecision, tolerance: float) -> None:
    expected = logits_of(OnnxEngine(SHIPPED_BUNDLE, shipped, OnnxConfig(threads=1)), shipped)
    found = logits_of(NativeEngine(SHIPPED_BUNDLE, shipped, 2, precision), shipped)
    assert np.abs(expected).max() > 5.0  # else the tolerance says nothing
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=tolerance)
    assert (found != expected).any()


def test_its_threads_end_with_it(shipped: Manifest) -> None:
    before = len(list(Path("/proc/self/task").iterdir()))
    engine = NativeEngine(SHIPPED_BUNDLE, shipped, threads=2)
    logits_of(engine, shipped, 1)
    assert len(list(Path("/proc/self/task").iterdir())) == before + 1
    del engine
    gc.collect()
    assert len(list(Path("/proc/self/task").iterdir())) == before


def test_engines_side_by_side_do_not_disturb_each_other(shipped: Manifest) -> None:
    expected = logits_of(NativeEngine(SHIPPED_BUNDLE, shipped, threads=2), shipped)
    found: list[NDArray[np.float32]] = []
    threads = [
        threading.Thread(target=lambda: found.append(logits_of(NativeEngine(SHIPPED_BUNDLE, shipped, 2), shipped)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for logits in found:
        np.testing.assert_array_equal(logits, expected)
    assert len(found) == len(threads)


def test_without_a_compiler_it_says_how_to_get_one(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    manifest = load_manifest(exported.bundle)
    other = manifest.model_copy(update={"spec": manifest.spec.model_copy(update={"window_frames": 77})})
    with pytest.raises(MissingDependency, match="needs a C compiler, cc: on Debian, apt-get install gcc"):
        NativeEngine(exported.bundle, other, threads=1)


def test_a_width_that_fills_no_vector_is_refused(exported: Exported) -> None:
    manifest = load_manifest(exported.bundle)
    odd = manifest.model_copy(update={"model": manifest.model.model_copy(update={"width": 40})})
    with pytest.raises(EngineError, match="takes multiples of 16, found width 40: --engine onnx"):
        NativeEngine(exported.bundle, odd, threads=1)


@pytest.fixture
def changed(exported: Exported, tmp_path: Path) -> tuple[Path, dict[str, NDArray[np.float32]]]:
    """A copy of a bundle, and its weights to change."""
    copied = shutil.copytree(exported.bundle, tmp_path / "bundle")
    return copied, load_file(copied / WEIGHTS_FILE)


def test_weights_of_another_shape_are_refused_by_name(changed: tuple[Path, dict[str, NDArray[np.float32]]]) -> None:
    bundle, weights = changed
    weights["layers.0.attention.out.weight"] = weights["layers.0.attention.out.weight"][:16].copy()
    save_file(weights, bundle / WEIGHTS_FILE)
    with pytest.raises(EngineError, match=r"layers\.0\.attention\.out\.weight: expected float32 .*, found"):
        NativeEngine(bundle, load_manifest(bundle), threads=1)


def test_weights_that_are_absent_are_refused_by_name(changed: tuple[Path, dict[str, NDArray[np.float32]]]) -> None:
    bundle, weights = changed
    del weights["norm.bias"]
    save_file(weights, bundle / WEIGHTS_FILE)
    with pytest.raises(EngineError, match=r"norm\.bias"):
        NativeEngine(bundle, load_manifest(bundle), threads=1)


def test_a_weight_that_is_not_a_number_reaches_the_logits(changed: tuple[Path, dict[str, NDArray[np.float32]]]) -> None:
    bundle, weights = changed
    weights["layers.0.feed_forward.down.weight"][0, 0] = np.nan
    save_file(weights, bundle / WEIGHTS_FILE)
    manifest = load_manifest(bundle)
    assert np.isnan(logits_of(NativeEngine(bundle, manifest, threads=1), manifest, 1)).any()
