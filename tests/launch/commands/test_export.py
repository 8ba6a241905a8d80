"""`gatort export` writes bundles that pass `gatort parity`, which refuses changed weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gatort.launch import cli
from gatort.runtime.bundle import load_manifest, verify
from gatort.sim.graphics import choose_gl


def test_a_bundle_is_exported_again_with_the_same_weights_and_passes_parity(
    bundle: Path, tmp_path: Path
) -> None:
    out, report = tmp_path / "again", tmp_path / "parity.json"
    assert cli.main(["export", str(bundle), "--out", str(out), "--name", "again"]) == 0
    old, new = load_manifest(bundle), verify(out)
    assert new.name == "again"
    assert new.files["model.safetensors"] == old.files["model.safetensors"]
    assert new.training == old.training
    assert cli.main(["parity", "--bundle", str(out), "--json", str(report)]) == 0
    record = json.loads(report.read_text())
    assert record["agrees"]
    assert record["wraps"] >= 3
    assert len(record["pairs"]) == 3


def test_a_rounded_bundle_is_smaller_says_so_and_drives_at_its_own_precision_alone(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rounded"
    assert cli.main(["export", str(bundle), "--precision", "int8", "--out", str(out)]) == 0
    assert verify(out).precision == "int8"
    # The exact graph reads its weights from the safetensors file; a rounded one holds its own.
    exact = [bundle / name for name in ("policy.onnx", "model.safetensors")]
    assert (out / "policy.onnx").stat().st_size < sum(path.stat().st_size for path in exact)
    drive = [
        "profile",
        "--bundle",
        str(out),
        "--robot",
        "scripted",
        "--flat-out",
        "--ticks",
        "20",
        "--budget-ms",
        "9999",
    ]
    assert cli.main([*drive, "--precision", "int8"]) == 0
    assert cli.main([*drive, "--precision", "int4"]) == 2
    assert "runs a bundle as it was exported" in capsys.readouterr().err


def profile_apart(bundle: Path, ticks: int) -> None:
    """Let the simulated arm's cameras be seen, in a process of its own: MuJoCo keeps to the GL
    library it first saw."""
    command = [
        sys.executable,
        "-m",
        "gatort",
        "profile",
        "--bundle",
        str(bundle),
        "--robot",
        "mujoco",
    ]
    run = [*command, "--flat-out", "--ticks", str(ticks), "--budget-ms", "60000"]
    tried = subprocess.run(run, capture_output=True, text=True, check=False)
    if choose_gl() is None:
        assert tried.returncode == 2
        assert "libegl1" in tried.stderr
    else:
        assert tried.returncode == 0, tried.stderr
        assert f"{ticks} ticks flat out, mujoco observations" in tried.stdout


@pytest.mark.slow
def test_an_untrained_policy_that_sees_through_cameras_exports_runs_and_passes_parity(
    tmp_path: Path,
) -> None:
    out = tmp_path / "cameras"
    assert (
        cli.main(["export", "--preset", "tiny", "--random-weights", "--cameras", "--out", str(out)])
        == 0
    )
    assert verify(out).spec.image_tokens == 32
    assert cli.main(["parity", "--bundle", str(out)]) == 0
    profile_apart(out, ticks=20)


def export_apart(preset: str, out: Path) -> float:
    """Export an untrained model in a process of its own; return the peak memory that it reports, in
    bytes."""
    command = [
        sys.executable,
        "-m",
        "gatort",
        "export",
        "--preset",
        preset,
        "--random-weights",
    ]
    done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, check=True)
    return (
        float(" ".join(done.stdout.split()).rpartition("peak memory ")[2].removesuffix(" GB")) * 1e9
    )


@pytest.mark.slow
def test_a_size_of_the_paper_has_its_frame_and_is_in_memory_once_while_it_is_exported(
    tmp_path: Path,
) -> None:
    peak_bytes = export_apart("gato-79m", tmp_path / "gato") - export_apart(
        "tiny", tmp_path / "tiny"
    )
    spec = verify(tmp_path / "gato").spec
    assert (spec.image_tokens, spec.observation_tokens, spec.action_tokens) == (128, 143, 8)
    assert spec.window_tokens <= 1024 < spec.window_tokens + spec.frame_tokens
    # One copy is 1.0. The largest tensor, a third of the model, is transposed while it is written.
    assert peak_bytes < 1.6 * (tmp_path / "gato" / "model.safetensors").stat().st_size
    profile_apart(tmp_path / "gato", ticks=2)


def test_paths_that_disagree_exit_with_1(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    from gatort.runtime.bundle import sha256_of, write_manifest

    weights = bundle / "model.safetensors"
    save_file({name: tensor * 1.01 for name, tensor in load_file(weights).items()}, weights)
    manifest = load_manifest(bundle)
    write_manifest(
        bundle,
        manifest.model_copy(update={"files": {**manifest.files, weights.name: sha256_of(weights)}}),
    )
    assert cli.main(["parity", "--bundle", str(bundle)]) == 1
    assert "the paths disagree" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--preset", "tinny"], "unknown preset 'tinny': expected one of tiny, stack,"),
        ([], "expected either a bundle to export again or --preset NAME"),
        (["nowhere", "--preset", "tiny"], "expected either a bundle"),
        (
            ["--preset", "tiny"],
            "'tiny' is a size, not a policy: confirm an untrained model with --random-weights",
        ),
        (["nowhere", "--random-weights"], "--random-weights and --cameras go with --preset"),
        (
            ["--preset", "gato-79m", "--random-weights", "--cameras"],
            "sees through two 128×128 cameras already",
        ),
        (["nowhere"], "nowhere/manifest.json: expected a bundle's manifest, found none"),
    ],
)
def test_an_export_of_nothing_or_of_something_unknown_is_refused(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", *arguments, "--out", str(tmp_path / "out")]) == 2
    assert sentence in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
