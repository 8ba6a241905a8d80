"""From an ONNX graph to a TensorRT engine for a GPU that this machine need not have.

`tensorrt_rtx` builds for the RTX 3090's compute capability on any machine. `tensorrt` builds for
the GPU of this machine. There is one strongly typed network and one dynamic profile, because two
profiles would store the weights twice: prefill and decode share one copy.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from gatort.runtime.clock import MonotonicClock
from gatort.runtime.engines.gpu import Target
from gatort.runtime.engines.tensorrt import (
    Builder,
    import_builder,
)
from gatort.runtime.errors import EngineError
from gatort.runtime.spec import PolicySpec

COMPUTE_CAPABILITY: dict[Target, str] = {"rtx3090": "SM86", "this-gpu": "CURRENT"}

BuildProgress: TypeAlias = Callable[[str, int, int], None]
"""Callback with the name of a phase, the number of finished steps and the number of all steps."""
Trt: TypeAlias = Any
"""Module `tensorrt_rtx` or `tensorrt`, or an object of it."""

_FUSED = re.compile(r"After reformat layers: (\d+) layers")


@dataclass(frozen=True, slots=True)
class Built:
    """A serialized engine and the figures of its build."""

    plan: memoryview
    """Bytes of the engine."""
    seconds: float
    """Duration of the build without the parsing."""
    peak_memory_bytes: int
    """Peak memory of the process during parsing and build, mapped files included."""
    layers: int
    """Number of layers of the network before anything is fused."""
    fused_layers: int
    """Number of layers of the engine; 0 where the builder did not say."""


def no_progress(_phase: str, _done: int, _of: int) -> None:
    """Do nothing: the default callback."""


def build_engine(
    graph: Path,
    spec: PolicySpec,
    target: Target,
    builder: Builder,
    on_phase: BuildProgress = no_progress,
) -> Built:
    """Build an engine from a graph that `gatort.export.precision` wrote with half-precision floats.

    Args:
        graph: the ONNX file; weights beside it are read too.
        spec: the policy's specification, for the range of positions and patches.
        target: GPU to build for.
        builder: package that builds.
        on_phase: called from the builder's threads.

    Raises:
        EngineError: the builder refuses the graph; the sentence carries its reasons.
        MissingDependency: the builder is not installed.
    """
    trt = import_builder(builder)
    log = _log(trt)
    _forget_peak()

    made = trt.Builder(log)
    network = made.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(graph)):
        raise EngineError(f"{builder} {trt.__version__} refuses {graph}: {_parser_errors(parser)}")

    config = made.create_builder_config()
    _aim(trt, config, target)
    config.add_optimization_profile(_profile(made, network, spec))
    config.profiling_verbosity = trt.ProfilingVerbosity.LAYER_NAMES_ONLY
    config.progress_monitor = monitor = _monitor(trt, on_phase)

    clock = MonotonicClock()
    start_ns = clock.now_ns()
    plan = made.build_serialized_network(network, config)
    seconds = (clock.now_ns() - start_ns) * 1e-9

    if monitor.interrupted:
        raise KeyboardInterrupt
    if plan is None:
        raise EngineError(f"{builder} {trt.__version__} cannot build {graph}: {log.reason()}")
    return Built(
        memoryview(plan), seconds, _peak_memory_bytes(), network.num_layers, log.fused_layers
    )


def _aim(trt: Trt, config: Any, target: Target) -> None:
    """Build for the target; a builder without targets builds for the GPU of this machine.

    The caller has to provide the memory of an execution context. Otherwise TensorRT-RTX may
    allocate in the middle of a pass, which a CUDA graph cannot record
    (BuilderFlag.REQUIRE_USER_ALLOCATION; release notes of TensorRT-RTX 1.2).
    """
    if hasattr(config, "set_compute_capability"):
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, COMPUTE_CAPABILITY[target]), 0)


def _profile(made: Any, network: Any, spec: PolicySpec) -> Any:
    """Return one profile from a decode (t = 1, p = 0) to a prefill (t = O + 2, p = P).

    The kernels are tuned for a decode. All passes of a tick but one are decodes, and the memory's
    bandwidth limits them.
    """
    tokens, patches = spec.observation_tokens + 2, spec.image_tokens
    profile = made.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)
        if -1 in shape:
            decode, prefill = {"ids": (1, tokens - patches), "patches": (0, patches)}.get(
                tensor.name, (1, tokens)
            )
            shapes = [
                tuple(size if side == -1 else side for side in shape) for size in (decode, prefill)
            ]
            profile.set_shape(tensor.name, shapes[0], shapes[0], shapes[1])
    return profile


def _parser_errors(parser: Any) -> str:
    errors = (parser.get_error(index) for index in range(parser.num_errors))
    return "; ".join(
        f"{error.node_operator()} {error.node_name()}: {error.desc().strip()}" for error in errors
    )


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


def _monitor(trt: Trt, on_phase: BuildProgress) -> Any:
    """Return a monitor that passes progress to the callback and stops the build after Ctrl-C."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.interrupted = False
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, _parent: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                on_phase(phase_name, step + 1, self._steps[phase_name])
            except KeyboardInterrupt:
                self.interrupted = True
            return not self.interrupted

        def phase_finish(self, phase_name: str) -> None:
            """Do nothing: the last step has reported the end."""

    return Monitor()


def _forget_peak() -> None:
    """Let the kernel count this process's peak memory anew (proc(5), clear_refs)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_memory_bytes() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
