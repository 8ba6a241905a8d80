from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gatort.runtime.bundle import Manifest, SuccessRecord, TrainingRecord
from gatort.runtime.engines import cache as engine_cache
from gatort.runtime.engines import gpu
from gatort.runtime.engines.cache import (
    EngineCache,
    EngineKey,
    EngineRecord,
    builder_version,
    bundle_hash,
    load_engine,
)
from gatort.runtime.engines.gpu import Gpu
from gatort.runtime.errors import ConfigError, DeviceError, EngineError, MissingDependency
from gatort.runtime.spec import ModelDims, PolicySpec

PLAN = b"native code" * 100


@pytest.fixture
def manifest(spec: PolicySpec, dims: ModelDims) -> Manifest:
    training = TrainingRecord(recipe="none", demonstrations="none", parameters=1, steps=0)
    return Manifest(
        name="m", spec=spec, model=dims, files={"policy.onnx": "0" * 64}, training=training
    )


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines", tmp_path / "config" / "engine.key")


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that version 1 of tensorrt-rtx, no tensorrt and an RTX 3090 are here."""
    monkeypatch.setattr(
        engine_cache, "builder_version", {"tensorrt-rtx": "1", "tensorrt": None}.get
    )
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(gpu, "present_gpu", lambda: Gpu("NVIDIA GeForce RTX 3090", "sm86"))


def key(manifest: Manifest, **changes: str) -> EngineKey:
    made = EngineKey.of(manifest, "rtx3090", "int8", "tensorrt-rtx")
    return EngineKey.model_validate(made.model_dump() | changes)


def record(of: EngineKey, plan: bytes = PLAN) -> EngineRecord:
    return EngineRecord(
        key=of,
        name="m",
        sha256=hashlib.sha256(plan).hexdigest(),
        size_bytes=len(plan),
        weights_bytes=1000,
        build_s=1.0,
        peak_memory_bytes=1,
        layers=400,
        fused_layers=1,
        compared_on="",
        agreements=(),
    )


@pytest.fixture
def stored(cache: EngineCache, manifest: Manifest) -> EngineRecord:
    made = record(key(manifest))
    cache.store(made, PLAN)
    return made


def test_an_engine_comes_back_as_it_was_stored(
    cache: EngineCache, manifest: Manifest, stored: EngineRecord
) -> None:
    assert load_engine(manifest, "int8", cache=cache) == (stored, PLAN)
    assert cache.find(stored.key) == stored
    assert [name for name, _ in cache.records()] == [stored.key.stem]
    assert {path.suffix for path in cache.folder.iterdir()} == {".engine", ".json"}


def test_an_engine_that_was_not_built_is_answered_with_the_command_that_builds_it(
    cache: EngineCache, manifest: Manifest
) -> None:
    assert cache.find(key(manifest)) is None
    with pytest.raises(
        EngineError, match="gatort compile BUNDLE --target this-gpu --precision fp16"
    ):
        load_engine(manifest, "fp16", cache=cache)


def test_the_error_for_a_missing_builder_names_it(cache: EngineCache, manifest: Manifest) -> None:
    with pytest.raises(MissingDependency, match="tensorrt is not installed"):
        load_engine(manifest, "fp16", "tensorrt", cache=cache)


@pytest.mark.parametrize(
    "change",
    [{"precision": "int4"}, {"builder_version": "2"}, {"bundle": "1" * 64}, {"gpu": "sm89"}],
)
def test_an_engine_answers_to_its_own_key_only(
    cache: EngineCache, manifest: Manifest, stored: EngineRecord, change: dict[str, str]
) -> None:
    assert cache.find(key(manifest, **change)) is None


def test_one_changed_byte_of_the_engine_is_refused(
    cache: EngineCache, manifest: Manifest, stored: EngineRecord
) -> None:
    path = cache.folder / f"{stored.key.stem}.engine"
    path.write_bytes(PLAN[:-1] + b"!")
    with pytest.raises(EngineError, match="changed since it was built"):
        load_engine(manifest, "int8", cache=cache)


def test_a_record_that_was_changed_to_vouch_for_another_engine_is_refused(
    cache: EngineCache, manifest: Manifest, stored: EngineRecord
) -> None:
    path = cache.folder / f"{stored.key.stem}.json"
    sealed = json.loads(path.read_text())
    sealed["record"]["sha256"] = record(stored.key, b"other code").sha256
    path.write_text(json.dumps(sealed))
    (cache.folder / f"{stored.key.stem}.engine").write_bytes(b"other code")
    with pytest.raises(EngineError, match="changed since it was written"):
        load_engine(manifest, "int8", cache=cache)


def test_a_record_sealed_with_another_key_is_refused(
    cache: EngineCache, manifest: Manifest, stored: EngineRecord, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match="another user's key"):
        load_engine(
            manifest, "int8", cache=EngineCache(cache.folder, tmp_path / "other" / "engine.key")
        )


def test_a_genuine_engine_under_another_name_is_refused(
    cache: EngineCache, manifest: Manifest, stored: EngineRecord
) -> None:
    wanted = key(manifest, precision="fp16")
    for ending in (".engine", ".json"):
        (cache.folder / f"{stored.key.stem}{ending}").rename(
            cache.folder / f"{wanted.stem}{ending}"
        )
    with pytest.raises(EngineError, match="expected the record of"):
        load_engine(manifest, "fp16", cache=cache)
    assert [type(found) for _, found in cache.records()] == [EngineError]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"record": 1, "hmac": "x"}'])
def test_a_file_that_is_no_record_is_refused(
    cache: EngineCache, manifest: Manifest, stored: EngineRecord, content: bytes
) -> None:
    (cache.folder / f"{stored.key.stem}.json").write_bytes(content)
    with pytest.raises(EngineError, match="expected an engine's record"):
        load_engine(manifest, "int8", cache=cache)


def test_only_its_owner_may_read_a_new_key(
    cache: EngineCache, stored: EngineRecord, tmp_path: Path
) -> None:
    path = tmp_path / "config" / "engine.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(path.read_bytes()) == 32
    assert [each.name for each in path.parent.iterdir()] == ["engine.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
def test_a_key_that_others_may_read_or_write_is_refused(
    cache: EngineCache, manifest: Manifest, stored: EngineRecord, tmp_path: Path, mode: int
) -> None:
    (tmp_path / "config" / "engine.key").chmod(mode)
    with pytest.raises(EngineError, match=f"mode {mode:o}"):
        load_engine(manifest, "int8", cache=cache)


def test_another_users_key_is_refused(
    cache: EngineCache, manifest: Manifest, stored: EngineRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(EngineError, match="expected a key that only user"):
        load_engine(manifest, "int8", cache=cache)


def test_a_key_behind_a_link_or_cut_short_is_refused(
    cache: EngineCache, manifest: Manifest, stored: EngineRecord, tmp_path: Path
) -> None:
    path = tmp_path / "config" / "engine.key"
    moved = path.rename(path.with_name("moved"))
    path.symlink_to(moved)
    with pytest.raises(EngineError, match="expected this user's key"):
        load_engine(manifest, "int8", cache=cache)
    path.unlink()
    path.touch(mode=0o600)
    with pytest.raises(EngineError, match="expected a key of 32 bytes, found 0"):
        load_engine(manifest, "int8", cache=cache)


def test_pruning_keeps_the_engines_that_can_be_loaded(
    cache: EngineCache, manifest: Manifest, stored: EngineRecord
) -> None:
    older, broken = key(manifest, builder_version="0"), key(manifest, precision="int4")
    for each in (older, broken):
        cache.store(record(each), PLAN)
    (cache.folder / f"{broken.stem}.engine").write_bytes(b"cut short")
    ended = subprocess.Popen(["true"])
    ended.wait()
    (cache.folder / f"left.engine.{ended.pid}.partial").touch()
    removed = cache.prune()
    assert set(removed) == {older.stem, broken.stem, f"left.engine.{ended.pid}"}
    assert load_engine(manifest, "int8", cache=cache)[1] == PLAN
    assert cache.prune(everything=True) == [stored.key.stem]
    assert list(cache.folder.iterdir()) == []


def test_pruning_leaves_a_file_that_a_living_process_is_writing(
    cache: EngineCache, stored: EngineRecord
) -> None:
    (cache.folder / f"half.engine.{os.getpid()}.partial").touch()
    assert cache.prune() == []
    assert len(list(cache.folder.iterdir())) == 3


def test_this_gpu_gets_no_engine_of_another_gpu(
    cache: EngineCache, manifest: Manifest, stored: EngineRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "present_gpu", lambda: Gpu("NVIDIA GeForce RTX 4090", "sm89"))
    with pytest.raises(
        EngineError, match="holds no engine of this bundle, int8 for sm89 by tensorrt-rtx 1"
    ):
        load_engine(manifest, "int8", cache=cache)
    assert load_engine(manifest, "int8", target="rtx3090", cache=cache) == (stored, PLAN)


def test_plain_tensorrt_names_its_engines_by_this_machines_card(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_cache, "builder_version", lambda _: "11.0")
    assert EngineKey.of(manifest, "this-gpu", "fp16", "tensorrt").gpu == "nvidia-geforce-rtx-3090"
    with pytest.raises(ConfigError, match="take --target this-gpu"):
        EngineKey.of(manifest, "rtx3090", "fp16", "tensorrt")


def test_the_error_on_a_machine_without_a_gpu_says_so(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    if runtime.cudaGetDeviceCount()[1]:
        pytest.skip("has a GPU")
    monkeypatch.undo()
    with pytest.raises(DeviceError, match="expected an NVIDIA "):
        gpu.present_gpu()


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-cu13", "tensorrt-cu12"])
def test_a_builder_is_found_under_each_name_of_its_distribution(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = tmp_path / f"{name.replace('-', '_')}-11.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 11.0\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert builder_version("tensorrt") == "11.0"
    assert builder_version("tensorrt-rtx") is None


def test_an_empty_cache_can_be_listed_and_pruned(cache: EngineCache) -> None:
    assert list(cache.records()) == []
    assert cache.prune() == []


def test_a_failed_write_leaves_the_older_engine(
    cache: EngineCache, manifest: Manifest, stored: EngineRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_self: Path, _target: Path) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        cache.store(record(stored.key, b"newer"), b"newer")
    assert load_engine(manifest, "int8", cache=cache) == (stored, PLAN)
    assert len(list(cache.folder.iterdir())) == 2


def test_the_hash_of_a_bundle_leaves_out_its_success_rate(
    manifest: Manifest,
) -> None:
    success = SuccessRecord(trials=1, first_seed=0, successes=1, rate=1.0, wilson_95=(0.2, 1.0))
    assert bundle_hash(manifest.model_copy(update={"success": success})) == bundle_hash(manifest)
    heads = manifest.model.model_copy(update={"heads": manifest.model.heads * 2})
    spec = manifest.spec.model_copy(update={"control_hz": manifest.spec.control_hz * 2})
    for changed in ({"files": {"policy.onnx": "1" * 64}}, {"model": heads}, {"spec": spec}):
        assert bundle_hash(manifest.model_copy(update=changed)) != bundle_hash(manifest)


def test_a_relative_cache_home_is_ignored_as_the_specification_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "somewhere")
    assert EngineCache().folder == Path.home() / ".cache" / "gatort" / "engines"
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert EngineCache().folder == Path("/somewhere/gatort/engines")
