"""ONNX → a TensorRT engine, for this machine's GPU or for another one.

`tensorrt_rtx` builds for the RTX 3090's compute capability on any machine; `tensorrt` builds for
the GPU of its machine. The network is strongly typed and has one dynamic profile: prefill and
decode share one copy of the weights. Two profiles would store them twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from gatort.runtime.clock import MonotonicClock
from gatort.runtime.engines.gpu import GpuTarget
from gatort.runtime.engines.graph import PATCHES
from gatort.runtime.engines.tensorrt import Builder, import_builder
from gatort.runtime.errors import EngineError
from gatort.runtime.spec import PolicySpec

COMPUTE_CAPABILITY: dict[GpuTarget, str] = {"rtx3090": "SM86", "this-gpu": "CURRENT"}

BuildProgress: TypeAlias = Callable[[str, int, int], None]
"""Callback that takes a phase of the build, its finished steps and all its steps."""
Trt: TypeAlias = Any
"""The module `tensorrt_rtx` or `tensorrt`."""

_FUSED = re.compile(r"After reformat layers: (\d+) layers")


@dataclass(frozen=True, slots=True)
class Built:
    """Serialized engine, with figures of its build."""

    plan: memoryview
    """Bytes of the engine."""
    seconds: float
    """Time of the build, without the parsing."""
    peak_memory_bytes: int
    """Largest memory of the process during parsing and build, mapped files included."""
    layers: int
    """Number of layers of the network before fusion."""
    fused_layers: int
    """Number of layers of the engine; 0 if the builder did not say."""


def no_progress(_phase: str, _done: int, _of: int) -> None:
    """Do nothing: the default callback for progress."""


def build_engine(
    graph: Path,
    spec: PolicySpec,
    target: GpuTarget,
    builder: Builder,
    progress: BuildProgress = no_progress,
) -> Built:
    """Build an engine from a graph that `gatort.export.precision` wrote with half-precision floats.

    Args:
        graph: the ONNX file; weights in a file beside it are read too.
        spec: specification of the policy, for the range of positions and patches.
        target: the GPU to build for.
        builder: the package that builds.
        progress: called from the builder's threads.

    Raises:
        EngineError: the builder refuses the graph; the error quotes the builder.
        KeyboardInterrupt: `progress` raised it.
        MissingDependency: the builder is not installed.
    """
    trt = import_builder(builder)
    log = _log(trt)
    _forget_peak()
    made = trt.Builder(log)
    network = _parse(trt, made, log, graph, builder)
    monitor = _monitor(trt, progress)
    config = _config(trt, made, network, spec, target, monitor)

    clock = MonotonicClock()
    start_ns = clock.now_ns()
    plan = made.build_serialized_network(network, config)
    seconds = (clock.now_ns() - start_ns) * 1e-9

    if monitor.interrupted:
        raise KeyboardInterrupt
    if plan is None:
        raise EngineError(f"{builder} {trt.__version__} cannot build {graph}: {log.reason()}")
    return Built(
        plan=memoryview(plan),
        seconds=seconds,
        peak_memory_bytes=_peak_memory_bytes(),
        layers=network.num_layers,
        fused_layers=log.fused_layers,
    )


def _parse(trt: Trt, made: Any, log: Any, graph: Path, builder: Builder) -> Any:
    """Return the graph as a network.

    Raises:
        EngineError: the parser refuses the graph.
    """
    network = made.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(graph)):
        raise EngineError(f"{builder} {trt.__version__} refuses {graph}: {_parser_errors(parser)}")
    return network


def _parser_errors(parser: Any) -> str:
    errors = (parser.get_error(index) for index in range(parser.num_errors))
    return "; ".join(
        f"{error.node_operator()} {error.node_name()}: {error.desc().strip()}" for error in errors
    )


def _config(
    trt: Trt, made: Any, network: Any, spec: PolicySpec, target: GpuTarget, monitor: Any
) -> Any:
    """Return the settings of a build for the target.

    TensorRT-RTX has targets, and its caller must provide the memory of an execution context
    (REQUIRE_USER_ALLOCATION). Otherwise it may allocate in the middle of a pass, which a CUDA graph
    cannot record (BuilderFlag.REQUIRE_USER_ALLOCATION; release notes of TensorRT-RTX 1.2). A
    builder without targets builds for the GPU of its machine.
    """
    config = made.create_builder_config()
    if hasattr(config, "set_compute_capability"):
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, COMPUTE_CAPABILITY[target]), 0)

    config.add_optimization_profile(_profile(made, network, spec))
    config.profiling_verbosity = trt.ProfilingVerbosity.LAYER_NAMES_ONLY
    config.progress_monitor = monitor
    return config


def _profile(made: Any, network: Any, spec: PolicySpec) -> Any:
    """Return one profile from a decode (t = d = 1, p = 0) to a whole frame (t = T, d = A, p = P).

    The kernels are tuned for a decode: all passes of a tick but one are decodes, and the memory's
    bandwidth limits them.
    """
    tokens = spec.frame_tokens
    patches = spec.image_tokens
    # Sizes of the dynamic axis in a decode and in a whole frame.
    ends = {
        "ids": (1, tokens - patches),
        "bias": (1, spec.action_tokens),
        PATCHES: (0, patches),
    }

    profile = made.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)
        if -1 in shape:
            low, high = (
                tuple(size if side == -1 else side for side in shape)
                for size in ends.get(tensor.name, (1, tokens))
            )
            profile.set_shape(tensor.name, low, low, high)
    return profile


def _log(trt: Trt) -> Any:
    """Return a logger that prints nothing and keeps errors and warnings."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.fused_layers = 0
            self._warnings: list[str] = []
            self._errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self._errors.append(message)
            elif severity == trt.ILogger.WARNING:
                self._warnings.append(message)
            elif found := _FUSED.match(message):
                self.fused_layers = int(found[1])

        def reason(self) -> str:
            return "; ".join(self._errors or self._warnings) or "it gave no reason"

    return Log()


def _monitor(trt: Trt, progress: BuildProgress) -> Any:
    """Return a monitor that forwards progress, and stops the build on a KeyboardInterrupt."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.interrupted = False
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, _parent: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                progress(phase_name, step + 1, self._steps[phase_name])
            except KeyboardInterrupt:
                self.interrupted = True
            return not self.interrupted

        def phase_finish(self, phase_name: str) -> None:
            """Do nothing: the last step was reported already."""

    return Monitor()


def _forget_peak() -> None:
    """Reset the kernel's count of this process's peak memory (proc(5), clear_refs)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_memory_bytes() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
