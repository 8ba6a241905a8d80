"""Engines built on this machine, and the proof that they still are what was built here.

A serialized engine is native code: whoever can exchange it runs what he likes in the robot's process. So each lies
beside a record with its SHA-256, and the record is sealed (HMAC-SHA256) with a key that only this user can read.
Both are checked on the bytes that are then loaded, before TensorRT sees them.
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

from gatort.runtime.bundle import (
    Manifest,
    Sha256,
    Share,
)
from gatort.runtime.errors import EngineError
from gatort.runtime.spec import (
    Precision,
    Strict,
)

from .gpu import (
    Target,
    gpu_key,
)
from .tensorrt import (
    Builder,
    import_builder,
)
from .user_key import user_key

_PLAN, _RECORD, _PARTIAL = ".engine", ".json", ".partial"
_DISTRIBUTION_ENDINGS = ("", "-cu13", "-cu12")
"""NVIDIA's wheels come under the bare name, which only asks for another, or under that of a CUDA version."""


class EngineKey(Strict):
    """What an engine depends on; another value of any of these is another engine."""

    bundle: Sha256
    """See `bundle_hash`."""
    gpu: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    """See `gpu_key`."""
    precision: Precision
    builder: Builder
    builder_version: str

    @classmethod
    def of(cls, manifest: Manifest, target: Target, precision: Precision, builder: Builder) -> Self:
        """The key of a bundle's engine by the builder that is installed.

        Raises:
            ConfigError: the builder cannot build for that target.
            DeviceError: the target is this GPU, and there is none or no driver.
            MissingDependency: the builder is not installed.
        """
        version = require_builder_version(builder)
        gpu, bundle = gpu_key(target, builder), bundle_hash(manifest)
        return cls(
            bundle=bundle, gpu=gpu, precision=precision, builder=builder, builder_version=version
        )

    @property
    def stem(self) -> str:
        """File name without an ending."""
        return (
            f"{self.bundle[:16]}-{self.gpu}-{self.precision}-{self.builder}-{self.builder_version}"
        )

    def __str__(self) -> str:
        """What a sentence calls it, beside its bundle."""
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
    """A record as it lies on disk."""

    record: EngineRecord
    hmac: Sha256


def bundle_hash(manifest: Manifest) -> str:
    """SHA-256 over what a bundle computes: its files' hashes, specification and dimensions, not how well it does."""
    content = (
        sorted(manifest.files.items()),
        manifest.spec.model_dump_json(),
        manifest.model.model_dump_json(),
    )
    return hashlib.sha256(repr(content).encode()).hexdigest()


def builder_version(builder: Builder) -> str | None:
    """The installed version of a builder, none when it is absent; nothing is imported."""
    for ending in _DISTRIBUTION_ENDINGS:
        with suppress(PackageNotFoundError):
            return version(builder + ending)
    return None


def require_builder_version(builder: Builder) -> str:
    """The installed version of a builder; one that no package manager knows is asked itself.

    Raises:
        MissingDependency: it is not installed.
    """
    return builder_version(builder) or str(import_builder(builder).__version__)


class EngineCache:
    """A folder of engines and their sealed records."""

    def __init__(self, folder: Path | None = None, key_file: Path | None = None) -> None:
        """Name where engines and the user's key lie; nothing is made before the first engine is stored.

        Args:
            folder: `$XDG_CACHE_HOME/gatort/engines` when none.
            key_file: `$XDG_CONFIG_HOME/gatort/engine.key` when none; made, for its owner alone, when first needed.
        """
        self.folder = folder or _home("XDG_CACHE_HOME", ".cache") / "gatort" / "engines"
        self._key_file = key_file or _home("XDG_CONFIG_HOME", ".config") / "gatort" / "engine.key"

    def store(self, record: EngineRecord, plan: bytes | memoryview) -> None:
        """Write an engine and its sealed record; one that is there is replaced.

        Raises:
            EngineError: the user's key is not this user's alone.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        sealed = _Sealed(record=record, hmac=self._seal(record))
        # The engine first: a record without its engine would be taken for damage, an engine without one is nothing.
        _write_whole(self._path(record.key, _PLAN), plan)
        _write_whole(
            self._path(record.key, _RECORD), (sealed.model_dump_json(indent=2) + "\n").encode()
        )

    def find(self, key: EngineKey) -> EngineRecord | None:
        """The record of an engine, none when it was not built; the engine itself is not read.

        Raises:
            EngineError: the record was changed, is another engine's, or was sealed by someone else.
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
        """An engine and its record, both checked.

        Raises:
            EngineError: it was not built, or it or its record was changed since.
        """
        record = self.find(key)
        if record is None:
            raise EngineError(
                f"{self.folder}: holds no engine of this bundle, {key}; build it with "
                f"gatort compile BUNDLE --target this-gpu --precision {key.precision} --builder {key.builder}"
            )
        return record, self._read_plan(record)

    def records(self) -> Iterator[tuple[str, EngineRecord | EngineError]]:
        """Every entry by name: its record, or why it must not be loaded; the engines' bytes are checked too."""
        for path in sorted(self.folder.glob(f"*{_RECORD}")):
            try:
                record = self._read(path)
                if record.key.stem != path.stem:
                    raise EngineError(
                        f"{path}: expected the record of {path.stem}, found that of {record.key.stem}"
                    )
                self._read_plan(record)
            except EngineError as error:
                yield path.stem, error
            else:
                yield path.stem, record

    def prune(self, *, everything: bool = False) -> list[str]:
        """Remove what cannot be loaded: entries that were changed, cut short, or built by a version not installed.

        Args:
            everything: remove the others as well.

        Returns:
            Names of what was removed.
        """
        kept = {
            name
            for name, found in self.records()
            if not everything
            and isinstance(found, EngineRecord)
            and found.key.builder_version == builder_version(found.key.builder)
        }
        removed = set()
        for path in self.folder.glob("*"):
            if (
                path.stem not in kept
                and path.suffix in (_PLAN, _RECORD, _PARTIAL)
                and not _being_written(path)
            ):
                path.unlink()
                removed.add(path.stem)
        return sorted(removed)

    def _path(self, key: EngineKey, ending: str) -> Path:
        return self.folder / f"{key.stem}{ending}"

    def _read(self, path: Path) -> EngineRecord:
        try:
            sealed = _Sealed.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise EngineError(
                f"{path}: expected an engine's record, found a file that is none"
            ) from error
        if not hmac.compare_digest(sealed.hmac, self._seal(sealed.record)):
            raise EngineError(
                f"{path}: changed since it was written, or written under another user's key"
            )
        return sealed.record

    def _read_plan(self, record: EngineRecord) -> bytes:
        path = self._path(record.key, _PLAN)
        try:
            plan = path.read_bytes()
        except OSError as error:
            raise EngineError(
                f"{path}: expected an engine, found none ({error.strerror})"
            ) from error
        if (found := hashlib.sha256(plan).hexdigest()) != record.sha256:
            raise EngineError(
                f"{path}: changed since it was built: expected SHA-256 {record.sha256}, found {found}"
            )
        return plan

    def _seal(self, record: EngineRecord) -> str:
        return hmac.new(
            user_key(self._key_file), record.model_dump_json().encode(), hashlib.sha256
        ).hexdigest()


def load_engine(
    manifest: Manifest,
    precision: Precision,
    builder: Builder = "tensorrt-rtx",
    target: Target = "this-gpu",
    cache: EngineCache | None = None,
) -> tuple[EngineRecord, bytes]:
    """The engine of a bundle that this user's `gatort compile` built: its record and its bytes, both checked.

    Raises:
        DeviceError: the target is this GPU, and there is none or no driver.
        EngineError: it was not built (the sentence says how), or was changed since.
        MissingDependency: the builder is not installed.
    """
    return (cache or EngineCache()).load(EngineKey.of(manifest, target, precision, builder))


def _home(variable: str, otherwise: str) -> Path:
    """A folder of the XDG base directory specification; a relative one is to be ignored."""
    given = Path(os.environ.get(variable, ""))
    return given if given.is_absolute() else Path.home() / otherwise


def _write_whole(path: Path, content: bytes | memoryview) -> None:
    """A reader sees the whole file or none."""
    partial = path.with_name(f"{path.name}.{os.getpid()}{_PARTIAL}")
    try:
        with os.fdopen(
            os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb"
        ) as file:
            file.write(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _being_written(path: Path) -> bool:
    """Whether the process that `_write_whole` named the file after is alive."""
    return path.suffix == _PARTIAL and Path("/proc", path.name.split(".")[-2]).exists()
