"""Measure a checkout: lengths, imports and English; print figures or compare two checkouts.

Only the folders of the package count, not the tests. A function's length runs from `def` to its
last line, docstring included.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles

from .english import DOCSTRINGS, check_passage, words_of
from .imports import find_cycles, read_edges
from .prose import Passage, read_python
from .sources import FOLDERS, ROOT, Source, read_sources

Function = ast.FunctionDef | ast.AsyncFunctionDef
FREE_RELATIVE = re.compile(r"(?i)\bwhat\b(?! to\b)(?!.*\?)|\bwho(?:m)?ever\b|\bfor who\b")
OPENINGS = ("opening", "fragment")
"""Names of the rules that look at how a docstring opens."""


@dataclass(frozen=True)
class Lengths:
    """Lengths in lines."""

    median: float
    """Median."""
    p90: float
    """90th percentile."""
    longest: int
    """Maximum."""

    @classmethod
    def of(cls, lines: Sequence[int]) -> Lengths:
        """Summarise lengths."""
        return cls(median(lines), quantiles(lines, n=10)[-1], max(lines))

    def __str__(self) -> str:
        return f"{self.median:.0f} / {self.p90:.0f} / {self.longest:,}"


@dataclass(frozen=True)
class Figures:
    """Measurements of one checkout."""

    lines: dict[str, int]
    """Lines of Python in each folder."""
    files: int
    """Number of Python files."""
    file_lines: Lengths
    """Lengths of files."""
    function_lines: Lengths
    """Lengths of functions and methods."""
    edges_per_file: float
    """Mean number of the package's own files that a file imports."""
    late_edges: int
    """Number of imports in functions or for types only."""
    cycles: int
    """Number of groups of files that import each other in a circle."""
    docstring_words: int
    """Number of words in docstrings, code spans not counted."""
    free_relatives: float
    """Free relatives per 1,000 words of docstrings."""
    longest_sentence: int
    """Most words in a docstring's sentence."""
    long_sentences: int
    """Number of docstring sentences over 25 words."""
    function_fragments: float
    """Percentage of function docstrings that open with a clause or a fragment."""
    field_fragments: float
    """Percentage of field docstrings that open with a clause or a fragment."""
    blank_lines: float
    """Blank lines inside functions per 1,000 lines of functions, docstrings left out."""
    parallel_assignments: float
    """Assignments of a tuple of values to a tuple of names, per 1,000 lines."""
    bool_arithmetic: float
    """Sums and products with a comparison or a negation as a term, per 1,000 lines."""


def measure(root: Path) -> Figures:
    """Measure a checkout."""
    sources = [source for source in read_sources(root) if source.folder in FOLDERS]
    edges = read_edges(sources)
    loaded = {(edge.importer, edge.imported) for edge in edges if edge.kind != "string"}
    functions = [node for source in sources for node in _functions(source.tree)]
    lines = sum(source.lines for source in sources)
    per_thousand_lines = 1_000 / lines

    passages = [
        passage
        for source in sources
        for passage in read_python(source.path, source.name)
        if passage.kind in DOCSTRINGS
    ]
    words = sum(words_of(passage.text) for passage in passages)
    sentence_words = [
        words_of(sentence) for passage in passages for _, sentence in passage.sentences()
    ]

    return Figures(
        lines=_folder_lines(sources),
        files=len(sources),
        file_lines=Lengths.of([source.lines for source in sources]),
        function_lines=Lengths.of([_span(node) for node in functions]),
        edges_per_file=len(loaded) / len(sources),
        late_edges=sum(edge.kind in ("late", "types") for edge in edges),
        cycles=len(find_cycles(edges)),
        docstring_words=words,
        free_relatives=_free_relatives(passages) * 1_000 / words,
        longest_sentence=max(sentence_words),
        long_sentences=sum(count > 25 for count in sentence_words),
        function_fragments=_fragments(passages, "function"),
        field_fragments=_fragments(passages, "field"),
        blank_lines=_blank_lines(sources),
        parallel_assignments=sum(map(_parallel, _nodes(sources))) * per_thousand_lines,
        bool_arithmetic=sum(map(_bool_arithmetic, _nodes(sources))) * per_thousand_lines,
    )


def _folder_lines(sources: Iterable[Source]) -> dict[str, int]:
    counted: dict[str, int] = {}
    for source in sources:
        counted[source.folder] = counted.get(source.folder, 0) + source.lines
    return counted


def _nodes(sources: Iterable[Source]) -> Iterator[ast.AST]:
    for source in sources:
        yield from ast.walk(source.tree)


def _functions(tree: ast.AST) -> list[Function]:
    return [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def _span(node: Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _free_relatives(passages: Iterable[Passage]) -> int:
    texts = [sentence for passage in passages for _, sentence in passage.sentences()]
    return sum(len(FREE_RELATIVE.findall(text)) for text in texts)


def _fragments(passages: Iterable[Passage], kind: str) -> float:
    """Return the percentage of first paragraphs of a kind that open against the rules."""
    chosen = [passage for passage in passages if passage.kind == kind]
    broken = 0
    for passage in chosen:
        line = next(passage.sentences())[0]
        found = [breach for breach in check_passage(passage) if breach.line == line]
        if any(breach.rule in OPENINGS for breach in found):
            broken += 1
    return 100 * broken / len(chosen)


def _blank_lines(sources: Iterable[Source]) -> float:
    blank = 0
    total = 0
    for source in sources:
        text = source.text.split("\n")
        inside: set[int] = set()
        for node in _functions(source.tree):
            start = node.body[0].lineno
            if ast.get_docstring(node, clean=False) is not None:
                start = (node.body[0].end_lineno or start) + 1
            inside |= set(range(start, (node.end_lineno or start) + 1))
        total += len(inside)
        blank += sum(not text[line - 1].strip() for line in inside)
    return 1_000 * blank / total


def _parallel(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Tuple)
        and isinstance(node.value, ast.Tuple)
    )


def _bool_arithmetic(node: ast.AST) -> bool:
    if isinstance(node, ast.AugAssign):
        return isinstance(node.op, ast.Add | ast.Sub | ast.Mult) and _is_bool(node.value)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub | ast.Mult):
        return _is_bool(node.left) or _is_bool(node.right)
    return False


def _is_bool(node: ast.AST) -> bool:
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.Not)
    return isinstance(node, ast.Compare | ast.BoolOp)


def rows(figures: Figures) -> dict[str, str]:
    """Return the figures as (label, value) in words."""
    folders = {f"lines in `{name}/`": f"{count:,}" for name, count in figures.lines.items()}
    return folders | {
        "lines in all": f"{sum(figures.lines.values()):,}",
        "files": f"{figures.files:,}",
        "lines of a file: median / p90 / longest": str(figures.file_lines),
        "lines of a function: median / p90 / longest": str(figures.function_lines),
        "import edges per file": f"{figures.edges_per_file:.2f}",
        "imports in functions or for types only": f"{figures.late_edges}",
        "import cycles": f"{figures.cycles}",
        "words in docstrings": f"{figures.docstring_words:,}",
        "free relatives per 1,000 words of docstrings": f"{figures.free_relatives:.2f}",
        "docstring sentences over 25 words": f"{figures.long_sentences}",
        "longest docstring sentence, words": f"{figures.longest_sentence}",
        "function docstrings that open with a fragment": f"{figures.function_fragments:.1f} %",
        "field docstrings that open with a fragment": f"{figures.field_fragments:.1f} %",
        "blank lines per 1,000 lines of functions": f"{figures.blank_lines:.0f}",
        "parallel assignments per 1,000 lines": f"{figures.parallel_assignments:.1f}",
        "arithmetic with bools per 1,000 lines": f"{figures.bool_arithmetic:.2f}",
    }


def compare(old: Figures, new: Figures) -> str:
    """Return a Markdown table of the figures of two checkouts."""
    before = rows(old)
    after = rows(new)
    labels = sorted({**before, **after}, key=list({**after, **before}).index)
    labels.sort(key=lambda label: not re.match(r"lines in `", label))
    lines = ["| | before | after |", "|---|---:|---:|"]
    lines += [
        f"| {label} | {before.get(label, '–')} | {after.get(label, '–')} |" for label in labels
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures of a checkout, or a Markdown table of two."""
    parser = argparse.ArgumentParser(prog="checks.figures", description=__doc__)
    parser.add_argument("root", nargs="?", type=Path, default=ROOT, help="checkout to measure")
    parser.add_argument(
        "--compare", nargs=2, type=Path, metavar=("OLD", "NEW"), help="two checkouts"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of text")
    options = parser.parse_args(arguments)

    if options.compare:
        print(compare(*map(measure, options.compare)))
    elif options.json:
        print(json.dumps(asdict(measure(options.root)), indent=2))
    else:
        for label, value in rows(measure(options.root)).items():
            print(f"{label:<48} {value:>16}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
