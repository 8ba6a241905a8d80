"""The check of the English refuses sentences that must be decoded and lets plain ones pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from checks.english import check_passage, main, words_of
from checks.figures import compare, measure
from checks.prose import Kind, Passage, read_markdown, read_python
from checks.sources import ROOT

REFUSED: list[tuple[Kind, str, str]] = [
    ("field", "Of the bundle.", "opening"),
    ("function", "What the ticks cost.", "opening"),
    ("comment", "Whoever wrote the bundle chose that name.", "opening"),
    ("field", "For who does not watch.", "opening"),
    ("text", "Nothing but `arm` leaves it.", "opening"),
    ("field", "The same of the other arm.", "opening"),
    ("parameter", "how many trials run.", "opening"),
    ("function", "Whether the arm has stopped.", "fragment"),
    ("field", "When the tick should have begun.", "fragment"),
    ("field", "That it holds.", "fragment"),
    ("error", "expected a bundle, found what is not one", "free relative"),
    ("name", "it keeps what was recorded", "free relative"),
    ("error", "the robot speaks only with keys, or is none", "construction"),
    ("page", "The operator arms it when he is ready.", "pronoun"),
    ("function", "Return the version, or none.", "none"),
    ("field", "Largest change; none means no limit.", "none"),
    ("text", " ".join(["word"] * 26) + ".", "length"),
]
PLAIN: list[tuple[Kind, str]] = [
    ("field", "Number of messages lost before they reached the file."),
    ("function", "Return whether the arm has stopped."),
    ("function", "Compute the frame Jacobian :math:`J(q)`, expressed in the body frame."),
    ("text", "What does it cost?"),
    ("text", "The same observation gives the same tokens."),
    ("text", "None of the three recordings is complete, and there is none for the hand."),
    ("page", "Of course, a hardware emergency stop is required."),
    ("page", "How to add a robot is described in `docs/robots.md`."),
    ("text", "The scheme, the ether and the theme of history hold no pronoun."),
    ("text", 'It prints "what is it" and `what was it`.'),
    ("comment", "So that a later copy never arms."),
]


@pytest.mark.parametrize(("kind", "text", "rule"), REFUSED)
def test_a_sentence_that_must_be_decoded_is_refused(kind: Kind, text: str, rule: str) -> None:
    assert rule in {breach.rule for breach in check_passage(Passage("f.py", 1, kind, text))}


@pytest.mark.parametrize(("kind", "text"), PLAIN)
def test_a_plain_sentence_passes(kind: Kind, text: str) -> None:
    assert [str(breach) for breach in check_passage(Passage("f.py", 1, kind, text))] == []


def test_code_addresses_and_shapes_are_not_counted_as_words() -> None:
    assert words_of("Write `a b c` (B, T, D) to https://example.org/x y.") == 2


def test_a_python_file_gives_its_docstrings_fields_items_comments_and_errors(
    tmp_path: Path,
) -> None:
    path = tmp_path / "test_part.py"
    path.write_text(
        '"""Module."""\n'
        "LIMIT = 3\n"
        '"""Largest count."""\n'
        "# A comment\n# in two lines.\n"
        "def test_it_holds(size):\n"
        '    """Return a part.\n\n'
        "    Args:\n"
        "        size: size in m,\n"
        "            without its rim.\n\n"
        "    Raises:\n"
        "        ValueError: the part is too large.\n"
        '    """\n'
        '    raise ValueError(f"expected {size} m")  # noqa: EM102\n',
        encoding="utf-8",
    )
    found = {(each.line, each.kind, " ".join(each.text.split())) for each in read_python(path, "f")}
    assert found == {
        (1, "module", "Module."),
        (3, "field", "Largest count."),
        (4, "comment", "A comment in two lines."),
        (6, "name", "it holds"),
        (7, "function", "Return a part."),
        (10, "parameter", "size in m, without its rim."),
        (14, "parameter", "the part is too large."),
        (16, "error", "expected … m"),
    }


def test_a_sentence_is_named_by_the_line_on_which_it_begins() -> None:
    passage = Passage("f.py", 10, "text", "First, e.g. one.\n    Second\n    goes on. Third.")
    assert list(passage.sentences()) == [
        (10, "First, e.g. one."),
        (11, "Second goes on."),
        (12, "Third."),
    ]


def test_a_page_gives_paragraphs_and_items_but_no_code_tables_or_headings(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(
        "# What it is\n\nA paragraph\nin two lines.\n\n- An item.\n- Another.\n\n"
        "```sh\nwhat is this\n```\n\n| a | b |\n|---|---|\n",
        encoding="utf-8",
    )
    assert [(each.line, each.text) for each in read_markdown(path, "page.md")] == [
        (3, "A paragraph\nin two lines."),
        (6, "An item."),
        (7, "Another."),
    ]


def test_the_command_prints_file_line_rule_and_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "page.md").write_text("It runs.\nOf the arm.\n", encoding="utf-8")
    assert main(["--root", str(tmp_path)]) == 1
    assert "page.md:2: opening: Of the arm." in capsys.readouterr().out
    (tmp_path / "page.md").write_text("The arm runs.\n", encoding="utf-8")
    assert main(["--root", str(tmp_path)]) == 0


def test_the_figures_count_every_folder_and_compare_two_checkouts() -> None:
    figures = measure(ROOT)
    assert set(figures.lines) >= {"runtime", "policies", "sim", "export", "launch"}
    assert figures.cycles == 0
    assert compare(figures, figures).startswith(
        "| | before | after |\n|---|---:|---:|\n| lines in `"
    )
