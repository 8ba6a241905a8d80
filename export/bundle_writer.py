"""Writing of a bundle, whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
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
from gatort.runtime.outputs import removed_if_empty

from .precision import convert
from .shared_weights import share_weights
from .to_onnx import export_onnx

RoundedPrecision = Literal["int8", "int4", "w8a8"]


def ignore_step(_: str) -> None:
    """Do nothing: the default callback."""


def write_bundle(
    directory: Path,
    name: str,
    model: Gato,
    training: TrainingRecord,
    success: SuccessRecord | None = None,
    begin: Callable[[str], None] = ignore_step,
    rounding: RoundedPrecision | None = None,
    task: str | None = None,
) -> Manifest:
    """Write weights, ONNX graph and manifest to `directory`; an older bundle there is replaced at
    the very end.

    Everything is made in a folder beside it and renamed into place, so a failure leaves the older
    bundle whole. The model is left in evaluation mode. Its weights are written one tensor at a time
    and are never copied whole.

    Args:
        directory: folder of the bundle.
        name: name in the manifest.
        model: weights, specification and dimensions.
        training: record of the training.
        success: success rate that was measured.
        begin: called with a few words on each step when it begins.
        rounding: precision of the graph's weights, `None` for float32; `model.safetensors` is never
            rounded.
        task: name of the policy's task in `gatort.sim.tasks`; `None` for no simulated task.

    Raises:
        BundleError: `directory` holds something that is not a bundle.
    """
    _require_replaceable(directory)
    parent = directory.parent
    with removed_if_empty(parent):
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=parent) as scratch:
            made = Path(scratch) / "new"
            made.mkdir()

            begin(f"writing {WEIGHTS_FILE}")
            write_weights(model, made / WEIGHTS_FILE)

            begin(f"writing {ONNX_FILE}")
            _write_graph(model, made / ONNX_FILE, rounding, Path(scratch))

            begin("hashing")
            files = {path.name: sha256_of(path) for path in sorted(made.iterdir())}
            manifest = Manifest(
                name=name,
                task=task,
                spec=model.spec,
                model=model.dims,
                precision=rounding or "fp32",
                files=files,
                training=training,
                success=success,
            )
            write_manifest(made, manifest)
            _swap(made, directory, Path(scratch) / "old")
    return manifest


def _write_graph(
    model: Gato, target: Path, rounding: RoundedPrecision | None, scratch: Path
) -> None:
    if rounding is None:
        export_onnx(model, target)
        share_weights(target, target.with_name(WEIGHTS_FILE))
        return
    exact = scratch / ONNX_FILE
    export_onnx(model, exact)
    convert(
        exact,
        target,
        4 if rounding == "int4" else 8,
        half_floats=False,
        round_activations=rounding == "w8a8",
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
    """Rename `made` to `directory`; an older bundle moves to `old`, and back if that fails."""
    if directory.exists():
        directory.rename(old)
    try:
        made.rename(directory)
    except OSError:
        if old.exists():
            old.rename(directory)
        raise
