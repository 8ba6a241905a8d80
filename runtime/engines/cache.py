"""Engines built on this machine, and the proof that nobody changed them since.

A serialized engine is native code: a person who can exchange it runs their own code in the robot's
process. Beside each engine lies a record with its SHA-256. The record is sealed (HMAC-SHA256) with
a key that only this user can read. The bytes that are loaded are checked first, before
TensorRT sees them.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, ValidationError

from gatort.runtime.bundle import Manifest, Sha256, Share
from gatort.runtime.errors import EngineError
from gatort.runtime.regular_file import read_regular
from gatort.runtime.spec import Precision, Strict

from .gpu import GpuTarget, gpu_key
from .tensorrt import Builder, import_builder
from .user_key import user_key

_PLAN = ".engine"
_RECORD = ".json"
_PARTIAL = ".partial"
_MOST_RECORD_BYTES = 1 << 18
_DISTRIBUTION_ENDINGS = ("", "-cu13", "-cu12")
"""Endings of the names of NVIDIA's wheels: none, which only requires another, or a CUDA version."""


class EngineKey(Strict):
    """Everything that an engine depends on; any other value makes another engine."""

    bundle: Sha256
    """Hash of the bundle, see `bundle_hash`."""
    gpu: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    """GPUs that the engine runs on, see `gpu_key`."""
    precision: Precision
    """Precision of the weights."""
    builder: Builder
    """Package that built the engine."""
    builder_version: str
    """Version of that package."""

    @classmethod
    def of(
        cls, manifest: Manifest, target: GpuTarget, precision: Precision, builder: Builder
    ) -> Self:
        """Return the key of a bundle's engine, as the installed builder builds it.

        Raises:
            ConfigError: the builder cannot build for that target.
            DeviceError: the target is this GPU, and the machine has no GPU or no driver.
            MissingDependency: the builder is not installed.
        """
        builder_version = require_builder_version(builder)
        return cls(
            bundle=bundle_hash(manifest),
            gpu=gpu_key(target, builder),
            precision=precision,
            builder=builder,
            builder_version=builder_version,
        )

    @property
    def stem(self) -> str:
        """Name of the engine's files, without an ending."""
        return (
            f"{self.bundle[:16]}-{self.gpu}-{self.precision}-{self.builder}-{self.builder_version}"
        )

    def __str__(self) -> str:
        """Return the key without its bundle, for a sentence."""
        return f"{self.precision} for {self.gpu} by {self.builder} {self.builder_version}"


class GraphAgreement(Strict):
    """Agreement of a graph's actions with those in fp32, given the same past at every token."""

    graph: str
    """Name of the graph in words."""
    tokens: PositiveInt
    """Number of action tokens compared."""
    same_argmax: Share
    """Share of tokens at which both graphs pick the same bin."""
    error: tuple[NonNegativeFloat, ...]
    """Mean absolute difference of each actuator's command, (A,), in the actuator's unit."""
    share_of_range: NonNegativeFloat
    """Mean over actuators and ticks of the absolute difference divided by the actuator's range."""


class EngineRecord(Strict):
    """An engine and the figures of its build."""

    format_version: Literal[2] = 2
    """Version of this record's format."""
    key: EngineKey
    """Everything that the engine depends on."""
    name: str
    """Name of the bundle."""
    sha256: Sha256
    """SHA-256 of the engine's bytes."""
    size_bytes: PositiveInt
    """Size of the engine."""
    weights_bytes: PositiveInt
    """Size of all constants of the graph that the engine was built from."""
    build_s: NonNegativeFloat
    """Duration of the build."""
    peak_memory_bytes: PositiveInt
    """Peak memory of the process during the build."""
    layers: NonNegativeInt
    """Number of layers of the network before anything is fused."""
    fused_layers: NonNegativeInt
    """Number of layers of the engine; 0 where the builder did not say."""
    compared_on: str
    """Origin of the trials that `agreements` were measured on; empty when nothing was compared."""
    agreements: tuple[GraphAgreement, ...]
    """Comparisons with fp32; empty when nothing was compared."""

    @property
    def ratio(self) -> float:
        """Size of the engine divided by the size of its weights."""
        return self.size_bytes / self.weights_bytes


class _Sealed(Strict):
    """Record as it lies on disk."""

    record: EngineRecord
    hmac: Sha256


def bundle_hash(manifest: Manifest) -> str:
    """Return the SHA-256 of the parts of a bundle that decide its results.

    These are its files' hashes, its specification and its dimensions, and not its success rate.
    """
    content = (
        sorted(manifest.files.items()),
        manifest.spec.model_dump_json(),
        manifest.model.model_dump_json(),
    )
    return hashlib.sha256(repr(content).encode()).hexdigest()


def builder_version(builder: Builder) -> str | None:
    """Return the installed version of a builder, without importing it; `None` if it is absent."""
    for ending in _DISTRIBUTION_ENDINGS:
        with suppress(PackageNotFoundError):
            return version(builder + ending)
    return None


def require_builder_version(builder: Builder) -> str:
    """Return the installed version of a builder.

    A builder that no package manager installed is imported and asked.

    Raises:
        MissingDependency: it is not installed.
    """
    return builder_version(builder) or str(import_builder(builder).__version__)


class EngineCache:
    """Folder of engines and their sealed records."""

    def __init__(self, folder: Path | None = None, key_file: Path | None = None) -> None:
        """Name the folder and the user's key; neither is made before an engine is stored.

        Args:
            folder: folder of the engines; by default `$XDG_CACHE_HOME/gatort/engines`.
            key_file: the user's key; by default `$XDG_CONFIG_HOME/gatort/engine.key`. It is made
                when first needed, and only its owner may read it.
        """
        self.folder = folder or _home("XDG_CACHE_HOME", ".cache") / "gatort" / "engines"
        self._key_file = key_file or _home("XDG_CONFIG_HOME", ".config") / "gatort" / "engine.key"

    def store(self, record: EngineRecord, plan: bytes | memoryview) -> None:
        """Write an engine and its sealed record; replace an older one.

        Raises:
            EngineError: other users may read the user's key.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        sealed = _Sealed(record=record, hmac=self._seal(record))
        # The engine comes first: a record without its engine would look like damage.
        _write_whole(self._path(record.key, _PLAN), plan)
        content = (sealed.model_dump_json(indent=2) + "\n").encode()
        _write_whole(self._path(record.key, _RECORD), content)

    def find(self, key: EngineKey) -> EngineRecord | None:
        """Return the record of an engine, without reading the engine; `None` if it was not built.

        Raises:
            EngineError: the record was changed, is another engine's, or has another user's seal.
        """
        path = self._path(key, _RECORD)
        if not path.exists():
            return None
        record = self._read(path)
        if record.key != key:
            raise EngineError(
                f"{path}: expected the record of {key.stem}, found that of {record.key.stem}"
            )
        return record

    def load(self, key: EngineKey) -> tuple[EngineRecord, bytes]:
        """Return an engine and its record, both checked.

        Raises:
            EngineError: the engine was not built, or it or its record was changed since.
        """
        record = self.find(key)
        if record is None:
            raise EngineError(
                f"{self.folder}: holds no engine of this bundle, {key}; build it with "
                f"gatort compile BUNDLE --target this-gpu --precision {key.precision} "
                f"--builder {key.builder}"
            )
        return record, self._read_plan(record)

    def records(self) -> Iterator[tuple[str, EngineRecord | EngineError]]:
        """Yield each entry's name, with its record or the reason why it must not be loaded.

        The engines' bytes are checked too.
        """
        for path in sorted(self.folder.glob(f"*{_RECORD}")):
            try:
                yield path.stem, self._checked(path)
            except EngineError as error:
                yield path.stem, error

    def _checked(self, path: Path) -> EngineRecord:
        record = self._read(path)
        if record.key.stem != path.stem:
            raise EngineError(
                f"{path}: expected the record of {path.stem}, found that of {record.key.stem}"
            )
        self._read_plan(record)
        return record

    def prune(self, *, everything: bool = False) -> list[str]:
        """Remove the entries that cannot be loaded.

        These were changed, were cut short, or were built by a version that is not installed.

        Args:
            everything: remove all other entries as well.

        Returns:
            The names of the removed entries.
        """
        kept = set() if everything else self._loadable()
        removed = set()
        for path in self.folder.glob("*"):
            ours = path.suffix in (_PLAN, _RECORD, _PARTIAL)
            if ours and path.stem not in kept and not _being_written(path):
                path.unlink()
                removed.add(path.stem)
        return sorted(removed)

    def _loadable(self) -> set[str]:
        """Return the names of the entries that are unchanged and whose builder is installed."""
        return {
            name
            for name, found in self.records()
            if isinstance(found, EngineRecord)
            and found.key.builder_version == builder_version(found.key.builder)
        }

    def _path(self, key: EngineKey, ending: str) -> Path:
        return self.folder / f"{key.stem}{ending}"

    def _read(self, path: Path) -> EngineRecord:
        try:
            content = read_regular(path, "an engine's record", EngineError, _MOST_RECORD_BYTES)
            sealed = _Sealed.model_validate_json(content)
        except ValidationError as error:
            raise EngineError(
                f"{path}: expected an engine's record of format 2, found another file; "
                "`gatort compile --prune` removes it"
            ) from error
        if not hmac.compare_digest(sealed.hmac, self._seal(sealed.record)):
            raise EngineError(
                f"{path}: changed since it was written, or written under another user's key"
            )
        return sealed.record

    def _read_plan(self, record: EngineRecord) -> bytes:
        path = self._path(record.key, _PLAN)
        plan = read_regular(path, "an engine", EngineError, record.size_bytes)
        found = hashlib.sha256(plan).hexdigest()
        if found != record.sha256:
            raise EngineError(
                f"{path}: changed since it was built: "
                f"expected SHA-256 {record.sha256}, found {found}"
            )
        return plan

    def _seal(self, record: EngineRecord) -> str:
        key = user_key(self._key_file)
        return hmac.new(key, record.model_dump_json().encode(), hashlib.sha256).hexdigest()


def load_engine(
    manifest: Manifest,
    precision: Precision,
    builder: Builder = "tensorrt-rtx",
    target: GpuTarget = "this-gpu",
    cache: EngineCache | None = None,
) -> tuple[EngineRecord, bytes]:
    """Return the engine that this user's `gatort compile` built: its record and its bytes.

    Both are checked.

    Raises:
        DeviceError: the target is this GPU, and the machine has no GPU or no driver.
        EngineError: the engine was not built (the sentence says how to), or was changed since.
        MissingDependency: the builder is not installed.
    """
    return (cache or EngineCache()).load(EngineKey.of(manifest, target, precision, builder))


def _home(variable: str, otherwise: str) -> Path:
    """Return a folder of the XDG base directory specification, which ignores relative ones."""
    given = Path(os.environ.get(variable, ""))
    return given if given.is_absolute() else Path.home() / otherwise


def _write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file that a reader sees whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}{_PARTIAL}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(partial, flags, 0o600), "wb") as file:
            file.write(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _being_written(path: Path) -> bool:
    """Return true if the process in the name that `_write_whole` gave the file is alive."""
    return path.suffix == _PARTIAL and Path("/proc", path.name.split(".")[-2]).exists()
