"""A policy on disk: `manifest.json` and the files that it vouches for by SHA-256."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError

from .errors import BundleError
from .external_data import external_locations
from .spec import ModelDims, PolicySpec, Precision, Strict

MANIFEST_FILE = "manifest.json"
ONNX_FILE = "policy.onnx"
WEIGHTS_FILE = "model.safetensors"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
SeedRange = tuple[NonNegativeInt, NonNegativeInt]


class TrainingRecord(Strict):
    """Origin of the weights."""

    recipe: str
    """Description of the training, in a sentence or two."""
    demonstrations: str
    """Description of the demonstrations."""
    training_seeds: tuple[SeedRange, ...] = ()
    """Layout seeds used for training, as (first, last) ranges."""
    validation_seeds: tuple[SeedRange, ...] = ()
    """Layout seeds used to choose among checkpoints. Trials use neither."""
    parameters: NonNegativeInt
    steps: NonNegativeInt


class SuccessRecord(Strict):
    """Measured success of the policy."""

    trials: PositiveInt
    first_seed: NonNegativeInt
    successes: NonNegativeInt
    rate: Share
    wilson_95: tuple[Share, Share]
    """95 % Wilson interval of the rate."""


class Manifest(Strict):
    """Description of a policy: everything except its weights."""

    format_version: Literal[1] = 1
    name: str
    task: str | None = None
    """Name of the task in `gatort.sim.tasks`. `None` for a policy of no simulated task."""
    spec: PolicySpec
    model: ModelDims
    precision: Precision = "fp32"
    """Precision of the graph's weights; `model.safetensors` always holds them in fp32."""
    files: dict[str, Sha256]
    """SHA-256 of each file's contents, by its name in the bundle."""
    training: TrainingRecord
    success: SuccessRecord | None = None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's contents, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write `manifest.json` into a bundle."""
    (directory / MANIFEST_FILE).write_text(
        manifest.model_dump_json(indent=2) + "\n", encoding="utf-8"
    )


def first_error(error: ValidationError, whole: str) -> str:
    """Describe the first invalid field, or the whole by its name, in pydantic's words."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or whole}: {first['msg']}"


def load_manifest(directory: Path) -> Manifest:
    """Read a bundle's manifest without checking its files.

    Raises:
        BundleError: the manifest is absent or not valid; names the field.
    """
    path = directory / MANIFEST_FILE
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BundleError(
            f"{path}: expected a bundle's manifest, found none ({error.strerror})"
        ) from error
    except ValidationError as error:
        raise BundleError(f"{path}: {first_error(error, 'the file')}") from error


def verify(directory: Path) -> Manifest:
    """Read a bundle's manifest, and check every file that the manifest names or the graph reads.

    Raises:
        BundleError: a file is absent, changed, outside the bundle or not in the manifest; names it.
    """
    manifest = load_manifest(directory)
    if missing := {ONNX_FILE, WEIGHTS_FILE} - manifest.files.keys():
        raise BundleError(
            f"{directory / MANIFEST_FILE}: expected {ONNX_FILE} and {WEIGHTS_FILE} among files, "
            f"lacks {sorted(missing)}"
        )
    for name, expected in manifest.files.items():
        path = directory / name
        if PurePosixPath(name).name != name or name in ("", ".", ".."):
            raise BundleError(
                f"{path}: expected a plain file name inside the bundle, found {name!r}"
            )
        if not path.is_file():
            raise BundleError(f"{path}: named in the manifest, but there is no such file")
        if path.is_symlink():
            raise BundleError(f"{path}: expected a file, found a link")
        if (found := sha256_of(path)) != expected:
            raise BundleError(
                f"{path}: changed since the bundle was written: "
                f"expected SHA-256 {expected}, found {found}"
            )
    # The manifest's names are plain, hence this keeps the graph inside the bundle as well.
    if strange := external_locations(directory / ONNX_FILE) - manifest.files.keys():
        raise BundleError(
            f"{directory / ONNX_FILE}: expected weights in files that the manifest names, "
            f"{sorted(manifest.files)}, "
            f"found {sorted(strange)}"
        )
    return manifest


def record_success(directory: Path, success: SuccessRecord) -> Manifest:
    """Write a bundle's measured success into its manifest. Its other files stay as they are.

    Raises:
        BundleError: the bundle is incomplete or changed.
    """
    manifest = verify(directory).model_copy(update={"success": success})
    with tempfile.TemporaryDirectory(prefix=".manifest-", dir=directory) as scratch:
        write_manifest(Path(scratch), manifest)
        (Path(scratch) / MANIFEST_FILE).replace(directory / MANIFEST_FILE)
    return manifest
