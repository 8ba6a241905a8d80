"""Compile a bundle: convert its graph, compare it with fp32, build the engine and store it in the
user's cache.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gatort.runtime.bundle import ONNX_FILE, Manifest, verify
from gatort.runtime.engines.cache import EngineCache, EngineKey, EngineRecord, GraphAgreement
from gatort.runtime.engines.gpu import GpuTarget
from gatort.runtime.engines.tensorrt import Builder
from gatort.runtime.episode import Episode
from gatort.runtime.errors import ConfigError
from gatort.runtime.outputs import removed_if_empty, require_folder
from gatort.runtime.spec import Precision

from .compare import compare_actions
from .graph_engine import GraphEngine
from .precision import convert
from .rounding import Bits
from .to_tensorrt import BuildProgress, build_engine, no_progress

BITS: dict[Precision, Bits | None] = {"fp16": None, "int8": 8, "int4": 4}
"""Bits of a weight's code at each precision of an engine; `None` where weights stay in float."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Recorded observations to compare an engine's graph with fp32 on; empty to leave the
    comparison out.
    """

    episodes: Sequence[Episode] = ()
    """Trials that the policy drove."""
    description: str = ""
    """Origin of the trials in words."""


@dataclass(frozen=True, slots=True)
class CompiledEngine:
    """An engine in the cache."""

    manifest: Manifest
    """Manifest of its bundle."""
    record: EngineRecord
    """Record in the cache."""
    built_before: bool
    """True if the cache held the engine already."""


def compile_bundle(
    bundle: Path,
    target: GpuTarget,
    precision: Precision,
    builder: Builder,
    *,
    hold_out: Callable[[Manifest], HeldOut] = lambda _: HeldOut(),
    cache: EngineCache | None = None,
    on_phase: BuildProgress = no_progress,
) -> CompiledEngine:
    """Build a bundle's engine, or find it in the cache.

    Args:
        bundle: directory of the policy, in fp32.
        target: GPU to build for.
        precision: fp16, int8 or int4.
        builder: package that builds.
        hold_out: called with the manifest before an engine is built; returns the trials to compare
            on.
        cache: the user's own cache by default.
        on_phase: called with each phase and its progress.

    Raises:
        BundleError: the bundle is incomplete or changed.
        ConfigError: the bundle is rounded already, or the builder cannot build for the target.
        DeviceError: the target is this machine's GPU, and there is no GPU or driver.
        EngineError: the cache's engine was changed, or the builder refuses the graph.
        MissingDependency: the builder is not installed.
        OutputError: the cache cannot be written.
    """
    manifest = verify(bundle)
    if manifest.precision != "fp32":
        raise ConfigError(
            f"{bundle}: expected a bundle in fp32, found {manifest.precision}; "
            "compile the bundle that it was rounded from"
        )
    cache = cache or EngineCache()
    key = EngineKey.of(manifest, target, precision, builder)
    if cache.find(key) is not None:
        record, _ = cache.load(key)
        return CompiledEngine(manifest, record, built_before=True)

    require_folder(cache.folder, "set XDG_CACHE_HOME to a folder that you can write")
    held_out = hold_out(manifest)
    with removed_if_empty(cache.folder):
        record = _build(bundle, manifest, key, target, held_out, cache, on_phase)
    return CompiledEngine(manifest, record, built_before=False)


def _build(
    bundle: Path,
    manifest: Manifest,
    key: EngineKey,
    target: GpuTarget,
    held_out: HeldOut,
    cache: EngineCache,
    on_phase: BuildProgress,
) -> EngineRecord:
    """Convert, compare, build and store."""
    cache.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Beside the cache, since /tmp may be memory and the largest graph has 2.4 GB.
    with tempfile.TemporaryDirectory(dir=cache.folder.parent, prefix=".compile-") as scratch:
        graph = Path(scratch) / ONNX_FILE
        on_phase("converting", 0, 1)
        converted = convert(
            bundle / ONNX_FILE,
            graph,
            BITS[key.precision],
            half_floats=True,
            on_matrix=lambda done, of: on_phase("rounding weights", done, of),
        )
        agreements = _compare(bundle, manifest, key.precision, graph, held_out, on_phase)
        built = build_engine(graph, manifest.spec, target, key.builder, on_phase)

    record = EngineRecord(
        key=key,
        name=manifest.name,
        sha256=hashlib.sha256(built.plan).hexdigest(),
        size_bytes=built.plan.nbytes,
        weights_bytes=converted.weights_bytes,
        build_s=built.seconds,
        peak_memory_bytes=built.peak_memory_bytes,
        layers=built.layers,
        fused_layers=built.fused_layers,
        compared_on=held_out.description if agreements else "",
        agreements=agreements,
    )
    cache.store(record, built.plan)
    return record


def _compare(
    bundle: Path,
    manifest: Manifest,
    precision: Precision,
    graph: Path,
    held_out: HeldOut,
    on_phase: BuildProgress,
) -> tuple[GraphAgreement, ...]:
    """Compare the engine's graph, and its rounded weights alone, with fp32 in ONNX Runtime.

    The engine itself needs its GPU. Rounded weights in float32 arithmetic show the part of the
    difference that the rounding causes.
    """
    if not held_out.episodes:
        return ()

    graphs = {"the engine's graph": graph}
    if bits := BITS[precision]:
        weights = graph.with_name("weights.onnx")
        convert(bundle / ONNX_FILE, weights, bits, half_floats=False)
        graphs["its weights in fp32 arithmetic"] = weights

    found = []
    for done, (name, path) in enumerate(graphs.items()):
        on_phase("comparing with fp32", done, len(graphs))
        found.append(
            compare_actions(
                name,
                GraphEngine(bundle / ONNX_FILE),
                GraphEngine(path),
                manifest.spec,
                manifest.model,
                held_out.episodes,
            )
        )
    on_phase("comparing with fp32", len(graphs), len(graphs))
    return tuple(found)
