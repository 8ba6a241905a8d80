"""The pages name only files, commands, flags and make targets that exist."""

from __future__ import annotations

import os
import re
import runpy
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from tests.launch.documented_reports import documented

from gatort.launch.cli import app
from gatort.launch.report_kinds import VERSIONS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FOLDERS = (
    "benchmarks",
    "checks",
    "console",
    "docs",
    "examples",
    "export",
    "faults",
    "launch",
    "policies",
    "runtime",
    "sim",
    "src",
    "testing",
    "tests",
)
"""Folders at the root. A path in backticks that begins with one of them must exist."""
HISTORY = ("CHANGELOG.md", "docs/decisions.md")
"""Pages that may name files and flags of the past."""
MOST_README_WORDS = 900
NOT_IN_A_PROFILE = {
    *(
        "arm",
        "console",
        "demos",
        "dry-run",
        "help",
        "json",
        "listen",
        "out",
        "plot",
        "print-config",
        "profile",
        "record",
        "stop-when-unwatched",
        "video",
    ),
    "viewer",
}
"""Flags of `gatort run` and `gatort train` that no launch profile takes."""

LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
BRACES = re.compile(r"(.*)\{([^}]*)\}(.*)")
COMMAND = re.compile(r"(?<!from )\bgatort ([a-z]+)\b(.*)")
FLAG = re.compile(r"(?<![\w-])(--[a-z][a-z0-9.-]*)")
TARGET = re.compile(r"(?:^|`)make ([a-z]+)", re.MULTILINE)

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def code_of(page: Path) -> Iterator[str]:
    """Yield the lines of a page's code blocks, without comments, then its code spans."""
    text = page.read_text(encoding="utf-8")
    for block in FENCE.findall(text):
        yield from (line.partition(" #")[0] for line in block.splitlines())
    yield from CODE.findall(FENCE.sub("", text))


def paths_in(code: str) -> list[str]:
    """Return the paths that a code span names; `a/{b,c}.py` names two, and patterns none."""
    if (several := BRACES.fullmatch(code)) is not None:
        start, names, end = several.groups()
        return [path for name in names.split(",") for path in paths_in(f"{start}{name}{end}")]

    path = code.partition(":")[0]
    known = path.partition("/")[0] in FOLDERS and "/" in path
    return [path] if known and re.fullmatch(r"[\w./-]+", path) else []


@cache
def flags_of(command: str) -> frozenset[str]:
    """Return every flag that a command takes."""
    arguments = app[command].assemble_argument_collection(parse_docstring=False)
    names = {name for argument in arguments for name in argument.names}
    return frozenset(name for name in names if "empty-" not in name) | {"--help"}


@every_page
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    targets = LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    files = [link.partition("#")[0] for link in targets if "://" not in link]
    assert [file for file in files if not (page.parent / file).exists()] == []


@every_page
def test_every_path_in_backticks_exists(page: Path) -> None:
    if page.relative_to(ROOT).as_posix() in HISTORY:
        return
    named = [path for code in code_of(page) for path in paths_in(code)]
    assert [path for path in named if not (ROOT / path).exists()] == []


@every_page
def test_every_command_and_flag_exists(page: Path) -> None:
    if page.relative_to(ROOT).as_posix() in HISTORY:
        return
    for code in code_of(page):
        for command, rest in COMMAND.findall(code):
            assert command in app, code
            unknown = set(FLAG.findall(rest)) - flags_of(command)
            assert not unknown, f"{code}: {unknown}"


@every_page
def test_every_block_of_python_is_python(page: Path) -> None:
    for block in PYTHON.findall(page.read_text(encoding="utf-8")):
        compile(block, str(page), "exec")


def test_the_python_of_the_readme_stacks_the_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = PYTHON.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    exec(block, {})  # noqa: S102  # the page's own code
    assert capsys.readouterr().out == "True\n"


@pytest.mark.parametrize("command", ["run", "train", "robot"])
def test_every_key_of_a_launch_profile_is_described(command: str) -> None:
    page = (ROOT / "docs" / "launch_profiles.md").read_text(encoding="utf-8")
    flags = {flag.removeprefix("--") for flag in flags_of(command) if flag.startswith("--")}
    keys = {
        flag.rpartition(".")[2].replace("-", "_")
        for flag in flags - NOT_IN_A_PROFILE
        if not flag.rpartition(".")[2].startswith("no-")
    }
    assert {key for key in keys if f"| `{key}` |" not in page and f"`[{key}]`" not in page} == set()


def test_every_make_target_that_a_page_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = {name for page in PAGES for name in TARGET.findall(page.read_text(encoding="utf-8"))}
    assert named <= targets


def test_the_readme_is_short_enough_to_be_read_at_once() -> None:
    words = (ROOT / "README.md").read_text(encoding="utf-8").split()
    assert len(words) <= MOST_README_WORDS


def test_every_page_of_docs_stands_in_the_navigation_of_the_site() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    pages = {os.path.relpath(page, ROOT / "docs") for page in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages if page not in navigation} == set()


def test_every_module_is_listed_in_one_line() -> None:
    listed = runpy.run_path(str(ROOT / "docs" / "list_modules.py"))
    page = (ROOT / "docs" / "modules.md").read_text(encoding="utf-8")
    expected = set(CODE.findall(listed["render"]()))
    missing = {name for name in expected if name.endswith(".py")} - set(CODE.findall(page))
    assert not missing, "run `python docs/list_modules.py` and commit the page"


def test_every_kind_of_report_is_described_in_its_version_and_written_by_a_command() -> None:
    assert {kind: known.version for kind, known in documented().items()} == VERSIONS
    commands = (ROOT / "launch" / "commands").glob("*.py")
    calls = re.compile(r'write_json\(\s*\w+,\s*"(\w+)"')
    written = [kind for file in commands for kind in calls.findall(file.read_text("utf-8"))]
    assert sorted(written) == sorted(VERSIONS)
