"""Engines built on this machine, and the proof that they still are what was built here.

A serialized engine is native code: whoever can exchange it runs what he likes in the robot's process. So each lies
beside a record with its SHA-256, and the record is sealed (HMAC-SHA256) with a key that only this user can read.
Both are checked on the bytes that are then loaded, before TensorRT sees them.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, Self

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt, ValidationError

from .bundle import Manifest, Sha256
from .engine_tensorrt import Builder
from .errors import EngineError, MissingDependency
from .spec import Precision, Strict

Target = Literal["rtx3090"]
KEY_BYTES = 32
_PLAN, _RECORD = ".engine", ".json"


class EngineKey(Strict):
    """What an engine depends on; another value of any of these is another engine."""

    bundle: Sha256
    """See `bundle_hash`."""
    target: Target
    precision: Precision
    builder: Builder
    builder_version: str

    @classmethod
    def of(cls, manifest: Manifest, target: Target, precision: Precision, builder: Builder) -> Self:
        """The key of a bundle's engine by the builder that is installed.

        Raises:
            MissingDependency: the builder is not installed.
        """
        return cls(
            bundle=bundle_hash(manifest),
            target=target,
            precision=precision,
            builder=builder,
            builder_version=require_builder_version(builder),
        )

    @property
    def stem(self) -> str:
        """File name without an ending."""
        return f"{self.bundle[:16]}-{self.target}-{self.precision}-{self.builder}-{self.builder_version}"

    @property
    def said(self) -> str:
        """What a sentence calls it, beside its bundle."""
        return f"{self.precision} for {self.target} by {self.builder} {self.builder_version}"


class EngineRecord(Strict):
    """An engine and what it took to build it."""

    format_version: Literal[1] = 1
    key: EngineKey
    name: str
    """Of the bundle."""
    sha256: Sha256
    """Of the engine's bytes."""
    size_bytes: PositiveInt
    weights_bytes: PositiveInt
    """All constants of the graph that it was built from."""
    build_s: NonNegativeFloat
    peak_memory_bytes: PositiveInt
    layers: NonNegativeInt
    """Of the network before anything is fused."""
    fused_layers: NonNegativeInt
    """Of the engine; 0 where the builder did not say."""

    @property
    def ratio(self) -> float:
        """Size of the engine over that of its weights."""
        return self.size_bytes / self.weights_bytes


class _Sealed(Strict):
    """A record as it lies on disk."""

    record: EngineRecord
    hmac: Sha256


def bundle_hash(manifest: Manifest) -> str:
    """SHA-256 over the names and hashes of a bundle's files: what it computes, not how well it was measured to do."""
    return hashlib.sha256(repr(sorted(manifest.files.items())).encode()).hexdigest()


def builder_version(builder: Builder) -> str | None:
    """The installed version of a builder, none when it is absent; nothing is imported."""
    try:
        return version(builder)
    except PackageNotFoundError:
        return None


def require_builder_version(builder: Builder) -> str:
    """The installed version of a builder.

    Raises:
        MissingDependency: it is not installed.
    """
    if (found := builder_version(builder)) is None:
        hint = "pip install 'gatort[tensorrt]'" if builder == "tensorrt-rtx" else "see NVIDIA's installation guide"
        raise MissingDependency(f"{builder} is not installed: {hint}")
    return found


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
        _write_whole(self._path(record.key, _RECORD), (sealed.model_dump_json(indent=2) + "\n").encode())

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
            raise EngineError(f"{path}: expected the record of {key.stem}, found that of {record.key.stem}")
        return record

    def load(self, key: EngineKey) -> tuple[EngineRecord, bytes]:
        """An engine and its record, both checked.

        Raises:
            EngineError: it was not built, or it or its record was changed since.
        """
        record = self.find(key)
        if record is None:
            raise EngineError(
                f"{self.folder}: holds no engine of this bundle {key.said}; build it with "
                f"gatort compile BUNDLE --target {key.target} --precision {key.precision} --builder {key.builder}"
            )
        return record, self._read_plan(record)

    def records(self) -> Iterator[tuple[str, EngineRecord | EngineError]]:
        """Every entry by name: its record, or why it must not be loaded; the engines' bytes are checked too."""
        for path in sorted(self.folder.glob(f"*{_RECORD}")):
            try:
                record = self._read(path)
                if record.key.stem != path.stem:
                    raise EngineError(f"{path}: expected the record of {path.stem}, found that of {record.key.stem}")
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
            if path.stem not in kept and path.suffix in (_PLAN, _RECORD, ".partial"):
                path.unlink()
                removed.add(path.stem)
        return sorted(removed)

    def _path(self, key: EngineKey, ending: str) -> Path:
        return self.folder / f"{key.stem}{ending}"

    def _read(self, path: Path) -> EngineRecord:
        try:
            sealed = _Sealed.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise EngineError(f"{path}: expected an engine's record, found a file that is none") from error
        if not hmac.compare_digest(sealed.hmac, self._seal(sealed.record)):
            raise EngineError(f"{path}: changed since it was written, or written under another user's key")
        return sealed.record

    def _read_plan(self, record: EngineRecord) -> bytes:
        path = self._path(record.key, _PLAN)
        try:
            plan = path.read_bytes()
        except OSError as error:
            raise EngineError(f"{path}: expected an engine, found none ({error.strerror})") from error
        if (found := hashlib.sha256(plan).hexdigest()) != record.sha256:
            raise EngineError(f"{path}: changed since it was built: expected SHA-256 {record.sha256}, found {found}")
        return plan

    def _seal(self, record: EngineRecord) -> str:
        return hmac.new(_user_key(self._key_file), record.model_dump_json().encode(), hashlib.sha256).hexdigest()


def load_engine(
    manifest: Manifest,
    precision: Precision,
    builder: Builder = "tensorrt-rtx",
    target: Target = "rtx3090",
    cache: EngineCache | None = None,
) -> tuple[EngineRecord, bytes]:
    """The engine of a bundle that `gatort compile` built on this machine: its record and its bytes, both checked.

    Raises:
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
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
            file.write(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _user_key(path: Path) -> bytes:
    """The local user's key, made when there is none.

    Raises:
        EngineError: others may read it, or it is someone else's, a link or cut short.
    """
    with suppress(FileExistsError):
        _make_key(path)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise EngineError(
            f"{path}: expected this user's key, found none that can be read ({error.strerror})"
        ) from error
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise EngineError(
                f"{path}: expected a key that is user {os.geteuid()}'s alone (mode 600), "
                f"found user {status.st_uid}'s with mode {stat.S_IMODE(status.st_mode):o}"
            )
        key = file.read(KEY_BYTES + 1)
    if len(key) != KEY_BYTES:
        raise EngineError(f"{path}: expected a key of {KEY_BYTES} bytes, found {len(key)}")
    return key


def _make_key(path: Path) -> None:
    """Draw a key unless there is one; a link to a finished file, so that nobody reads half of it.

    Raises:
        FileExistsError: there is one.
    """
    if path.is_symlink() or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    drawn = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    handle = os.open(drawn, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
        os.link(drawn, path)
    finally:
        drawn.unlink()
