"""`gatort demos` and `gatort train`: episodes are stored whole, and unusable ones are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gatort.launch import cli
from gatort.policies.training_events import EVENTS
from gatort.runtime.bundle import SuccessRecord, record_success
from gatort.runtime.demonstrations import load_episodes, load_manifest, write_manifest
from gatort.runtime.episode import Episode
from gatort.runtime.errors import DemonstrationError
from gatort.sim.graphics import INSTALL_HINT, choose_gl
from gatort.sim.tasks.stacking.specifications import STACK_SPEC


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demos") / "shown"
    assert cli.main(["demos", str(folder), "--episodes", "2", "--workers", "1"]) == 0
    return folder


@pytest.fixture
def demonstrations(shown: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(shown, tmp_path / "demos")


def scalars(folder: Path) -> dict[str, list[int]]:
    """Return the steps of each scalar, as TensorBoard itself reads them."""
    reader = EventAccumulator(str(folder)).Reload()
    return {tag: [each.step for each in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert cli.main([str(each) for each in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("gatort: ")
    return error


def test_demonstrations_are_episodes_with_a_manifest_that_counts_them(shown: Path) -> None:
    manifest = load_manifest(shown)
    episodes = [Episode.load(path, STACK_SPEC) for path in sorted(shown.glob("*.npz"))]
    assert [episode.seed for episode in episodes] == [manifest.first_seed, manifest.last_seed]
    assert manifest.ticks == sum(episode.ticks for episode in episodes)


def test_demonstrations_of_another_interface_are_refused_by_the_names_of_their_keys(
    shown: Path,
) -> None:
    first = STACK_SPEC.observations[0]
    other = STACK_SPEC.model_copy(update={"observations": (first,)})
    names = ", ".join(each.name for each in STACK_SPEC.observations)
    with pytest.raises(DemonstrationError) as refused:
        load_episodes(shown, other)
    assert str(refused.value) == (
        f"{shown}: observations: expected {first.name}, as in the other demonstrations, "
        f"found {names}; leave the folder out"
    )


def test_demonstrations_with_cameras_hold_pictures_of_the_size_asked_for(tmp_path: Path) -> None:
    if choose_gl() is None:
        pytest.skip(INSTALL_HINT)
    folder = tmp_path / "seen"
    flags = ["--cameras", "--pixels", "32", "--randomise-view", "--episodes", "1", "--workers", "1"]
    assert cli.main(["demos", str(folder), *flags]) == 0
    manifest = load_manifest(folder)
    assert manifest.driver.endswith("randomised view")
    (path,) = folder.glob("*.npz")
    front, wrist, *_ = Episode.load(path, manifest.spec).observations
    assert front.shape == wrist.shape == (manifest.ticks, 32, 32, 3)


def test_a_picture_that_cannot_be_cut_into_patches_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sentence = refusal(capsys, "demos", tmp_path / "demos", "--cameras", "--pixels", "40")
    assert "--pixels: expected a multiple of 16, found 40" in sentence


def test_a_task_without_cameras_has_none_to_demonstrate_with(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sentence = refusal(capsys, "demos", tmp_path / "demos", "--cameras", "--task", "reach")
    assert "--cameras: task 'reach' has no interface with cameras" in sentence


def test_layouts_of_trials_are_not_for_demonstrations(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "1000000" in refusal(
        capsys, "demos", tmp_path / "demos", "--episodes", "2", "--seed", "5000"
    )


def test_a_demonstration_file_that_was_cut_in_half_is_refused_by_its_name(
    demonstrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = min(demonstrations.glob("*.npz"))
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
    sentence = refusal(
        capsys, "train", demonstrations, "--out", tmp_path / "out", "--preset", "tiny"
    )
    assert (
        f"{half.name}: expected an episode as a whole NPZ file, found one that cannot be read"
        in sentence
    )


def test_an_unknown_preset_is_refused_with_the_closest(
    demonstrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = refusal(
        capsys, "train", demonstrations, "--out", tmp_path / "out", "--preset", "stak"
    )
    assert "unknown preset 'stak'" in sentence
    assert "did you mean 'stack'?" in sentence
    assert not (tmp_path / "out").exists()


def test_a_sequence_shorter_than_the_window_is_refused_with_its_flag(
    demonstrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--out", tmp_path / "out", "--preset", "tiny", "--sequence-frames", "1"]
    assert refusal(capsys, "train", demonstrations, *flags) == (
        "gatort: --sequence-frames: expected at least the window of 2, found 1\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_folder_without_demonstrations_is_refused_with_the_command_that_makes_some(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "make some with `gatort demos`" in refusal(
        capsys, "train", tmp_path, "--out", tmp_path / "out"
    )


@pytest.mark.slow
def test_a_policy_is_trained_from_demonstrations_to_a_bundle_that_drives(
    demonstrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = [
        "--preset",
        "tiny",
        "--steps",
        "4",
        "--batch-sequences",
        "2",
        "--rounds",
        "1",
        "--round-episodes",
        "1",
    ]
    options += ["--randomise"]
    train = ["train", str(demonstrations), "--out", str(out), "--workers", "1", *options]
    assert cli.main(train) == 0
    assert scalars(out / EVENTS) == {
        "loss": [1, 2, 3, 4],
        "tokens_per_s": [1, 2, 3, 4],
        "validation_loss": [2, 4],
        "rollout_success": [2],
    }
    drive = ["--flat-out", "--ticks", "3", "--budget-ms", "5000"]
    assert cli.main(["profile", "--bundle", str(out / "bundle"), *drive]) == 0
    manifest = (out / "bundle" / "manifest.json").read_bytes()
    assert str(load_manifest(out / "round0").first_seed).encode() in manifest
    assert b"rollouts in randomised physics" in manifest
    assert load_manifest(out / "round0").driver.endswith("randomised physics")
    record_success(
        out / "bundle",
        SuccessRecord(trials=1, first_seed=5000, successes=1, rate=1.0, wilson_95=(0.2, 1.0)),
    )
    recorded = (out / "bundle" / "manifest.json").read_bytes()
    capsys.readouterr()
    assert cli.main(train) == 0  # It is finished: the same command again changes nothing.
    assert capsys.readouterr().out.startswith("nothing to do: ")
    assert (out / "bundle" / "manifest.json").read_bytes() == recorded != manifest


def test_a_training_does_not_write_into_a_folder_with_other_files(
    demonstrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").touch()
    sentence = refusal(capsys, "train", demonstrations, "--out", tmp_path)
    assert "expected a new or empty folder, or one with checkpoint.safetensors" in sentence


def test_a_finished_training_refuses_fewer_steps(
    demonstrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    sizes = ["--preset", "tiny", "--batch-sequences", "2", "--rounds", "0"]
    assert cli.main(["train", str(demonstrations), "--out", str(out), *sizes, "--steps", "2"]) == 0
    capsys.readouterr()
    sentence = refusal(capsys, "train", demonstrations, "--out", out, *sizes, "--steps", "1")
    assert sentence.startswith("gatort: --steps 1: expected at least 2, the steps of ")


def test_a_folder_of_other_episodes_is_not_added_to(
    demonstrations: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = refusal(capsys, "demos", demonstrations, "--episodes", "2", "--noise-nm", "3")
    assert "begun with expert, noise 3 N·m" in sentence
    assert "found expert, noise 0, 1, 2, 4 N·m; choose another folder" in sentence
    sentence = refusal(capsys, "demos", demonstrations, "--episodes", "2", "--randomise")
    assert "begun with expert, noise 0, 1, 2, 4 N·m, randomised physics" in sentence


def test_rollouts_need_a_task_when_the_demonstrations_name_none(
    demonstrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = load_manifest(demonstrations)
    write_manifest(demonstrations, manifest.model_copy(update={"task": None}))
    sentence = refusal(capsys, "train", demonstrations, "--out", tmp_path / "out")
    assert "give one with --task, or --rounds 0" in sentence


def test_demonstrations_of_another_task_than_the_one_named_are_refused(
    demonstrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("train", demonstrations, "--out", tmp_path / "out", "--task", "reach")
    assert "--task reach: the demonstrations are of stacking; leave it out" in refusal(
        capsys, *arguments
    )
