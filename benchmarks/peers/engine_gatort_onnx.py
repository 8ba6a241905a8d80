"""gatort with ONNX Runtime, as on a machine without a C compiler."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path

import engine_gatort
from work import Precision, Settings

from gatort.runtime.bundle import MANIFEST_FILE, ONNX_FILE, Manifest, load_manifest
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
        shutil.copy(source / MANIFEST_FILE, target)
        convert(
            source / ONNX_FILE, target / ONNX_FILE, 8, half_floats=False, round_activations=True
        )


class Engine(engine_gatort.Engine):
    """The ticks of `engine_gatort`, with ONNX Runtime."""

    versions = f"{engine_gatort.Engine.versions}, onnxruntime {version('onnxruntime')}"

    def load(self, prefill: int) -> tuple[Manifest, OnnxEngine]:
        """Return the manifest and the engine of a prefill length."""
        bundle = self._folder / f"bundle-{prefill}-{self._precision}"
        manifest = load_manifest(bundle)
        return manifest, OnnxEngine(bundle, manifest, OnnxConfig.model_validate(self._settings))
