"""Check the English of docstrings, comments, errors, test names and pages (`make check`).

STYLE: a docstring opens with a verb or a noun, a sentence holds one idea, and no clause stands for
a noun ("what is", "whoever"). Each rule below is one row: a pattern, the places it applies to, and
the advice that is printed. `ruff` (D401) checks the verb at the start of a function's docstring.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .prose import Kind, Passage, read_markdown, read_python
from .sources import FOLDERS, ROOT

FUNCTIONS: tuple[Kind, ...] = ("function",)
FIELDS: tuple[Kind, ...] = ("field",)
OPENERS: tuple[Kind, ...] = ("module", "class", "function", "field", "parameter")
DOCSTRINGS: tuple[Kind, ...] = (*OPENERS, "text")
STATEMENTS: tuple[Kind, ...] = (*DOCSTRINGS, "page")
SENTENCES: tuple[Kind, ...] = (*STATEMENTS, "comment")
ALL: tuple[Kind, ...] = (*SENTENCES, "error", "name")


@dataclass(frozen=True)
class Rule:
    """One thing that a sentence must not do."""

    name: str
    """Short name, printed with each breach."""
    pattern: re.Pattern[str]
    """Pattern searched in the sentence, whose code spans and quotations are cut out."""
    kinds: tuple[Kind, ...]
    """Places where the rule holds."""
    advice: str
    """Sentence that says what to write instead."""


def _rule(name: str, pattern: str, kinds: tuple[Kind, ...], advice: str) -> Rule:
    return Rule(name, re.compile(pattern), kinds, advice)


BE = r"(?:is|are|was|were|has|had|have|does|did|can|cannot|could|may|must|will|would|should)"
COME = (
    r"(?:comes?|came|goes|went|gives?|gave|makes?|made|runs?|ran|stands?|stood|takes?|took|holds?)"
)
NONE = (
    r"\bnone (?:when|where|if|means|unless|until|without)\b"
    r"|(?<!there )\b(?:or|is|be|as) none\b(?! of)"
)
RULES = (
    # name, pattern, places, advice
    _rule("opening", r"(?i)^(?:of|who|whoever|whose)\b(?! course)", SENTENCES, "name the thing"),
    _rule(
        "opening", r"(?i)^(?:what|how)\b(?! to\b)(?!.*\?)", SENTENCES, "open with a noun or a verb"
    ),
    _rule("opening", r"^For who\b", SENTENCES, "name the reader"),
    _rule("opening", r"^Nothing\b", STATEMENTS, "name the subject that does it, and use a verb"),
    _rule("opening", r"^The same(?: (?:of|as|for|when|but|with|in)\b|[,.:;])", SENTENCES, "say it"),
    _rule("fragment", r"\A(?:And|But|Or|So|That|Which|As|By)\b", OPENERS, "write a noun phrase"),
    _rule("fragment", r"\A(?:When|Where|Since|Until|While|Ditto)\b", FIELDS, "write a noun phrase"),
    _rule("fragment", r"\AWhether\b", FUNCTIONS, "write 'Return whether' or 'Check that'"),
    _rule("free relative", rf"(?i)\bwhat (?:{BE}|{COME}|it|they)\b(?!.*\?)", ALL, "use a noun"),
    _rule("free relative", r"(?i)\bwhat\b(?! to\b)(?!.*\?)", OPENERS, "use a noun"),
    _rule("free relative", r"(?i)\b(?:who|whom)ever\b|\bfor who\b", ALL, "use a noun"),
    _rule("construction", r"(?i)\bor is none\b|\bsee to it\b|, be it\b", ALL, "use 'no'"),
    _rule("pronoun", r"\b(?:he|his|[Hh]im|[Hh]imself)\b|\bHe\b(?! et al|,)", ALL, "write 'they'"),
    _rule("none", NONE, DOCSTRINGS, "write `None` for the value, or 'no …'"),
)
"""A pattern with `^` holds for each sentence of a passage, one with `\\A` for the first."""
LONGEST: dict[Kind, int] = dict.fromkeys(DOCSTRINGS, 25) | {"comment": 30, "page": 30, "error": 35}
"""Most words in a sentence. Code, addresses and shapes do not count, nor the values of an error."""

CODE = re.compile(r"``[^`]*``|`[^`]*`|\$[^$]+\$")
QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|(?<!\w)'[^']*'(?!\w)")
UNCOUNTED = re.compile(r"https?://\S+|\]\([^)]*\)|\([A-Z0-9, ·+×*−-]*\)|<[^>]*>")
WORD = re.compile(r"\b(?:a|I|[A-Za-z][\w'’-]+)\b")


@dataclass(frozen=True)
class Breach:
    """A sentence that breaks a rule."""

    file: str
    """Path relative to the checkout."""
    line: int
    """Line on which the sentence begins."""
    rule: str
    """Name of the rule."""
    sentence: str
    """Sentence as it stands."""
    advice: str
    """Sentence that says what to write instead."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule}: {self.sentence} ({self.advice})"


def words_of(sentence: str) -> int:
    """Return the number of words, without code, addresses and shapes."""
    return len(WORD.findall(UNCOUNTED.sub(" ", CODE.sub(" ", sentence))))


def check_sentence(passage: Passage, line: int, sentence: str, first: bool) -> Iterator[Breach]:
    """Yield the breaches of one sentence. `first` is true for the sentence that opens a passage."""
    bare = QUOTED.sub("…", CODE.sub("…", sentence)).strip(" *_>")
    found: dict[str, Rule] = {}
    for rule in RULES:
        placed = first or not rule.pattern.pattern.startswith(r"\A")
        if passage.kind in rule.kinds and placed and rule.pattern.search(bare):
            found.setdefault(rule.name, rule)
    for rule in found.values():
        yield Breach(passage.file, line, rule.name, sentence, rule.advice)

    most = LONGEST.get(passage.kind)
    count = words_of(sentence)
    if most is not None and count > most:
        advice = f"{count} words; at most {most}"
        yield Breach(passage.file, line, "length", sentence, advice)


def check_passage(passage: Passage) -> Iterator[Breach]:
    """Yield the breaches of one passage."""
    for index, (line, sentence) in enumerate(passage.sentences()):
        yield from check_sentence(passage, line, sentence, first=index == 0)


def read_passages(root: Path) -> Iterator[Passage]:
    """Yield the passages of a checkout, in the order of its files."""
    places = [*FOLDERS, "checks", "examples", "benchmarks", "tests", "docs", "src"]
    files = [path for place in places for path in sorted((root / place).rglob("*"))]
    files += sorted(root.glob("*.md"))

    for path in files:
        name = path.relative_to(root).as_posix()
        if "src/gatort/" in name and path.parent != root / "src" / "gatort":
            continue
        if path.suffix == ".py":
            yield from read_python(path, name)
        elif path.suffix == ".md":
            yield from read_markdown(path, name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print each breach with its file, line and sentence. Return 1 if there is one."""
    parser = argparse.ArgumentParser(prog="checks.english", description=__doc__)
    parser.add_argument("paths", nargs="*", help="only files whose path starts with one of these")
    parser.add_argument("--root", type=Path, default=ROOT, help="checkout to read")
    parser.add_argument("--count", action="store_true", help="print breaches per rule and file")
    options = parser.parse_args(arguments)

    wanted = tuple(options.paths) or ("",)
    passages = [each for each in read_passages(options.root) if each.file.startswith(wanted)]
    breaches = [breach for passage in passages for breach in check_passage(passage)]

    if options.count:
        for counted in (
            Counter(breach.rule for breach in breaches),
            Counter(breach.file for breach in breaches),
        ):
            print("\n".join(f"{count:>5} {name}" for name, count in counted.most_common()))
            print()
    else:
        print("\n".join(map(str, breaches)), end="\n" if breaches else "")
    print(f"{len(breaches)} breaches in {len(passages)} passages", file=sys.stderr)
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
