"""--engine: every engine of this machine drives, and the others are refused with the reason."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from tests.conftest import COMPILES, NVIDIA_DRIVER

from gatort.launch import cli
from gatort.policies.loading import CPU_ENGINES, SHIPPED_CAMERA_BUNDLE, PolicyOptions, load_policy
from gatort.runtime.errors import ConfigError, EngineError

SHIPPED = PolicyOptions(threads=1)
ON_THIS_CPU = [engine for engine in CPU_ENGINES if COMPILES or engine != "native"]


@pytest.mark.parametrize("engine", ON_THIS_CPU)
def test_run_and_trials_take_every_engine_of_the_cpu(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # Another test may remove an empty folder of outputs here.
    trials = tmp_path / "trials.json"
    one = ["--episodes", "1", "--workers", "1", "--json", str(trials)]
    assert cli.main(["trials", "--engine", engine, *one]) == 0
    assert json.loads(trials.read_text())["successes"] == 1

    run = tmp_path / "run.json"
    short = ["--seconds", "0.2", "--json", str(run), "--plot", str(tmp_path / "run.png")]
    # 1 where the machine paused, and ticks were refused.
    assert cli.main(["run", "--engine", engine, *short]) in (0, 1)
    assert json.loads(run.read_text())["ticks"] >= 1


def test_engines_on_the_cpu_act_alike() -> None:
    policies = [
        load_policy(SHIPPED.model_copy(update={"engine": engine})) for engine in ON_THIS_CPU
    ]
    rng = np.random.default_rng(0)
    for _ in range(3):
        values = tuple(
            rng.uniform(-0.5, 0.5, key.shape).astype(np.float32)
            for key in policies[0].spec.observations
        )
        first, *others = (policy.act(values).copy() for policy in policies)
        for other in others:
            np.testing.assert_array_equal(first, other)


@pytest.mark.native
@pytest.mark.parametrize(("precision", "bar"), [("fp32", 0.99), ("w8a8", 0.3)])
def test_parity_compares_the_engine_that_is_named(
    precision: str, bar: float, tmp_path: Path
) -> None:
    report = tmp_path / "parity.json"
    asked = ["--engine", "native", "--precision", precision, "--json", str(report)]
    assert cli.main(["parity", *asked]) == 0
    written = json.loads(report.read_text())
    assert written["precision"] == precision
    paths = {pair["second"]: pair["argmax_agreement"] for pair in written["pairs"]}
    assert paths[f"native {precision} ring"] >= bar


@pytest.mark.parametrize(
    ("engine", "precision", "sentence"),
    [
        ("onnx", "int8", "runs a bundle as it was exported, and .* is fp32"),
        ("native", "int8", "--engine native runs at fp32 or w8a8"),
        ("torch", "fp16", "--engine torch runs at fp32"),
        ("torch-cuda", "int4", "--engine torch-cuda runs at fp32 or fp16"),
        ("tensorrt-rtx", "fp32", "--engine tensorrt-rtx runs at fp16, int8 or int4"),
    ],
)
def test_a_precision_that_an_engine_does_not_run_at_is_refused(
    engine: str, precision: str, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_policy(PolicyOptions.model_validate({"engine": engine, "precision": precision}))


@pytest.mark.skipif(NVIDIA_DRIVER.exists(), reason="this machine has a GPU")
def test_a_missing_gpu_is_refused_with_the_engine_that_runs_without() -> None:
    sentence = "expected a CUDA device, PyTorch found none; --engine torch runs on the CPU"
    with pytest.raises(EngineError, match=sentence):
        load_policy(SHIPPED.model_copy(update={"engine": "torch-cuda"}))


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_missing_provider_is_refused_with_the_line_that_installs_it(
    provider: str,
) -> None:
    if (
        f"{provider.capitalize()}ExecutionProvider".replace("Cuda", "CUDA")
        in onnxruntime.get_available_providers()
    ):
        pytest.skip("this ONNX Runtime has it")
    with pytest.raises(
        EngineError, match=f"--engine onnx-{provider}: .*pip install onnxruntime-gpu"
    ):
        load_policy(SHIPPED.model_copy(update={"engine": f"onnx-{provider}"}))


def test_the_gpu_benchmarks_table_reads_what_profile_writes(tmp_path: Path) -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
    specification = importlib.util.spec_from_file_location("gpu_benchmark", path)
    assert specification is not None
    assert specification.loader is not None
    gpu = sys.modules["gpu_benchmark"] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(gpu)
    report = tmp_path / "profile.json"
    few = ["--ticks", "3", "--json", str(report)]
    # 1 where the machine paused longer than the budget: the report is written all the same.
    assert cli.main(["profile", "--robot", "scripted", "--roofline", *few]) in (0, 1)
    done, failed = (
        gpu.Row("stack", "onnx", "fp32", "greedy"),
        gpu.Row("stack", "tensorrt", "int8", "greedy"),
    )
    text = gpu.table({done: json.loads(report.read_text()), failed: {"error": "no a|b"}})
    assert "| stack | onnx | fp32 | greedy | 8.0 | paced |" in text
    assert "| stack | onnx | fp32 | greedy | 8.0 | flat out |" in text
    assert "no a\\|b" in text


def test_a_shipped_bundle_is_named_alone_unless_a_directory_of_that_name_lies_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = PolicyOptions.model_validate({"bundle": "stack_camera"}).bundle
    assert shipped == SHIPPED_CAMERA_BUNDLE
    for own in ("mine", "training", "runs/stack"):
        assert PolicyOptions.model_validate({"bundle": own}).bundle == Path(own)
    Path("stack_camera").mkdir()
    own_bundle = PolicyOptions.model_validate({"bundle": "stack_camera"}).bundle
    assert own_bundle == Path("stack_camera")
