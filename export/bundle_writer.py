"""Writing of a bundle, whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gatort.policies.model import Gato
from gatort.policies.weights import write_weights
from gatort.runtime.bundle import (
    ONNX_FILE,
    WEIGHTS_FILE,
    Manifest,
    SuccessRecord,
    TrainingRecord,
    load_manifest,
    sha256_of,
    write_manifest,
)
from gatort.runtime.errors import BundleError

from .precision import Bits, Grams, convert
from .to_onnx import export_onnx

RoundedPrecision = Literal["int8", "int4", "w8a8"]


@dataclass(frozen=True, slots=True)
class Rounding:
    """Rounding of a graph's weights to a grid."""

    precision: RoundedPrecision
    """Precision of the rounded graph."""
    grams: Grams | None = None
    """Products of the inputs, see `gatort.export.precision.convert`."""

    @property
    def bits(self) -> Bits:
        """Number of bits of a weight's code."""
        return 4 if self.precision == "int4" else 8


def _silently(_: str) -> None:
    """Do nothing: the default callback before each step."""


def write_bundle(
    directory: Path,
    name: str,
    model: Gato,
    training: TrainingRecord,
    success: SuccessRecord | None = None,
    begin: Callable[[str], None] = _silently,
    rounding: Rounding | None = None,
) -> Manifest:
    """Write weights, ONNX graph and manifest to `directory`. Replace an older bundle last.

    All files are made in a folder beside it and renamed into place: a failure leaves the older
    bundle. The model is left in evaluation mode. Its weights are written one tensor at a time and
    never copied whole.

    Args:
        directory: folder of the bundle.
        name: name of the policy.
        model: the policy.
        training: record of the training.
        success: success rate that was measured.
        begin: called with each step before it begins.
        rounding: rounding of the graph's weights; `model.safetensors` keeps them exact.

    Raises:
        BundleError: `directory` holds something that is not a bundle.
    """
    _require_replaceable(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as scratch:
        made = Path(scratch) / "new"
        made.mkdir()
        begin(f"writing {WEIGHTS_FILE}")
        write_weights(model, made / WEIGHTS_FILE)
        begin(f"writing {ONNX_FILE}")
        _write_graph(model, made / ONNX_FILE, rounding, Path(scratch) / ONNX_FILE)

        begin("hashing")
        files = {path.name: sha256_of(path) for path in sorted(made.iterdir())}
        manifest = Manifest(
            name=name,
            spec=model.spec,
            model=model.dims,
            precision=rounding.precision if rounding else "fp32",
            files=files,
            training=training,
            success=success,
        )
        write_manifest(made, manifest)
        _swap(made, directory, Path(scratch) / "old")
    return manifest


def _write_graph(model: Gato, path: Path, rounding: Rounding | None, exact: Path) -> None:
    """Write the model's graph; to round it, write it to `exact` first."""
    if rounding is None:
        export_onnx(model, path)
        return

    export_onnx(model, exact)
    convert(
        exact,
        path,
        rounding.bits,
        half_floats=False,
        round_activations=rounding.precision == "w8a8",
        grams=rounding.grams,
    )


def _require_replaceable(directory: Path) -> None:
    """Check that a bundle may be written here.

    Raises:
        BundleError: the folder holds something else.
    """
    if directory.is_dir() and not any(directory.iterdir()):
        return
    if directory.exists():
        try:
            load_manifest(directory)
        except BundleError as error:
            raise BundleError(
                f"{directory}: expected a free name, an empty folder or a bundle to replace; "
                f"{error}"
            ) from error


def _swap(made: Path, directory: Path, old: Path) -> None:
    """Move `made` to `directory` and an older bundle to `old`; move it back if that fails."""
    if directory.exists():
        directory.rename(old)
    try:
        made.rename(directory)
    except OSError:
        if old.exists():
            old.rename(directory)
        raise
