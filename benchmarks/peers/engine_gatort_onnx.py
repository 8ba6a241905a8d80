"""gatort with ONNX Runtime, as on a machine without a C compiler."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import engine_gatort
from work import Precision, Settings

from gatort.runtime.bundle import ONNX_FILE, Manifest, load_manifest, sha256_of, write_manifest
from gatort.runtime.engines.onnx import OnnxConfig, OnnxEngine


def choices(precision: Precision, cores: int) -> list[Settings]:  # noqa: ARG001 the same for both
    """Return the settings of threads and spinning to try."""
    return [{"threads": 1}, {"threads": cores}, {"threads": cores, "spinning": True}]


def prepare(folder: Path, precision: Precision) -> None:
    """Round each bundle's graph to w8a8, because the peers round activations too.

    The float32 bundles are there already.
    """
    from gatort.export.precision import convert

    if precision == "fp32":
        return

    for source in sorted(folder.glob("bundle-*-fp32")):
        target = folder / source.name.replace("fp32", precision)
        target.mkdir()
        graph = target / ONNX_FILE
        convert(source / ONNX_FILE, graph, 8, half_floats=False, round_activations=True)
        files = {ONNX_FILE: sha256_of(graph)}
        write_manifest(target, load_manifest(source).model_copy(update={"files": files}))


class Engine(engine_gatort.Engine):
    """The ticks of `engine_gatort`, with ONNX Runtime."""

    versions = f"{engine_gatort.Engine.versions}, onnxruntime {version('onnxruntime')}"

    def load(self, prefill: int) -> tuple[Manifest, OnnxEngine]:
        """Return the manifest and the engine of a prefill length."""
        bundle = self._folder / f"bundle-{prefill}-{self._precision}"
        manifest = load_manifest(bundle)
        return manifest, OnnxEngine(bundle, manifest, OnnxConfig.model_validate(self._settings))
