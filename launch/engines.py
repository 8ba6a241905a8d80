"""Engines by name: what computes a policy's passes on this machine, chosen with --engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatort.launch.commands.export import require_torch
from gatort.runtime.bundle import (
    Manifest,
    verify,
)
from gatort.runtime.decoding import Sampler
from gatort.runtime.engines.cache import load_engine
from gatort.runtime.engines.native import NativeEngine
from gatort.runtime.engines.onnx import (
    OnnxConfig,
    OnnxEngine,
    Provider,
)
from gatort.runtime.engines.tensorrt import (
    Builder,
    TensorrtEngine,
)
from gatort.runtime.errors import (
    ConfigError,
    EngineError,
)
from gatort.runtime.policy import Policy
from gatort.runtime.spec import Precision

from .options import (
    ON_CPU,
    PolicyOptions,
)

if TYPE_CHECKING:
    from gatort.runtime.engines.engine import Engine

PROVIDERS: dict[str, Provider] = {"onnx": "cpu", "onnx-cuda": "cuda", "onnx-tensorrt": "tensorrt"}


def load_policy(options: PolicyOptions, sampler: Sampler | None = None) -> Policy:
    """Check a bundle and make it ready to act with the engine that the options name.

    Raises:
        BundleError: the bundle is incomplete, changed or of the wrong shape.
        ConfigError: the engine does not run at the precision that was asked for.
        EngineError: the machine lacks what the engine needs, or the engine refuses the model.
        MissingDependency: a package of the engine is not installed.
    """
    manifest = verify(options.bundle)
    policy = Policy.of(manifest.spec, manifest.model, make_engine(options, manifest), sampler)
    policy.manifest = manifest
    return policy


def precision_of(options: PolicyOptions, exported: Precision) -> Precision:
    """What the engine runs at: what was asked for, else the bundle's own, fp16 on a GPU or fp32 on the CPU."""
    by_default: Precision = "fp32" if options.engine in ON_CPU else "fp16"
    return options.precision or (exported if options.engine in PROVIDERS else by_default)


def make_engine(options: PolicyOptions, manifest: Manifest) -> Engine:
    """Make the engine that the options name, for a bundle that was verified.

    Raises:
        ConfigError: it does not run at the precision that was asked for.
        EngineError: the machine lacks what it needs, or it refuses the model.
        MissingDependency: a package of it is not installed.
    """
    if options.engine == "tensorrt-rtx" or options.engine == "tensorrt":
        return _tensorrt(options.engine, options, manifest)
    if options.engine in PROVIDERS:
        return _onnx(options, manifest)
    if manifest.precision != "fp32":
        raise ConfigError(
            f"--engine {options.engine} reads weights in full, and {options.bundle} is {manifest.precision}: "
            "give the bundle that it was rounded from"
        )
    if options.engine == "native":
        return _native(options, manifest)
    return _torch(options, manifest)


def _onnx(options: PolicyOptions, manifest: Manifest) -> Engine:
    if options.precision not in (None, manifest.precision):
        raise ConfigError(
            f"--precision {options.precision}: --engine {options.engine} runs a bundle as it was exported, and "
            f"{options.bundle} is {manifest.precision}; gatort export makes a bundle of another precision"
        )
    config = OnnxConfig(
        threads=options.threads, spinning=options.spinning, provider=PROVIDERS[options.engine]
    )
    return OnnxEngine(options.bundle, manifest, config)


def _tensorrt(builder: Builder, options: PolicyOptions, manifest: Manifest) -> Engine:
    precision = precision_of(options, manifest.precision)
    if precision == "fp32":
        raise ConfigError(f"--precision fp32: --engine {builder} runs at fp16, int8 or int4")
    _, plan = load_engine(manifest, precision, builder)
    return TensorrtEngine(plan, builder, manifest.spec, manifest.model)


def _native(options: PolicyOptions, manifest: Manifest) -> Engine:
    precision = precision_of(options, manifest.precision)
    if precision not in ("fp32", "w8a8"):
        raise ConfigError(f"--precision {precision}: --engine native runs at fp32 or w8a8")
    return NativeEngine(options.bundle, manifest, options.threads, precision)


def _torch(options: PolicyOptions, manifest: Manifest) -> Engine:
    on_gpu = options.engine == "torch-cuda"
    precision = precision_of(options, manifest.precision)
    if precision not in (("fp32", "fp16") if on_gpu else ("fp32",)):
        raise ConfigError(
            f"--precision {precision}: --engine {options.engine} runs at {'fp32 or fp16' if on_gpu else 'fp32'}"
        )
    require_torch(f"--engine {options.engine}")
    import torch

    from gatort.export.bundle_writer import read_model
    from gatort.runtime.engines.torch import TorchEngine

    if on_gpu and not torch.cuda.is_available():
        raise EngineError(
            "--engine torch-cuda: PyTorch finds no CUDA device; --engine torch runs on the CPU"
        )
    torch.set_num_threads(options.threads)
    model = read_model(options.bundle)
    if on_gpu:
        model = model.to("cuda", torch.float16 if precision == "fp16" else torch.float32)
    return TorchEngine(model, manifest.spec, manifest.model)
