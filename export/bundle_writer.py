"""Write a bundle whole or not at all."""

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

from .precision import (
    Bits,
    Grams,
    convert,
)
from .to_onnx import export_onnx

Rounded = Literal["int8", "int4", "w8a8"]


@dataclass(frozen=True, slots=True)
class Rounding:
    """How a graph's weights are put on a grid."""

    precision: Rounded
    grams: Grams | None = None
    """See `gatort.export.precision.convert`."""

    @property
    def bits(self) -> Bits:
        """Of a weight's code."""
        return 4 if self.precision == "int4" else 8


def _silently(_: str) -> None:
    """Announce nothing."""


def write_bundle(
    directory: Path,
    name: str,
    model: Gato,
    training: TrainingRecord,
    success: SuccessRecord | None = None,
    begin: Callable[[str], None] = _silently,
    rounding: Rounding | None = None,
    task: str | None = None,
) -> Manifest:
    """Write weights, ONNX graph and manifest to `directory`; an older bundle there is replaced at the very end.

    Everything is made in a folder beside it and renamed into place, so that a failure leaves what was there. The model
    is left in evaluation mode; its weights are written one tensor at a time and never copied whole. `begin` is called
    with what is about to be done. `rounding` is of the graph's weights alone; `model.safetensors` has them as they are.
    `task` is the name of the policy's task in `gatort.sim.tasks`.

    Raises:
        BundleError: something that is not a bundle is in the way.
    """
    _require_replaceable(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as scratch:
        made = Path(scratch) / "new"
        made.mkdir()
        begin(f"writing {WEIGHTS_FILE}")
        write_weights(model, made / WEIGHTS_FILE)
        begin(f"writing {ONNX_FILE}")
        if rounding is None:
            export_onnx(model, made / ONNX_FILE)
        else:
            exact = Path(scratch) / ONNX_FILE
            export_onnx(model, exact)
            convert(
                exact,
                made / ONNX_FILE,
                rounding.bits,
                half_floats=False,
                round_activations=rounding.precision == "w8a8",
                grams=rounding.grams,
            )
        begin("hashing")
        files = {path.name: sha256_of(path) for path in sorted(made.iterdir())}
        manifest = Manifest(
            name=name,
            task=task,
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


def _require_replaceable(directory: Path) -> None:
    if directory.is_dir() and not any(directory.iterdir()):
        return
    if directory.exists():
        try:
            load_manifest(directory)
        except BundleError as error:
            raise BundleError(
                f"{directory}: expected a free name, an empty folder or a bundle to replace; {error}"
            ) from error


def _swap(made: Path, directory: Path, old: Path) -> None:
    """Put `made` at `directory`; what was there goes to `old`, and comes back if that fails."""
    if directory.exists():
        directory.rename(old)
    try:
        made.rename(directory)
    except OSError:
        if old.exists():
            old.rename(directory)
        raise
