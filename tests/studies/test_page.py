"""The page of a study: whole, safe to open, and honest about amendments."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.studies.outcomes import outcome

from gatort.studies.design import read_design
from gatort.studies.findings import find
from gatort.studies.page import page
from gatort.studies.record import StudyRecord
from gatort.studies.schedule import schedule

VOID = {"meta", "line", "circle", "polyline"}


class Reader(HTMLParser):
    """Reads a page, and keeps its text and the tags that are open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [str(value) for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID
        assert attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


def read(study: Path) -> Reader:
    record = StudyRecord(study)
    reader = Reader()
    reader.feed(page(record, find(record)))
    return reader


@pytest.fixture
def finished(study: Path) -> Path:
    """A study in which only the reference succeeds."""
    text = study.read_text().replace("Is a low", "Is <script>alert(1)</script> a low")
    study.write_text(text.replace("layouts = 3", "layouts = 6"), encoding="utf-8")
    design = read_design(study)
    record = StudyRecord(study)
    record.lock(design)
    for slot in schedule(design):
        record.add(slot, outcome(succeeded=slot.variant == "likeliest"))
    return study


def test_every_tag_is_closed_and_nothing_is_loaded(finished: Path) -> None:
    reader = read(finished)

    assert not reader.open
    assert not reader.links


def test_the_answer_stands_first_and_text_of_the_researcher_stays_text(finished: Path) -> None:
    text = read(finished).text

    assert "Is <script>alert(1)</script> a low temperature better?" in text
    assert "drawn is worse than likeliest: −100.0 points (−100.0 to −51.5), p = 0.00049." in text
    assert text.index("drawn is worse") < text.index("Success")


def test_a_study_that_has_just_been_locked_has_a_page(study: Path) -> None:
    StudyRecord(study).lock(read_design(study))

    assert "No answer yet on drawn and likeliest, after 0 of 12 trials." in read(study).text


def test_a_late_amendment_is_said_before_the_figures(finished: Path) -> None:
    text = finished.read_text().replace("layouts = 6", "layouts = 7")
    finished.write_text(text, encoding="utf-8")
    StudyRecord(finished).amend(read_design(finished), "one more")

    text = read(finished).text

    assert "The study was amended after 24 trials (layouts)." in text
    assert text.index("amended after") < text.index("Success")
    assert "one more" in text


def test_a_sequential_study_shows_its_evidence(finished: Path) -> None:
    text = finished.read_text() + '\n[analysis]\ntest = "sequential"\n'
    other = finished.with_name("other.toml")
    other.write_text(text, encoding="utf-8")
    design = read_design(other)
    record = StudyRecord(other)
    record.lock(design)
    for slot in schedule(design)[:10]:
        record.add(slot, outcome(succeeded=slot.variant == "likeliest"))

    assert "Evidence on drawn, layout by layout" in read(other).text
