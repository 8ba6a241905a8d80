"""A bundle written whole or not at all, and the model read back from one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from gatort.policies.model import (
    Gato,
    blank,
)
from gatort.runtime.bundle import (
    ONNX_FILE,
    WEIGHTS_FILE,
    Manifest,
    SuccessRecord,
    TrainingRecord,
    load_manifest,
    sha256_of,
    verify,
    write_manifest,
)
from gatort.runtime.errors import (
    BundleError,
    MissingDependency,
)

from .precision import (
    Bits,
    Grams,
    convert,
)
from .to_onnx import export_onnx

if TYPE_CHECKING:
    from torch import Tensor


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
) -> Manifest:
    """Write weights, ONNX graph and manifest to `directory`; an older bundle there is replaced at the very end.

    Everything is made in a folder beside it and renamed into place, so that a failure leaves what was there. The model
    is left in evaluation mode; its weights are written one tensor at a time and never copied whole. `begin` is called
    with what is about to be done. `rounding` is of the graph's weights alone; `model.safetensors` has them as they are.

    Raises:
        BundleError: something that is not a bundle is in the way.
        MissingDependency: safetensors is not installed.
    """
    _require_replaceable(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as scratch:
        made = Path(scratch) / "new"
        made.mkdir()
        begin(f"writing {WEIGHTS_FILE}")
        _write_weights(model, made / WEIGHTS_FILE)
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


def read_model(directory: Path) -> Gato:
    """The PyTorch model of a bundle, in evaluation mode; one tensor at a time, so that the weights are held once.

    Raises:
        BundleError: the bundle is incomplete or changed, or its tensors are not those of its dimensions.
        MissingDependency: safetensors is not installed.
    """
    manifest = verify(directory)
    model = blank(manifest.spec, manifest.model)
    _read_weights(model, directory / WEIGHTS_FILE)
    return model.eval()


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


def _write_weights(model: Gato, path: Path) -> None:
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        raise MissingDependency(
            "safetensors is not installed: pip install 'gatort[train]'"
        ) from error
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    path.chmod(0o644)  # safetensors makes it readable by its owner alone


def _read_weights(model: Gato, path: Path) -> None:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise MissingDependency(
            "safetensors is not installed: pip install 'gatort[train]'"
        ) from error
    try:
        with safe_open(path, framework="pt") as stored, torch.no_grad():
            wanted: dict[str, Tensor] = model.state_dict()
            if different := wanted.keys() ^ set(stored.keys()):
                raise BundleError(
                    f"{path}: the manifest's dimensions do not fit its tensors {sorted(different)}"
                )
            for name, tensor in wanted.items():
                found = stored.get_tensor(name)
                if found.shape != tensor.shape:
                    raise BundleError(
                        f"{path}: {name}: expected {tuple(tensor.shape)}, found {tuple(found.shape)}"
                    )
                tensor.copy_(found)
    except SafetensorError as error:
        raise BundleError(f"{path}: expected safetensors: {error}") from error
