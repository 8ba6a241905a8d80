"""The journal keeps finished trials, whatever cut its last line short."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from gatort.policies.loading import SHIPPED_BUNDLE, PolicyOptions
from gatort.runtime.bundle import Manifest, SuccessRecord, load_manifest
from gatort.runtime.errors import ConfigError
from gatort.sim.trials.journal import Journal, Trial, _sources


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return load_manifest(SHIPPED_BUNDLE)


@pytest.fixture
def journal(manifest: Manifest, tmp_path: Path) -> Journal:
    return Journal(tmp_path / "t.json", manifest, PolicyOptions())


def trial(seed: int) -> Trial:
    return Trial(
        seed=seed,
        succeeded=True,
        seconds=8.0,
        ticks=160,
        refusal=None,
        refused=0,
        dropped=0,
        lost=0,
        reached_s={"reached": 2.0},
        sparc=-3.0,
        policy_us=(1000, 1100),
    )


def test_a_journal_without_the_end_of_its_last_line_keeps_the_others(journal: Journal) -> None:
    for seed in range(3):
        journal.append(trial(seed))
    journal.path.write_text(journal.path.read_text()[:-20])
    assert journal.read() == [trial(0), trial(1)]
    journal.append(trial(7))
    assert journal.read() == [trial(0), trial(1), trial(7)]


def test_a_journal_that_ends_inside_a_letter_keeps_the_other_trials_even_on_a_full_disk(
    journal: Journal,
) -> None:
    journal.append(trial(0))
    journal.append(trial(1).model_copy(update={"refusal": "expected 3 N·m"}))
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole[: whole.index("·".encode()) + 1])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        assert journal.read() == [trial(0)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert journal.path.read_bytes() == whole[: whole.index(b"\n") + 1]


def test_the_journals_name_depends_on_all_code_of_robot_and_runtime() -> None:
    assert {"native.c", "loop.py", "scene.xml"} <= {source.name for source in _sources()}


def test_another_policy_or_temperature_has_another_journal(
    manifest: Manifest, journal: Journal, tmp_path: Path
) -> None:
    report = tmp_path / "t.json"
    retrained = manifest.model_copy(update={"files": {"policy.onnx": "0" * 64}})
    paths = {
        journal.path,
        Journal(report, manifest, PolicyOptions(temperature=0.5)).path,
        Journal(report, retrained, PolicyOptions()).path,
    }
    assert len(paths) == 3


def test_a_measured_success_rate_and_another_directory_keep_the_journal(
    manifest: Manifest, journal: Journal, tmp_path: Path
) -> None:
    success = SuccessRecord(trials=2, first_seed=0, successes=1, rate=0.5, wilson_95=(0.1, 0.9))
    measured = manifest.model_copy(update={"success": success})
    moved = PolicyOptions(bundle=tmp_path)
    assert Journal(tmp_path / "t.json", measured, moved).path == journal.path


def test_a_journal_that_holds_something_else_is_refused(journal: Journal) -> None:
    journal.path.write_text('{"seed": 1}\n')
    with pytest.raises(ConfigError, match=r"expected a list of trials.*remove it to start again"):
        journal.read()
