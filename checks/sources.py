"""Read the Python files of a checkout: path, module name, folder and syntax tree."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "gatort"
FOLDERS = (
    "runtime", "policies", "sim", "studies", "export", "datasets", "faults", "console", "launch",
    "testing",
)  # fmt: skip
"""Folders of the package. A checkout from before a folder existed simply lacks its files."""


@dataclass(frozen=True)
class Source:
    """One Python file of the package."""

    path: Path
    """Path of the file."""
    name: str
    """Path relative to the checkout, with slashes, such as `runtime/loop.py`."""
    module: str
    """Dotted name, such as `gatort.runtime.loop`."""
    folder: str
    """First part of `name`, such as `runtime`; `gatort` for the package's own `__init__.py`."""

    @cached_property
    def text(self) -> str:
        """Text of the file."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """Syntax tree of the file."""
        return ast.parse(self.text, str(self.path))

    @property
    def package(self) -> str:
        """Package that relative imports of this file start from."""
        if self.path.name == "__init__.py":
            return self.module
        return self.module.rpartition(".")[0]

    @property
    def lines(self) -> int:
        """Number of lines."""
        return self.text.count("\n")


def read_sources(root: Path) -> list[Source]:
    """Return every Python file of the package in a checkout, sorted by path."""
    found = [_source(root, path, folder) for folder in FOLDERS for path in _python(root / folder)]
    start = root / "src" / PACKAGE / "__init__.py"
    if start.exists():
        found.append(Source(start, f"src/{PACKAGE}/__init__.py", PACKAGE, PACKAGE))
    return found


def _python(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def _source(root: Path, path: Path, folder: str) -> Source:
    relative = path.relative_to(root)
    parts = relative.with_suffix("").parts
    if parts[-1] == "__init__":
        parts = parts[:-1]
    return Source(path, relative.as_posix(), ".".join((PACKAGE, *parts)), folder)
