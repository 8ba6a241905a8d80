"""Every engine keeps the contract of `gatort.testing`; add a new one to `ENGINES`."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gatort.policies.loading import SHIPPED_CAMERA_BUNDLE, EngineName, PolicyOptions, load_policy
from gatort.runtime.bundle import ONNX_FILE, load_manifest
from gatort.runtime.clock import VirtualClock
from gatort.runtime.context import Context, rotary_tables
from gatort.runtime.engines.engine import Engine, ScriptedEngine
from gatort.runtime.engines.native import NativeEngine
from gatort.runtime.engines.onnx import OnnxConfig, OnnxEngine
from gatort.runtime.engines.tensorrt import Builder, TensorrtEngine
from gatort.runtime.engines.torch import TorchEngine
from gatort.runtime.policy import Policy
from gatort.runtime.robots.scripted import scripted_robot
from gatort.runtime.spec import FIRST_CONTINUOUS_ID, ModelDims, PolicySpec
from gatort.testing import EngineContract, ModelEngineContract
from gatort.testing.engines import random_observations, run_frames

if TYPE_CHECKING:
    from tests.conftest import Exported


def make_scripted(_: Exported) -> Engine:
    return ScriptedEngine([FIRST_CONTINUOUS_ID + index for index in (1, 2, 3)])


def make_torch(exported: Exported) -> Engine:
    return TorchEngine(exported.model, exported.model.spec, exported.model.dims)


def make_onnx(exported: Exported) -> Engine:
    return OnnxEngine(exported.bundle, load_manifest(exported.bundle), OnnxConfig(threads=1))


def make_torch_exact(exported: Exported) -> Engine:
    model = exported.model
    return TorchEngine(model, model.spec, model.dims, decoding="exact")


def make_onnx_exact(exported: Exported) -> Engine:
    config = OnnxConfig(threads=1, decoding="exact")
    return OnnxEngine(exported.bundle, load_manifest(exported.bundle), config)


def make_native(exported: Exported) -> Engine:
    return NativeEngine(exported.bundle, load_manifest(exported.bundle), threads=2)


def make_native_exact(exported: Exported) -> Engine:
    manifest = load_manifest(exported.bundle)
    return NativeEngine(exported.bundle, manifest, threads=2, decoding="exact")


def make_torch_cuda(exported: Exported) -> Engine:
    model = copy.deepcopy(exported.model).to("cuda")
    return TorchEngine(model, model.spec, model.dims)


def make_torch_cuda_exact(exported: Exported) -> Engine:
    model = copy.deepcopy(exported.model).to("cuda")
    return TorchEngine(model, model.spec, model.dims, decoding="exact")


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


# torch.compile warns of deprecated parts of PyTorch and that float32 products could use TF32.
QUIET = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:TensorFloat32:UserWarning")
ON_GPU = [
    pytest.param(make, marks=[pytest.mark.gpu, QUIET])
    for make in (make_torch_cuda, make_torch_cuda_exact, make_tensorrt)
]
ON_THIS_CPU = [
    pytest.param(make, marks=pytest.mark.native) for make in (make_native, make_native_exact)
]
MODELS = [make_torch, make_torch_exact, make_onnx, make_onnx_exact, *ON_THIS_CPU, *ON_GPU]
ENGINES = [make_scripted, *MODELS]
FLOAT32, FLOAT16 = 2e-5, 2e-2
"""Sums in another order differ by 2e-6 in float32 on logits up to 4. float16 keeps 13 bits less."""
ABANDONED = frozenset({2, 5, 9})
Values = tuple[NDArray[Any], ...]


class TestEngine(EngineContract):
    @pytest.fixture(params=ENGINES)
    def engine(self, request: pytest.FixtureRequest, exported: Exported) -> Engine:
        made: Engine = request.param(exported)
        return made

    @pytest.fixture
    def context(self, spec: PolicySpec, dims: ModelDims) -> Context:
        return Context(spec, dims)


class TestModelEngine(ModelEngineContract):
    @pytest.fixture(params=MODELS)
    def engine(self, request: pytest.FixtureRequest, exported: Exported) -> Engine:
        made: Engine = request.param(exported)
        return made

    @pytest.fixture
    def context(self, spec: PolicySpec, dims: ModelDims) -> Context:
        return Context(spec, dims)


@pytest.fixture(params=MODELS)
def model_engine(request: pytest.FixtureRequest, exported: Exported) -> Engine:
    made: Engine = request.param(exported)
    return made


@pytest.fixture
def context(spec: PolicySpec, dims: ModelDims) -> Context:
    return Context(spec, dims)


@pytest.mark.parametrize(
    "abandoned", [frozenset(), ABANDONED], ids=["every tick kept", "some ticks given up"]
)
def test_over_four_wraps_the_ring_equals_one_pass_over_the_whole_stream_under_the_banded_mask(
    model_engine: Engine, context: Context, exported: Exported, abandoned: frozenset[int]
) -> None:
    import torch

    from gatort.policies.model import action_positions, banded_mask

    spec, frames = context.spec, 4 * context.spec.window_frames + 1
    observed = random_observations(spec, frames)
    ring, stream = run_frames(model_engine, context, observed, abandoned)
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


@pytest.fixture(params=["onnx", pytest.param("native", marks=pytest.mark.native), "torch"])
def seeing(request: pytest.FixtureRequest) -> Policy:
    """The shipped policy with cameras on a CPU engine."""
    return load_policy(PolicyOptions(bundle=SHIPPED_CAMERA_BUNDLE, engine=request.param))


def observations(policy: Policy, count: int) -> list[Values]:
    robot = scripted_robot(policy.spec, VirtualClock(0), seed=3)
    return [robot.observe().values for _ in range(count)]


def test_pictures_that_are_seen_before_the_joints_change_no_logit(seeing: Policy) -> None:
    read = observations(seeing, 5)
    together = []
    for values in read:
        together.append(seeing.decide(values).logits.copy())
        seeing.commit()

    seeing.reset()
    for values, expected in zip(read, together, strict=True):
        seeing.see(values[:2])
        np.testing.assert_array_equal(seeing.decide(values).logits, expected)
        seeing.commit()


def test_a_decision_is_made_from_its_own_pictures_not_from_those_that_were_seen(
    seeing: Policy,
) -> None:
    first, second = observations(seeing, 2)
    expected = seeing.decide(second).logits.copy()
    seeing.see(first[:2])
    np.testing.assert_array_equal(seeing.decide(second).logits, expected)
    assert np.abs(seeing.decide((*first[:2], *second[2:])).logits - expected).max() > 0.01


def test_a_given_up_look_leaves_no_trace(seeing: Policy) -> None:
    first, second = observations(seeing, 2)
    expected = seeing.decide(second).logits.copy()
    seeing.see(first[:2])
    seeing.see(second[:2])
    np.testing.assert_array_equal(seeing.decide(second).logits, expected)


def test_pictures_give_up_a_decision_that_is_not_committed(seeing: Policy) -> None:
    first, second = observations(seeing, 2)
    seeing.decide(first)
    seeing.see(second[:2])
    with pytest.raises(RuntimeError, match="expected a decision since the last commit"):
        seeing.commit()


@pytest.mark.parametrize("name", ["onnx", pytest.param("native", marks=pytest.mark.native)])
def test_engines_on_the_cpu_do_not_read_seen_pictures_again(name: EngineName) -> None:
    policy = load_policy(PolicyOptions(bundle=SHIPPED_CAMERA_BUNDLE, engine=name))
    (values,) = observations(policy, 1)
    expected = policy.decide(values).logits.copy()
    policy.see(values[:2])
    patches = policy._context.patches
    assert patches is not None
    patches[:] = 0
    np.testing.assert_array_equal(policy.decide(values).logits, expected)
