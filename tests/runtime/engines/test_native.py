"""Promises of the native engine alone; tests/contracts/test_engine.py has those of all engines."""

from __future__ import annotations

import gc
import os
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tests.conftest import vouching

from gatort.policies.loading import SHIPPED_BUNDLE
from gatort.runtime.bundle import WEIGHTS_FILE, Manifest, TrainingRecord, load_manifest
from gatort.runtime.clock import MonotonicClock
from gatort.runtime.context import Context
from gatort.runtime.engines.native import NativeEngine
from gatort.runtime.engines.native_weights import NativePrecision
from gatort.runtime.engines.onnx import OnnxConfig, OnnxEngine
from gatort.runtime.errors import EngineError, MissingDependency
from gatort.runtime.spec import (
    CONTINUOUS_BINS,
    FIRST_CONTINUOUS_ID,
    ModelDims,
    ObservationKey,
    PolicySpec,
)

if TYPE_CHECKING:
    from tests.conftest import Exported

    from gatort.runtime.engines.engine import Engine

FRAMES = 9
PATIENCE_S = 30
"""Bound on an event that must happen sooner or later."""
pytestmark = pytest.mark.native


@pytest.fixture(scope="module")
def shipped() -> Manifest:
    return load_manifest(SHIPPED_BUNDLE)


def logits_of(engine: Engine, manifest: Manifest, frames: int = FRAMES) -> NDArray[np.float32]:
    """Return logits (frames, A, R); drawn tokens give all engines the same past."""
    context, rng = Context(manifest.spec, manifest.model), np.random.default_rng(0)
    logits = []
    for _ in range(frames):
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
    one, two = (
        logits_of(NativeEngine(SHIPPED_BUNDLE, shipped, threads), shipped) for threads in (1, 2)
    )
    np.testing.assert_array_equal(one, two)


def test_a_reset_engine_gives_the_same_bits_again(shipped: Manifest) -> None:
    engine = NativeEngine(SHIPPED_BUNDLE, shipped, threads=2)
    first = logits_of(engine, shipped)
    engine.reset()
    np.testing.assert_array_equal(first, logits_of(engine, shipped))


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("w8a8", 1.0)])
def test_logits_agree_with_onnx_runtime(
    shipped: Manifest, precision: NativePrecision, tolerance: float
) -> None:
    expected = logits_of(OnnxEngine(SHIPPED_BUNDLE, shipped, OnnxConfig(threads=1)), shipped)
    found = logits_of(NativeEngine(SHIPPED_BUNDLE, shipped, 2, precision), shipped)
    assert np.abs(expected).max() > 5.0  # Otherwise the tolerance proves nothing.
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=tolerance)
    assert (found != expected).any()


@pytest.mark.parametrize(
    ("heads", "head_size", "width", "ff_half_width", "actuators", "precision"),
    [
        (1, 16, 16, 16, 1, "fp32"),
        (3, 48, 48, 32, 2, "fp32"),
        (3, 48, 48, 32, 2, "w8a8"),
        (2, 128, 64, 176, 3, "w8a8"),
    ],
)
def test_models_of_other_shapes_agree_with_pytorch(
    heads: int, head_size: int, width: int, ff_half_width: int, actuators: int,
    precision: NativePrecision, spec: PolicySpec, tmp_path: Path,
) -> None:  # fmt: skip
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_tensors

    from gatort.export.parity import compare
    from gatort.policies.model import Gato

    dims = ModelDims(
        layers=2, heads=heads, head_size=head_size, width=width, ff_half_width=ff_half_width,
        first_token_id=FIRST_CONTINUOUS_ID, local_positions=32,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Gato(spec.model_copy(update={"actuators": spec.actuators[:actuators]}), dims).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    save_tensors(model.state_dict(), tmp_path / WEIGHTS_FILE)
    training = TrainingRecord(recipe="none", demonstrations="none", parameters=0, steps=0)
    manifest = Manifest(name="other", spec=model.spec, model=dims, files={}, training=training)
    manifest = vouching(manifest, tmp_path)
    report = compare(model, NativeEngine(tmp_path, manifest, 2, precision), precision=precision)
    assert report.largest_logit > 1.0  # Otherwise the tolerances prove nothing.
    assert report.largest_difference < (1e-4 if precision == "fp32" else 0.5), report


@pytest.mark.parametrize("precision", ["fp32", "w8a8"])
@pytest.mark.parametrize(
    ("cameras", "threads", "texts"), [(1, 1, 1), (2, 2, 1), (1, 2, 0), (2, 1, 0)]
)
def test_a_model_with_pictures_agrees_with_pytorch(
    precision: NativePrecision,
    cameras: int,
    threads: int,
    texts: int,
    spec: PolicySpec,
    tmp_path: Path,
) -> None:
    """The cameras have 6 and 2 patches: tiles of six rows and of one. A text key stands before the
    pictures, and keeps the prefill whole."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_tensors

    from gatort.export.parity import compare
    from gatort.policies.model import Gato

    keys = (
        *[ObservationKey(name="task", shape=(2,), dtype="int32", unit="1", encoding="text")][
            :texts
        ],
        *(
            ObservationKey(name=name, shape=shape, dtype="uint8", unit="1", encoding="image")
            for name, shape in (("front", (32, 48, 3)), ("wrist", (32, 16, 3)))[:cameras]
        ),
        *spec.observations,
    )
    seeing = PolicySpec(**{**spec.model_dump(exclude={"observations"}), "observations": keys})
    dims = ModelDims(
        layers=2, heads=2, head_size=32, width=48, ff_half_width=64, first_token_id=0,
        local_positions=32,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Gato(seeing, dims).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(1.5 if name.startswith("patches.") else 3.0)
        for norm in (model.patches.norm_1, model.patches.norm_2):
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.uniform_(-0.5, 0.5)
    save_tensors(model.state_dict(), tmp_path / WEIGHTS_FILE)
    training = TrainingRecord(recipe="none", demonstrations="none", parameters=0, steps=0)
    manifest = Manifest(name="seeing", spec=seeing, model=dims, files={}, training=training)
    manifest = vouching(manifest, tmp_path)
    engine = NativeEngine(tmp_path, manifest, threads, precision)
    report = compare(model, engine, precision=precision)
    assert report.wraps >= 3
    assert report.largest_logit > 1.0  # Otherwise the tolerances prove nothing.
    assert report.largest_difference < (1e-4 if precision == "fp32" else 0.5), report


def test_weights_of_a_picture_are_refused_by_name(exported: Exported, tmp_path: Path) -> None:
    manifest = load_manifest(exported.bundle)
    picture = ObservationKey(name="a", shape=(16, 16, 3), dtype="uint8", unit="1", encoding="image")
    keys = (picture, *manifest.spec.observations)
    spec = PolicySpec(
        **{**manifest.spec.model_dump(exclude={"observations"}), "observations": keys}
    )
    with pytest.raises(EngineError, match=r"found a difference in .*patches\.conv_1\.weight"):
        NativeEngine(exported.bundle, manifest.model_copy(update={"spec": spec}), threads=1)


def test_an_engines_threads_end_with_the_engine(shipped: Manifest) -> None:
    before = threads_of_this_process()
    engines = [NativeEngine(SHIPPED_BUNDLE, shipped, threads=2) for _ in range(3)]
    started = threads_of_this_process() - before
    assert started == (3 if len(os.sched_getaffinity(0)) > 1 else 0)

    engines.clear()
    gc.collect()
    clock = MonotonicClock()
    end_ns = clock.now_ns() + PATIENCE_S * 10**9
    # A joined thread leaves the list a moment later.
    while threads_of_this_process() > before and clock.now_ns() < end_ns:
        clock.sleep_until_ns(clock.now_ns() + 10_000_000)
    assert threads_of_this_process() <= before  # One of an earlier test may have ended meanwhile.


def threads_of_this_process() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def test_engines_side_by_side_do_not_disturb_each_other(shipped: Manifest) -> None:
    expected = logits_of(NativeEngine(SHIPPED_BUNDLE, shipped, threads=2), shipped)
    found: list[NDArray[np.float32]] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(
                logits_of(NativeEngine(SHIPPED_BUNDLE, shipped, 2), shipped)
            )
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for logits in found:
        np.testing.assert_array_equal(logits, expected)
    assert len(found) == len(threads)


def test_the_error_for_a_missing_compiler_says_how_to_install_one(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    manifest = load_manifest(exported.bundle)
    other = manifest.model_copy(
        update={"spec": manifest.spec.model_copy(update={"window_frames": 77})}
    )
    with pytest.raises(MissingDependency, match="needs gcc: on Debian, apt-get install gcc"):
        NativeEngine(exported.bundle, other, threads=1)


def test_a_width_that_fills_no_vector_is_refused(exported: Exported) -> None:
    manifest = load_manifest(exported.bundle)
    odd = manifest.model_copy(update={"model": manifest.model.model_copy(update={"width": 40})})
    with pytest.raises(
        EngineError, match="takes multiples of 16, found width 40; use --engine onnx"
    ):
        NativeEngine(exported.bundle, odd, threads=1)


@pytest.fixture
def changed(exported: Exported, tmp_path: Path) -> tuple[Path, dict[str, NDArray[np.float32]]]:
    """A copy of a bundle, and its weights to change."""
    copied = shutil.copytree(exported.bundle, tmp_path / "bundle")
    return copied, load_file(copied / WEIGHTS_FILE)


def test_weights_of_another_shape_are_refused_by_name(
    changed: tuple[Path, dict[str, NDArray[np.float32]]],
) -> None:
    bundle, weights = changed
    weights["layers.0.attention.out.weight"] = weights["layers.0.attention.out.weight"][:16].copy()
    save_file(weights, bundle / WEIGHTS_FILE)
    with pytest.raises(
        EngineError, match=r"layers\.0\.attention\.out\.weight: expected float32 .*, found"
    ):
        NativeEngine(bundle, vouching(load_manifest(bundle), bundle), threads=1)


def test_weights_that_are_absent_are_refused_by_name(
    changed: tuple[Path, dict[str, NDArray[np.float32]]],
) -> None:
    bundle, weights = changed
    del weights["norm.bias"]
    save_file(weights, bundle / WEIGHTS_FILE)
    with pytest.raises(EngineError, match=r"norm\.bias"):
        NativeEngine(bundle, vouching(load_manifest(bundle), bundle), threads=1)


def test_weights_that_are_nan_are_refused_by_name(
    changed: tuple[Path, dict[str, NDArray[np.float32]]],
) -> None:
    bundle, weights = changed
    weights["layers.0.feed_forward.down.weight"][0, 0] = np.nan
    save_file(weights, bundle / WEIGHTS_FILE)
    with pytest.raises(EngineError, match=r"down\.weight: expected finite numbers, found NaN"):
        NativeEngine(bundle, vouching(load_manifest(bundle), bundle), threads=1)


@pytest.mark.parametrize("precision", ["fp32", "w8a8"])
def test_an_overflow_in_attention_gives_logits_that_are_not_finite(
    changed: tuple[Path, dict[str, NDArray[np.float32]]], precision: NativePrecision
) -> None:
    bundle, weights = changed
    weights["layers.0.attention.qkv.weight"] *= 1e25
    save_file(weights, bundle / WEIGHTS_FILE)
    manifest = vouching(load_manifest(bundle), bundle)
    assert not np.isfinite(
        logits_of(NativeEngine(bundle, manifest, 1, precision), manifest, 1)
    ).any()


def test_an_id_without_an_embedding_is_refused_before_anything_is_read(exported: Exported) -> None:
    manifest = load_manifest(exported.bundle)
    engine, context = (
        NativeEngine(exported.bundle, manifest, 1),
        Context(manifest.spec, manifest.model),
    )
    context.observation_ids[0] = FIRST_CONTINUOUS_ID - 1
    with pytest.raises(EngineError, match=r"expected token ids in .*, found 31999"):
        engine.tick(context.frame)


def test_another_policys_frame_is_refused(exported: Exported, shipped: Manifest) -> None:
    engine = NativeEngine(exported.bundle, load_manifest(exported.bundle), 1)
    with pytest.raises(EngineError, match="expected a frame of passes and window"):
        engine.tick(Context(shipped.spec, shipped.model).frame)
