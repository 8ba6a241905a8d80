"""Write docs/modules.md: one line per module of the package, taken from its docstring.

    python docs/list_modules.py

`make docs` runs this first. A test fails when the committed page lacks a module.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "modules.md"
FOLDERS = (
    "runtime", "policies", "sim", "studies", "export", "datasets", "console", "testing", "launch",
    "examples",
)  # fmt: skip
HEAD = """# Modules

One line per file, taken from its docstring. `python docs/list_modules.py` writes this page; do not
edit it by hand. [Architecture](architecture.md) shows how the modules work together.
"""


def render() -> str:
    """Return the text of the page."""
    return "\n".join([HEAD, *_sections()])


def _sections() -> Iterator[str]:
    for name in FOLDERS:
        folders = (path.parent for path in (ROOT / name).rglob("*.py"))
        for folder in sorted(set(folders)):
            yield _section(folder)


def _section(folder: Path) -> str:
    lines = [f"## `{folder.relative_to(ROOT).as_posix()}/`", ""]
    start = folder / "__init__.py"
    if start.exists():
        lines += [_first_sentence(start), ""]

    modules = sorted(path for path in folder.glob("*.py") if path != start)
    if modules:
        lines += ["| file | what it is for |", "|---|---|"]
        lines += [f"| `{_name(path)}` | {_cell(_first_sentence(path))} |" for path in modules]
        lines.append("")
    return "\n".join(lines)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _first_sentence(path: Path) -> str:
    """Return the first sentence of a module's docstring, on one line."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.partition("\n\n")[0].split())
    end = paragraph.find(". ")
    return paragraph if end < 0 else paragraph[: end + 1]


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
