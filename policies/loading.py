"""Policies ready to act: a bundle and the engine that computes it, chosen by name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, FiniteFloat, field_serializer

from gatort.runtime.bundle import Manifest, verify
from gatort.runtime.decoding import Sampler
from gatort.runtime.engines.cache import load_engine
from gatort.runtime.engines.engine import Decoding, Engine, SharedEngine
from gatort.runtime.engines.native import NativeEngine
from gatort.runtime.engines.native_build import can_compile
from gatort.runtime.engines.onnx import OnnxConfig, OnnxEngine, Provider, Threads
from gatort.runtime.engines.tensorrt import Builder, TensorrtEngine
from gatort.runtime.engines.turns import TurnEngine, Turns
from gatort.runtime.errors import ConfigError
from gatort.runtime.packages import require_torch
from gatort.runtime.policy import Policy
from gatort.runtime.spec import Precision, Strict

SHIPPED_BUNDLE = Path(__file__).parent / "stack"
"""Policy that is told where the blocks lie."""
SHIPPED_CAMERA_BUNDLE = Path(__file__).parent / "stack_camera"
"""Policy that sees the blocks with two cameras."""

EngineName = Literal[
    "onnx", "native", "onnx-cuda", "onnx-tensorrt",
    "torch", "torch-cuda", "tensorrt-rtx", "tensorrt",
]  # fmt: skip
CPU_ENGINES: tuple[EngineName, ...] = ("onnx", "native", "torch")
SHARED_ENGINES: tuple[EngineName, ...] = (
    "onnx", "native", "onnx-cuda", "onnx-tensorrt", "torch", "torch-cuda"
)  # fmt: skip
"""Engines whose weights serve several robots."""
PROVIDERS: dict[str, Provider] = {"onnx": "cpu", "onnx-cuda": "cuda", "onnx-tensorrt": "tensorrt"}


def shipped_or_own(bundle: Path) -> Path:
    """Return the shipped bundle of this name, or the path itself if it is there or no such name."""
    shipped = Path(__file__).parent / bundle.name
    is_name = str(bundle) == bundle.name and shipped in (SHIPPED_BUNDLE, SHIPPED_CAMERA_BUNDLE)
    return shipped if is_name and not bundle.exists() else bundle


def place_anywhere(bundle: Path) -> str:
    """Return the place of a bundle for other machines: a shipped one's name, or the whole path."""
    whole = bundle.resolve()
    shipped = [each.resolve() for each in (SHIPPED_BUNDLE, SHIPPED_CAMERA_BUNDLE)]
    return bundle.name if whole in shipped else str(whole)


Bundle = Annotated[Path, AfterValidator(shipped_or_own)]
"""Directory of a bundle, or the name of a shipped one."""


class PolicyOptions(Strict):
    """The policy to run, and the engine that computes it."""

    bundle: Bundle = SHIPPED_BUNDLE
    """Directory of the policy: manifest.json, model.safetensors, policy.onnx. Or the name of a
    shipped one: `stack` or `stack_camera`."""
    temperature: FiniteFloat = Field(default=0.0, ge=0, le=1e6)
    """Sampling temperature of action tokens: 0 takes the likeliest bin, a higher value draws from
    the softmax."""
    engine: EngineName = "onnx"
    """Engine that computes the passes.

    `onnx` is ONNX Runtime on the CPU; `onnx-cuda` and `onnx-tensorrt` are its GPU providers.
    `native` compiles our own kernels for this CPU. `torch` and `torch-cuda` are PyTorch.
    `tensorrt-rtx` and `tensorrt` run an engine that `gatort compile` built."""
    precision: Precision | None = None
    """Precision of the weights.

    ONNX Runtime uses the bundle's own. Default elsewhere: fp32 for `native` and `torch`, fp16 for
    `torch-cuda` and compiled engines."""
    threads: Threads = OnnxConfig().threads
    """CPU threads of one pass."""
    decoding: Decoding | None = None
    """Way to a tick's tokens. Default: `exact` on a CPU, `greedy` on a GPU.

    `greedy` runs a pass for each action token. `exact` guesses them all at once, and corrects wrong
    guesses until none is left: the same tokens in fewer passes. `parallel` takes one pass, in which
    no action sees another: other tokens. TensorRT runs `greedy` alone."""
    most_passes: Annotated[int, Field(ge=2, le=64)] | None = None
    """Largest number of passes of an `exact` tick. A tick that needs more is refused. Default: as
    many as it takes."""
    spinning: bool = OnnxConfig().spinning
    """Let ONNX Runtime's threads busy-wait between passes.

    That is about 25 % faster, and takes a core completely."""


def load_policy(
    options: PolicyOptions | None = None,
    sampler: Sampler | None = None,
    manifest_sha256: str | None = None,
) -> Policy:
    """Check a bundle and make it ready to act.

    Args:
        options: bundle and engine; the shipped policy on ONNX Runtime by default.
        sampler: rule that picks a bin; the likeliest bin by default.
        manifest_sha256: expected hash of the bundle's manifest; any by default.

    Raises:
        BundleError: the bundle is incomplete, changed or of the wrong shape.
        ConfigError: the engine does not run at the requested precision.
        EngineError: the machine lacks a part that the engine needs, or the engine refuses the
            model.
        MissingDependency: a package of the engine is not installed.
    """
    options = options or PolicyOptions()
    manifest = verify(options.bundle, manifest_sha256)
    engine = make_engine(options, manifest)

    policy = Policy.of(manifest.spec, manifest.model, engine, sampler, options.most_passes)
    policy.manifest = manifest
    return policy


class BundleLoader(Strict):
    """Loads a bundle's policy, here or on another machine."""

    options: PolicyOptions
    manifest_sha256: str | None = None
    """Expected hash of the bundle's manifest; any if `None`."""

    def __call__(self) -> Policy:
        """Load the policy. See `load_policy`."""
        sampler = Sampler(self.options.temperature)
        return load_policy(self.options, sampler, self.manifest_sha256)

    @field_serializer("options", when_used="json")
    def _anywhere(self, options: PolicyOptions) -> dict[str, Any]:
        written = options.model_dump(mode="json", include=set(PolicyOptions.model_fields))
        return {**written, "bundle": place_anywhere(options.bundle)}


def load_policies(
    options: PolicyOptions, count: int, turns: Turns
) -> list[tuple[Policy, TurnEngine]]:
    """Check a bundle, and make policies over one copy of its weights, one per robot of a fleet.

    Args:
        options: bundle and engine.
        count: number of policies, each with a context and random numbers of its own.
        turns: turns on the processors.

    Returns:
        Each policy with its engine, which takes the turns.

    Raises:
        ConfigError: the engine serves one robot alone; otherwise as `load_policy`.
        BundleError, EngineError, MissingDependency: as `load_policy`.
    """
    manifest = verify(options.bundle)
    shared = make_engine(options, manifest)
    if not isinstance(shared, SharedEngine):
        raise ConfigError(
            f"--engine {options.engine} drives one robot: expected one of "
            f"{', '.join(SHARED_ENGINES)} for several"
        )
    made = []
    for index in range(count):
        engine = TurnEngine(shared.another() if index else shared, turns)
        sampler = Sampler(options.temperature, index)
        policy = Policy.of(manifest.spec, manifest.model, engine, sampler, options.most_passes)
        policy.manifest = manifest
        made.append((policy, engine))
    return made


def quickest_cpu_engine() -> EngineName:
    """Return `native` where this machine can compile it, else `onnx`."""
    return "native" if can_compile() else "onnx"


def precision_of(options: PolicyOptions, exported: Precision) -> Precision:
    """Return the precision at which the engine runs.

    Args:
        options: engine and requested precision.
        exported: precision of the bundle's graph, which ONNX Runtime takes as it is.
    """
    if options.precision is not None:
        return options.precision
    if options.engine in PROVIDERS:
        return exported
    return "fp32" if options.engine in CPU_ENGINES else "fp16"


def decoding_of(options: PolicyOptions) -> Decoding:
    """Return the way to a tick's tokens that the options ask for, or the engine's default.

    Nobody has measured exact decoding on a GPU yet.
    """
    return options.decoding or ("exact" if options.engine in CPU_ENGINES else "greedy")


def make_engine(options: PolicyOptions, manifest: Manifest) -> Engine:
    """Make the engine that the options name, for a verified bundle.

    Raises:
        ConfigError: the engine does not run at the requested precision.
        EngineError: the machine lacks a part that the engine needs, or the engine refuses the
            model.
        MissingDependency: a package of the engine is not installed.
    """
    decoding = decoding_of(options)
    if options.most_passes is not None and decoding != "exact":
        raise ConfigError(f"--most-passes: expected --decoding exact with it, found {decoding}")
    if options.engine == "tensorrt-rtx" or options.engine == "tensorrt":
        if decoding != "greedy":
            raise ConfigError(f"--decoding {decoding}: --engine {options.engine} runs greedy alone")
        return _tensorrt(options.engine, options, manifest)
    if options.engine in PROVIDERS:
        return _onnx(options, manifest)

    if manifest.precision != "fp32":
        raise ConfigError(
            f"--engine {options.engine}: expected a bundle in fp32, found {options.bundle} in "
            f"{manifest.precision}; give the bundle that it was rounded from"
        )
    return _native(options, manifest) if options.engine == "native" else _torch(options, manifest)


def _onnx(options: PolicyOptions, manifest: Manifest) -> Engine:
    if options.precision not in (None, manifest.precision):
        raise ConfigError(
            f"--precision {options.precision}: --engine {options.engine} runs a bundle as it was "
            f"exported, and {options.bundle} is {manifest.precision}; `gatort export` makes a "
            "bundle of another precision"
        )
    provider = PROVIDERS[options.engine]
    config = OnnxConfig(
        threads=options.threads,
        spinning=options.spinning,
        provider=provider,
        decoding=decoding_of(options),
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
    decoding = decoding_of(options)
    return NativeEngine(options.bundle, manifest, options.threads, precision, decoding)


def _torch(options: PolicyOptions, manifest: Manifest) -> Engine:
    valid = ("fp32", "fp16") if options.engine == "torch-cuda" else ("fp32",)
    precision = precision_of(options, manifest.precision)
    if precision not in valid:
        raise ConfigError(
            f"--precision {precision}: --engine {options.engine} runs at {' or '.join(valid)}"
        )
    require_torch(f"--engine {options.engine}")
    # PyTorch takes a second to import and is absent on a robot's computer.
    from .torch_engine import load_torch_engine

    device: Literal["cpu", "cuda"] = "cuda" if options.engine == "torch-cuda" else "cpu"
    return load_torch_engine(
        options.bundle, manifest, device, precision, options.threads, decoding_of(options)
    )
