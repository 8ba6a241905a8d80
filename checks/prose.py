"""Take the prose out of files: docstrings, comments, error messages, test names, pages.

A passage keeps its line breaks, so that a sentence can be found again by its line.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

Kind = Literal[
    "module", "class", "function", "field", "parameter", "text", "comment", "error", "name", "page"
]
"""Place of a passage. Only a docstring's first paragraph is `module`, `class` or `function`."""

SECTION = re.compile(r"(Args|Raises|Returns|Yields|Attributes|Examples?|Notes?):")
ITEM = re.compile(r"(?P<indent>\s*)(?P<name>[\w.*`, ]+): (?P<text>.*)")
BULLET = re.compile(r"^\s*([-*•]|\d+\.) +")
NOT_PROSE = re.compile(r"noqa|type:|fmt:|mypy:|pragma|!|\(|\[")
"""Openings of comments that are read by a tool or that give a shape."""
FENCE = re.compile(r"\s*(```|~~~)")
MARKDOWN_SKIPPED = re.compile(r"\s*(#|\||<|!\[|\[!|:::|---|\$\$|- \[ \])")
"""Openings of Markdown lines that are not sentences: headings, tables, HTML, pictures."""
ABBREVIATIONS = ("e.g.", "i.e.", "vs.", "cf.", "No.", "Eq.", "Fig.", "Sec.", "approx.", "et al.")
SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”)]?\s+(?=[\"'“(`*]*[A-Z`0-9])")


@dataclass(frozen=True)
class Passage:
    """A paragraph, or less, of one file."""

    file: str
    """Path relative to the checkout."""
    line: int
    """Line on which the text begins."""
    kind: Kind
    """Place of the text."""
    text: str
    """Text with its line breaks."""
    owner: str = ""
    """Name of the function, class or field that the text describes, where there is one."""

    def sentences(self) -> Iterator[tuple[int, str]]:
        """Yield (line, sentence with single spaces) for each sentence."""
        start = 0
        for end in [*self._ends(), len(self.text)]:
            sentence = self.text[start:end]
            before = self.text[:start] + sentence[: len(sentence) - len(sentence.lstrip())]
            if sentence.strip():
                yield self.line + before.count("\n"), " ".join(sentence.split())
            start = end

    def _ends(self) -> Iterator[int]:
        for match in SENTENCE_END.finditer(self.text):
            if not self.text[: match.start()].endswith(ABBREVIATIONS):
                yield match.end()


def read_python(path: Path, file: str) -> Iterator[Passage]:
    """Yield the passages of a Python file."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text, str(path))
    yield from _docstrings(tree, file)
    yield from _errors(tree, file)
    yield from _comments(text, file)
    if path.name.startswith("test_"):
        yield from _test_names(tree, file)


def read_markdown(path: Path, file: str) -> Iterator[Passage]:
    """Yield the paragraphs and list items of a Markdown page, without code, tables and headings."""
    paragraph: list[str] = []
    fenced = False
    lines = path.read_text(encoding="utf-8").splitlines()

    for number, line in enumerate([*lines, ""], 1):
        closes = not line.strip() or BULLET.match(line) or MARKDOWN_SKIPPED.match(line)
        if FENCE.match(line):
            fenced = not fenced
            closes = True
        if closes or fenced:
            if paragraph:
                yield Passage(file, number - len(paragraph), "page", "\n".join(paragraph))
            paragraph = []
        skipped = fenced or FENCE.match(line) or MARKDOWN_SKIPPED.match(line)
        if line.strip() and not skipped:
            paragraph.append(BULLET.sub("", line))


def _docstrings(tree: ast.Module, file: str) -> Iterator[Passage]:
    kinds: dict[type[ast.AST], Kind] = {
        ast.Module: "module",
        ast.ClassDef: "class",
        ast.FunctionDef: "function",
        ast.AsyncFunctionDef: "function",
    }
    for node in ast.walk(tree):
        kind = kinds.get(type(node))
        body = getattr(node, "body", None)
        if kind is None or not isinstance(body, list):
            continue

        name = getattr(node, "name", "")
        if body and (string := _string(body[0])):
            yield from _split(file, string.lineno, kind, str(string.value), name)
        for before, after in pairwise(body):
            string = _string(after)
            if string and isinstance(before, ast.Assign | ast.AnnAssign):
                field = _target(before)
                yield from _split(file, string.lineno, "field", str(string.value), field)


def _string(node: ast.AST) -> ast.Constant | None:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return node.value if isinstance(node.value.value, str) else None
    return None


def _target(node: ast.Assign | ast.AnnAssign) -> str:
    return ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)


def _split(file: str, line: int, kind: Kind, text: str, owner: str) -> Iterator[Passage]:
    """Yield the first paragraph of a docstring as `kind`, its items as `parameter`, else `text`."""
    lines = text.split("\n")
    base = min((_indent(other) for other in lines[1:] if other.strip()), default=0)
    first = True

    for start, group in _groups(lines, base):
        match = ITEM.match(group[0])
        if first:
            placed: Kind = kind
        else:
            placed = "parameter" if _indent(group[0]) > base else "text"
            if match and _indent(group[0]) > base:
                group[0] = match["text"]
        first = False
        yield Passage(file, line + start, placed, "\n".join(group), owner)


def _groups(lines: list[str], base: int) -> Iterator[tuple[int, list[str]]]:
    """Yield (index, lines) of paragraphs, list items and section items; drop code and diagrams."""
    group: list[str] = []
    start = 0
    section = False

    for index, line in enumerate([*lines, ""]):
        following = lines[index + 1].strip() if index + 1 < len(lines) else ""
        heading = bool(SECTION.fullmatch(line.strip())) or bool(re.fullmatch(r"-{3,}", following))
        rule = bool(re.fullmatch(r"-{3,}", line.strip()))
        item = section and (_indent(line) <= base or bool(ITEM.match(line)))
        item = item and _indent(line) <= base + 4
        if not line.strip() or heading or rule or item or BULLET.match(line):
            if group and (section or _indent(group[0]) <= base or start == 0):
                yield start, group
            group = []
        section = (section or heading) and (bool(line.strip()) or section)
        if line.strip() and not heading and not rule:
            if not group:
                start = index
            if not (section and _indent(line) <= base and re.fullmatch(r"[\w`*]+", line.strip())):
                group.append(BULLET.sub(" ", line))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _errors(tree: ast.Module, file: str) -> Iterator[Passage]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            for argument in node.exc.args:
                if text := _literal(argument):
                    yield Passage(file, argument.lineno, "error", text)
        elif (
            isinstance(node, ast.keyword) and node.arg == "help" and (text := _literal(node.value))
        ):
            yield Passage(file, node.value.lineno, "parameter", text)


def _literal(node: ast.AST) -> str:
    """Return a string's text, with `…` for each value of an f-string."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = [_literal(value) for value in node.values]
        return "".join(part or "…" for part in parts)
    return ""


def _comments(text: str, file: str) -> Iterator[Passage]:
    group: list[str] = []
    last = (0, -1)

    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        words = token.string.strip("#: -─=")
        alone = not token.line[: token.start[1]].strip()
        follows = alone and token.start == (last[0] + 1, last[1])
        if group and not follows:
            yield Passage(file, last[0] - len(group) + 1, "comment", "\n".join(group))
            group = []
        if not NOT_PROSE.match(words):
            group.append(words)
            last = token.start

    if group:
        yield Passage(file, last[0] - len(group) + 1, "comment", "\n".join(group))


def _test_names(tree: ast.Module, file: str) -> Iterator[Passage]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            words = node.name.removeprefix("test_").replace("_", " ")
            yield Passage(file, node.lineno, "name", words, node.name)
