"""`gatort compile` builds an engine once, keeps it, lists it, and refuses a changed one."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from gatort.launch.cli import main
from gatort.runtime.bundle import TrainingRecord, load_manifest, write_manifest
from gatort.runtime.engines.cache import EngineCache, load_engine
from gatort.sim.tasks.stacking.specifications import STACK_SPEC


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained policy for the simulated arm, with four heads of 32, for which TensorRT has an
    attention kernel."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("tensorrt_rtx")
    from gatort.export.bundle_writer import write_bundle
    from gatort.policies.model import Gato
    from gatort.policies.presets import preset

    torch.manual_seed(0)
    model = Gato(STACK_SPEC, preset("tiny").model_copy(update={"heads": 4, "head_size": 32}))
    training = TrainingRecord(
        recipe="none", demonstrations="none", parameters=model.parameters_total, steps=0
    )
    directory = tmp_path_factory.mktemp("small") / "bundle"
    write_bundle(directory, "small", model, training, task="stacking")
    return directory


def test_a_bundle_is_compiled_once_and_then_found(
    small_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "compile",
        str(small_bundle),
        "--precision",
        "int8",
        "--json",
        str(tmp_path / "report.json"),
    ]
    assert main(arguments) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["key"]["precision"] == "int8"
    assert report["agreements"] == []  # nothing to drive an untrained policy with
    assert report["ratio"] == pytest.approx(report["size_bytes"] / report["weights_bytes"])
    assert "small, int8 for sm86 by tensorrt-rtx" in capfd.readouterr().out
    record, plan = load_engine(load_manifest(small_bundle), "int8", target="rtx3090")
    assert len(plan) == record.size_bytes

    assert main(arguments) == 0
    assert "built before, and unchanged since" in capfd.readouterr().out
    assert load_engine(load_manifest(small_bundle), "int8", target="rtx3090") == (record, plan)

    assert main(["compile", "--list"]) == 0
    assert record.key.stem in capfd.readouterr().out
    assert {path.name for path in (tmp_path / "cache" / "gatort").iterdir()} == {"engines"}


def test_a_changed_engine_is_refused_listed_as_such_and_pruned(
    small_bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compile", str(small_bundle), "--trials", "0"]
    assert main(arguments) == 0
    engine = next(EngineCache().folder.glob("*.engine"))
    engine.write_bytes(engine.read_bytes()[:-1] + b"!")
    assert main(arguments) == 2
    assert "changed since it was built" in capfd.readouterr().err
    assert main(["compile", "--list"]) == 1
    assert "changed since it was built" in capfd.readouterr().out
    assert main(["compile", "--prune"]) == 0
    assert f"removed {engine.stem}" in capfd.readouterr().out
    assert main(["compile", "--list"]) == 0
    assert "no engines in" in capfd.readouterr().out


def test_the_engine_of_a_trained_policy_is_compared_with_fp32_on_trials_that_the_policy_drives(
    small_bundle: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("mujoco")
    monkeypatch.setattr("gatort.sim.tasks.stacking.task.Stacking.seconds", 0.5)
    trained = shutil.copytree(small_bundle, tmp_path / "trained")
    manifest = load_manifest(trained)
    write_manifest(
        trained,
        manifest.model_copy(update={"training": manifest.training.model_copy(update={"steps": 1})}),
    )
    report = tmp_path / "report.json"
    arguments = ["compile", str(trained), "--precision", "int4"]
    assert main([*arguments, "--trials", "1", "--json", str(report)]) == 0
    found = json.loads(report.read_text())
    assert found["format_version"] == 2
    assert found["compared_on"] == "1 simulated trial at validation layouts"
    assert {each["graph"]: each["tokens"] for each in found["agreements"]} == {
        "the engine's graph": 80,
        "its weights in fp32 arithmetic": 80,
    }
    for each in found["agreements"]:
        assert each["same_argmax"] > 0.2
    printed = capfd.readouterr().out

    assert main([*arguments, "--trials", "1"]) == 0
    again = capfd.readouterr().out
    assert "built before, and unchanged since" in again
    assert "on 1 simulated trial at validation layouts" in again
    assert printed.strip() in again


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "expected a bundle to compile, --list or --prune"),
        (["--all"], "--all: expected --prune with it, found none"),
        (["nowhere"], "expected a bundle's manifest"),
        (["nowhere", "--precision", "int3"], "int3"),
        (["nowhere", "--target", "h100"], "rtx3090"),
        (["nowhere", "--trials", "1001"], "1000"),
    ],
)
def test_an_invalid_request_is_refused_in_a_sentence(
    arguments: list[str], sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile", *arguments]) == 2
    assert sentence in capfd.readouterr().err


def test_a_bundle_that_is_rounded_already_is_refused(
    small_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rounded = shutil.copytree(small_bundle, tmp_path / "rounded")
    write_manifest(rounded, load_manifest(rounded).model_copy(update={"precision": "int8"}))
    assert main(["compile", str(rounded)]) == 2
    assert "expected a bundle in fp32, found int8" in capfd.readouterr().err


def test_an_absent_builder_is_named_with_its_install_line(
    small_bundle: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatort.runtime.engines.cache.builder_version", lambda _: None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    assert main(["compile", str(small_bundle)]) == 2
    assert "pip install 'gatort[tensorrt]'" in capfd.readouterr().err


def test_a_machine_without_a_gpu_is_refused_as_the_target(
    small_bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    if runtime.cudaGetDeviceCount()[1]:
        pytest.skip("has a GPU")
    assert main(["compile", str(small_bundle), "--target", "this-gpu"]) == 2
    assert "expected an NVIDIA " in capfd.readouterr().err
