"""The record of a study: a chain of lines that nobody changes unnoticed, and that a kill spares."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.studies.outcomes import outcome

from gatort.policies.loading import SHIPPED_BUNDLE
from gatort.runtime.bundle import MANIFEST_FILE
from gatort.runtime.errors import ConfigError, OutputError
from gatort.studies.design import Design, read_design
from gatort.studies.findings import find
from gatort.studies.record import StudyRecord, held_record
from gatort.studies.schedule import Slot, schedule


@pytest.fixture
def record(study: Path) -> StudyRecord:
    """A locked study with two trials."""
    record = StudyRecord(study)
    design = read_design(study)
    record.lock(design)
    for slot in schedule(design)[:2]:
        record.add(slot, outcome(succeeded=True))
    return record


def change(study: Path, old: str, new: str) -> None:
    text = study.read_text()
    assert old in text
    study.write_text(text.replace(old, new), encoding="utf-8")


def test_a_record_that_is_read_again_is_the_one_that_was_written(
    record: StudyRecord, study: Path
) -> None:
    again = StudyRecord(study)

    assert again.lines == record.lines
    assert again.lock_sha256 == record.lock_sha256
    assert [slot.number for slot in again.due()] == list(range(2, 12))


def test_a_line_that_a_kill_cut_short_is_cut_off(record: StudyRecord, study: Path) -> None:
    whole = record.path.read_bytes()
    record.path.write_bytes(whole[:-5])

    assert [each.number for each in StudyRecord(study).trials] == [0]
    assert record.path.read_bytes() == whole[:-5]  # Another process may be writing it.
    with held_record(study) as held:
        assert [each.number for each in held.trials] == [0]
    assert record.path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:-1])


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            lambda lines: [lines[0], lines[1].replace(b"true", b"false"), lines[2]],
            (
                "line 3: expected the hash of the line before it, found another; a line was "
                "changed, removed or inserted"
            ),
        ),
        (
            lambda lines: [lines[0], lines[2]],
            (
                "line 2: expected the hash of the line before it, found another; a line was "
                "changed, removed or inserted"
            ),
        ),
        (
            lambda lines: [lines[0], b"{}", lines[2]],
            "line 2: expected an entry of a study, found another text",
        ),
    ],
)
def test_a_changed_line_is_found(
    record: StudyRecord,
    study: Path,
    damage: Callable[[list[bytes]], list[bytes]],
    sentence: str,
) -> None:
    lines = record.path.read_bytes().splitlines()
    record.path.write_bytes(b"\n".join(damage(lines)) + b"\n")

    with pytest.raises(ConfigError) as caught:
        StudyRecord(study)

    assert str(caught.value) == f"{record.path}, {sentence}"


def test_a_void_trial_is_due_again_and_counts_nowhere(record: StudyRecord, study: Path) -> None:
    slot = record.due()[0]
    record.add(slot, None, "the person stood in the picture")

    again = StudyRecord(study)

    assert again.due()[0] == slot
    figures = {each.name: each for each in find(again).variants}
    assert figures[slot.variant].void == 1
    assert sum(each.trials for each in figures.values()) == 2


def test_a_study_is_locked_once(record: StudyRecord, study: Path) -> None:
    with pytest.raises(ConfigError, match="expected a study that is not locked, found one"):
        record.lock(read_design(study))


def test_a_study_that_changed_since_its_lock_does_not_run(record: StudyRecord, study: Path) -> None:
    change(study, "layouts = 3", "layouts = 4")

    with pytest.raises(ConfigError, match="found another state of: layouts; put it back"):
        record.require_unchanged(read_design(study))


def test_a_bundle_that_moved_is_the_same_and_one_that_changed_is_not(
    record: StudyRecord, study: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(SHIPPED_BUNDLE, tmp_path / "copy")
    change(study, 'bundle = "stack"\ntemperature', 'bundle = "copy"\ntemperature')
    record.require_unchanged(read_design(study))

    (copy / MANIFEST_FILE).write_text((copy / MANIFEST_FILE).read_text() + " ", encoding="utf-8")
    with pytest.raises(ConfigError, match="found another state of: the bundle of drawn"):
        record.require_unchanged(read_design(study))


def test_an_amendment_is_recorded_with_its_reason_and_lets_the_study_go_on(
    record: StudyRecord, study: Path
) -> None:
    change(study, "layouts = 3", "layouts = 5")

    entry = record.amend(read_design(study), "the robot is free until Friday")

    assert entry.changed == ("layouts",)
    assert entry.trials == 2
    assert len(StudyRecord(study).due()) == 18
    StudyRecord(study).require_unchanged(read_design(study))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("temperature = 0.5", "temperature = 0.4", "variants: expected as it was locked"),
        ("delay_ms = 8.0", "delay_ms = 9.0", "conditions: expected as it was locked"),
        ("layouts = 3", "layouts = 3\nfirst_seed = 9", "first_seed: expected as it was locked"),
    ],
)
def test_what_trials_were_run_with_cannot_be_amended(
    record: StudyRecord, study: Path, old: str, new: str, sentence: str
) -> None:
    change(study, old, new)

    with pytest.raises(ConfigError, match=sentence):
        record.amend(read_design(study), "better so")


def test_an_amendment_without_a_change_is_refused(record: StudyRecord, study: Path) -> None:
    with pytest.raises(ConfigError, match="expected a change of the study"):
        record.amend(read_design(study), "none")


def test_two_processes_do_not_run_one_study(record: StudyRecord, study: Path) -> None:
    with (
        held_record(study),
        pytest.raises(OutputError, match="found another process"),
        held_record(study),
    ):
        pass
    assert StudyRecord(study).lines == record.lines


def test_a_study_that_could_not_be_locked_leaves_no_record(study: Path) -> None:
    with held_record(study) as held:
        assert not held.is_locked
    assert not held.path.exists()


@pytest.mark.parametrize("kind", ["variants", "conditions"])
def test_another_order_is_a_change_because_it_gives_another_reference_and_schedule(
    record: StudyRecord, study: Path, kind: str
) -> None:
    design = read_design(study)
    turned = design.model_copy(update={kind: dict(reversed(getattr(design, kind).items()))})

    with pytest.raises(ConfigError, match=f"found another state of: {kind}; put it back"):
        record.require_unchanged(turned)


def test_trials_that_the_schedule_would_number_otherwise_are_refused(
    record: StudyRecord, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_schedule(design: Design) -> list[Slot]:
        return schedule(design.model_copy(update={"order_seed": 7}))

    monkeypatch.setattr("gatort.studies.record.schedule", other_schedule)

    with pytest.raises(ConfigError, match="line 2: expected the trial that the schedule has at"):
        StudyRecord(study)


def test_an_amendment_counts_the_void_trials_before_it_too(
    record: StudyRecord, study: Path
) -> None:
    record.add(record.due()[0], None, "the person stood in the picture")
    change(study, "layouts = 3", "layouts = 5")

    assert record.amend(read_design(study), "the robot is free until Friday").trials == 3
