"""What every engine promises; add a new one to `ENGINES`."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from gatort.runtime.bundle import (
    ONNX_FILE,
    load_manifest,
)
from gatort.runtime.context import (
    Context,
    rotary_tables,
)
from gatort.runtime.decoding import FORCED
from gatort.runtime.engines.engine import (
    Engine,
    ScriptedEngine,
)
from gatort.runtime.engines.native import NativeEngine
from gatort.runtime.engines.onnx import (
    OnnxConfig,
    OnnxEngine,
)
from gatort.runtime.engines.tensorrt import (
    Builder,
    TensorrtEngine,
)
from gatort.runtime.engines.torch import TorchEngine
from gatort.runtime.spec import (
    CONTINUOUS_BINS,
    FIRST_CONTINUOUS_ID,
    ModelDims,
    PolicySpec,
)

if TYPE_CHECKING:
    from tests.conftest import Exported


def make_scripted(_: Exported) -> Engine:
    return ScriptedEngine([FIRST_CONTINUOUS_ID + index for index in (1, 2, 3)])


def make_torch(exported: Exported) -> Engine:
    return TorchEngine(exported.model, exported.model.spec, exported.model.dims)


def make_onnx(exported: Exported) -> Engine:
    return OnnxEngine(exported.bundle, load_manifest(exported.bundle), OnnxConfig(threads=1))


def make_native(exported: Exported) -> Engine:
    return NativeEngine(exported.bundle, load_manifest(exported.bundle), threads=2)


def make_torch_cuda(exported: Exported) -> Engine:
    model = copy.deepcopy(exported.model).to("cuda")
    return TorchEngine(model, model.spec, model.dims)


def make_tensorrt(exported: Exported) -> Engine:
    """The engine that `gatort compile` builds, by whichever builder has this GPU as its target."""
    import torch

    from gatort.export.precision import convert
    from gatort.export.to_tensorrt import build_engine

    rtx_3090 = torch.cuda.get_device_capability() == (8, 6)
    builder: Builder = "tensorrt-rtx" if rtx_3090 else "tensorrt"
    pytest.importorskip(builder.replace("-", "_"))
    spec, graph = exported.model.spec, exported.bundle.with_name("half.onnx")
    convert(exported.bundle / ONNX_FILE, graph, None, half_floats=True)
    plan = bytes(build_engine(graph, spec, "this-gpu", builder).plan)
    return TensorrtEngine(plan, builder, spec, exported.model.dims)


# torch.compile warns of what is old in PyTorch itself, and that float32 products could be rounded to TF32.
QUIET = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:TensorFloat32:UserWarning")
ON_GPU = [
    pytest.param(make, marks=[pytest.mark.gpu, QUIET]) for make in (make_torch_cuda, make_tensorrt)
]
MODELS = [make_torch, make_onnx, pytest.param(make_native, marks=pytest.mark.native), *ON_GPU]
ENGINES = [make_scripted, *MODELS]
FLOAT32, FLOAT16 = 2e-5, 2e-2
"""Sums in another order: 2e-6 was seen in float32 on logits up to 4, and float16 keeps 13 bits less."""
ABANDONED = frozenset({2, 5, 9})


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, exported: Exported) -> Engine:
    made: Engine = request.param(exported)
    return made


@pytest.fixture(params=MODELS)
def model_engine(request: pytest.FixtureRequest, exported: Exported) -> Engine:
    made: Engine = request.param(exported)
    return made


@pytest.fixture
def context(spec: PolicySpec, dims: ModelDims) -> Context:
    return Context(spec, dims)


def observations(spec: PolicySpec, frames: int, seed: int = 0) -> NDArray[np.int64]:
    """Random observation tokens (frames, O)."""
    bins = np.random.default_rng(seed).integers(
        0, CONTINUOUS_BINS, (frames, spec.observation_tokens)
    )
    return bins + FIRST_CONTINUOUS_ID


def run(
    engine: Engine,
    context: Context,
    frames: Iterable[NDArray[np.int64]],
    abandoned: frozenset[int] = frozenset(),
) -> tuple[NDArray[np.float32], list[int]]:
    """Greedy frames; gives the logits (frames·A, R) of every pass and the whole stream of tokens.

    Before each frame in `abandoned`, a tick with another observation is begun, decoded and given up.
    """
    frame, logits, stream = context.frame, [], []
    frame.bias.fill(0.0)
    for index, observed in enumerate(frames):
        if index in abandoned:
            context.observation_ids[:] = observed[::-1]
            engine.tick(frame)
        context.observation_ids[:] = observed
        stream += context.frame.prefill.ids[0].tolist()
        engine.tick(frame)
        tokens = frame.tokens.copy()
        logits.append(frame.logits.copy())
        stream += tokens[:-1].tolist()
        context.end_frame(int(tokens[-1]))
    return np.concatenate(logits), stream


def test_logits_are_finite_float32_one_per_bin(
    engine: Engine, context: Context, spec: PolicySpec
) -> None:
    logits, _ = run(engine, context, observations(spec, 2))
    assert logits.shape == (2 * spec.action_tokens, CONTINUOUS_BINS)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()


def test_a_tick_leaves_its_inputs_as_they_were(
    engine: Engine, context: Context, spec: PolicySpec
) -> None:
    run(engine, context, observations(spec, 4))
    before = context.frame.memory[: context.frame.outputs_at].copy()
    engine.tick(context.frame)
    np.testing.assert_array_equal(context.frame.memory[: context.frame.outputs_at], before)


def test_each_token_is_where_logits_and_bias_are_largest(engine: Engine, context: Context) -> None:
    frame, rng = context.frame, np.random.default_rng(0)
    for _ in range(5):
        frame.bias[:] = rng.normal(scale=3.0, size=frame.bias.shape)
        engine.tick(frame)
        assert (
            frame.tokens.tolist()
            == (FIRST_CONTINUOUS_ID + (frame.logits + frame.bias).argmax(axis=1)).tolist()
        )
        context.end_frame(int(frame.tokens[-1]))


def test_every_pass_is_marked_or_the_whole_tick_once(
    engine: Engine, context: Context, spec: PolicySpec
) -> None:
    marks: list[None] = []
    engine.tick(context.frame, lambda: marks.append(None))
    assert len(marks) == (spec.action_tokens if engine.stepwise else 1)


def test_a_forced_token_is_what_the_next_pass_reads(model_engine: Engine, context: Context) -> None:
    frame = context.frame
    model_engine.tick(frame)
    free = frame.tokens.copy()
    first_logits = frame.logits.copy()
    forced = np.where(
        free == FIRST_CONTINUOUS_ID + 5, FIRST_CONTINUOUS_ID + 6, FIRST_CONTINUOUS_ID + 5
    )
    frame.bias[np.arange(len(forced)), forced - FIRST_CONTINUOUS_ID] = FORCED
    model_engine.tick(frame)
    assert context.frame.tokens.tolist() == forced.tolist()
    np.testing.assert_array_equal(context.frame.logits[0], first_logits[0])
    assert np.abs(context.frame.logits[1:] - first_logits[1:]).max() > 1e-3


def test_after_a_reset_the_same_frames_give_the_same_logits_to_the_bit(
    engine: Engine, context: Context, spec: PolicySpec
) -> None:
    first, _ = run(engine, context, observations(spec, 7))
    run(engine, context, observations(spec, 3, seed=1))
    context.reset()
    engine.reset()
    again, _ = run(engine, context, observations(spec, 7))
    np.testing.assert_array_equal(again, first)


def test_it_has_a_name_for_reports(engine: Engine) -> None:
    assert engine.name


@pytest.mark.parametrize(
    "abandoned", [frozenset(), ABANDONED], ids=["every tick kept", "some ticks given up"]
)
def test_over_four_wraps_the_ring_equals_one_pass_over_the_whole_stream_under_the_banded_mask(
    model_engine: Engine, context: Context, exported: Exported, abandoned: frozenset[int]
) -> None:
    import torch

    from gatort.policies.model import (
        action_positions,
        banded_mask,
    )

    spec, frames = context.spec, 4 * context.spec.window_frames + 1
    ring, stream = run(model_engine, context, observations(spec, frames), abandoned)
    positions = np.arange(len(stream), dtype=np.float64)
    cos, sin = map(torch.from_numpy, rotary_tables(positions, exported.model.dims.head_size))
    local = torch.arange(len(stream)) % spec.frame_tokens
    with torch.no_grad():
        mask = banded_mask(frames, spec.frame_tokens, spec.window_frames)
        hidden = exported.model.eval()(torch.tensor([stream]), None, local, cos, sin, mask)
        whole = exported.model.head(hidden)[0][action_positions(frames, spec)].numpy()
    # Any wrong row or angle is off by more than 0.1.
    np.testing.assert_allclose(
        ring, whole, atol=FLOAT16 if "tensorrt" in model_engine.name else FLOAT32
    )
    assert np.ptp(whole) > 1.0
