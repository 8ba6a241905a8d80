"""A policy on disk: `manifest.json` and the files that it vouches for by SHA-256."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError

from .errors import BundleError
from .external_data import external_locations
from .invalid_values import first_error
from .regular_file import open_regular, read_regular
from .spec import ModelDims, Name, PolicySpec, Precision, Strict

MANIFEST_FILE = "manifest.json"
ONNX_FILE = "policy.onnx"
WEIGHTS_FILE = "model.safetensors"

MOST_MANIFEST_BYTES = 1 << 18
"""Largest manifest; the shipped ones have 6 KB."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
SeedRange = tuple[NonNegativeInt, NonNegativeInt]
SeedRanges = Annotated[tuple[SeedRange, ...], Field(max_length=10_000)]


class TrainingRecord(Strict):
    """Origin of the weights."""

    recipe: str
    """Description of the training, in a sentence or two."""
    demonstrations: str
    """Description of the demonstrations."""
    training_seeds: SeedRanges = ()
    """Layout seeds used for training, as (first, last) ranges."""
    validation_seeds: SeedRanges = ()
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
    name: Name
    task: Name | None = None
    """Name of the task in `gatort.sim.tasks`. `None` for a policy of no simulated task."""
    spec: PolicySpec
    model: ModelDims
    precision: Precision = "fp32"
    """Precision of the graph's weights; `model.safetensors` always holds them in fp32."""
    files: Annotated[dict[str, Sha256], Field(max_length=64)]
    """SHA-256 of each file's contents, by its name in the bundle."""
    training: TrainingRecord
    success: SuccessRecord | None = None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's contents, in hexadecimal.

    Raises:
        BundleError: the file cannot be read, or is no regular file.
    """
    with open_regular(path, "a file of a bundle", BundleError) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write `manifest.json` into a bundle."""
    (directory / MANIFEST_FILE).write_text(
        manifest.model_dump_json(indent=2) + "\n", encoding="utf-8"
    )


def load_manifest(directory: Path) -> Manifest:
    """Read a bundle's manifest without checking its files.

    Raises:
        BundleError: the manifest is absent or not valid; names the field.
    """
    manifest, _ = load_hashed_manifest(directory)
    return manifest


def load_hashed_manifest(directory: Path) -> tuple[Manifest, str]:
    """Return a bundle's manifest and the SHA-256 of the bytes that it was read from.

    Raises:
        BundleError: as `load_manifest`.
    """
    path = directory / MANIFEST_FILE
    content = read_regular(path, "a bundle's manifest", BundleError, MOST_MANIFEST_BYTES)
    try:
        return Manifest.model_validate_json(content), hashlib.sha256(content).hexdigest()
    except ValidationError as error:
        raise BundleError(f"{path}: {first_error(error, 'the file')}") from error


@contextmanager
def open_checked(directory: Path, manifest: Manifest, name: str) -> Iterator[BufferedReader]:
    """Open a file of a bundle, and check that it is the one that the manifest vouches for.

    Whatever is read from the open file was hashed, even when another file takes its name.

    Args:
        directory: folder of the bundle.
        manifest: manifest of the bundle.
        name: name of the file in the manifest.

    Raises:
        BundleError: the file is absent, changed, outside the bundle or not in the manifest.
    """
    path = directory / name
    if PurePosixPath(name).name != name or name in ("", ".", ".."):
        raise BundleError(f"{path}: expected a plain file name inside the bundle, found {name!r}")
    what = "a file that the manifest names"
    with open_regular(path, what, BundleError, follow_links=False) as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != manifest.files.get(name):
            raise BundleError(
                f"{path}: changed since the bundle was written: "
                f"expected SHA-256 {manifest.files.get(name)}, found {found}"
            )
        file.seek(0)
        yield file


def verify(directory: Path, manifest_sha256: str | None = None) -> Manifest:
    """Read a bundle's manifest, and check every file that the manifest names or the graph reads.

    Args:
        directory: folder of the bundle.
        manifest_sha256: expected hash of the manifest; any by default.

    Raises:
        BundleError: a file is absent, changed, outside the bundle or not in the manifest; names it.
    """
    manifest, found = load_hashed_manifest(directory)
    if manifest_sha256 not in (None, found):
        raise BundleError(
            f"{directory / MANIFEST_FILE}: expected SHA-256 {manifest_sha256}, found {found}"
        )
    if missing := {ONNX_FILE, WEIGHTS_FILE} - manifest.files.keys():
        raise BundleError(
            f"{directory / MANIFEST_FILE}: expected {ONNX_FILE} and {WEIGHTS_FILE} among files, "
            f"lacks {', '.join(sorted(missing))}"
        )
    for name in manifest.files:
        with open_checked(directory, manifest, name) as file:
            if name == ONNX_FILE:
                external_files(directory, manifest, file)
            if name == WEIGHTS_FILE:
                _require_weights(directory / name, manifest.model, file)
    return manifest


def external_files(directory: Path, manifest: Manifest, graph: IO[bytes]) -> list[str]:
    """Return the names of the bundle's files from which its graph reads weights.

    Args:
        directory: folder of the bundle.
        manifest: manifest of the bundle.
        graph: the open graph.

    Raises:
        BundleError: the graph reads a file that the manifest does not name.
    """
    locations = external_locations(directory / ONNX_FILE, graph)
    # The manifest's names are plain, hence this keeps the graph inside the bundle as well.
    if strange := locations - manifest.files.keys():
        raise BundleError(
            f"{directory / ONNX_FILE}: expected weights in files that the manifest names, "
            f"{', '.join(sorted(manifest.files))}, "
            f"found {', '.join(sorted(strange))}"
        )
    return sorted(locations)


def _require_weights(path: Path, model: ModelDims, file: IO[bytes]) -> None:
    """Check that the file of weights is large enough for the dimensions.

    An engine takes memory for the dimensions, so a small file must not claim a large model.
    """
    found = os.fstat(file.fileno()).st_size
    if found < model.least_weights_bytes:
        raise BundleError(
            f"{path}: expected at least {model.least_weights_bytes} bytes for the manifest's "
            f"dimensions, found {found}"
        )


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
