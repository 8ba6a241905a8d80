"""Find which file imports which: at the top, in a function, for types only, or by a string."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from .sources import PACKAGE, Source

Kind = Literal["top", "late", "types", "string"]
"""Place of an import: at the top, in a function, under `if TYPE_CHECKING`, or in a lazy string."""
LAZY_STRING = re.compile(rf"{PACKAGE}(\.\w+)+(:\w+)?")


@dataclass(frozen=True, order=True)
class Edge:
    """One file imports another."""

    importer: str
    """Module that imports."""
    imported: str
    """Module that is imported; always one of the package."""
    kind: Kind
    line: int
    """Line of the import statement."""


def read_edges(sources: Iterable[Source]) -> list[Edge]:
    """Return one edge per importer, imported module and kind, with the first line of each."""
    listed = list(sources)
    modules = {source.module for source in listed}
    first: dict[tuple[str, str, Kind], Edge] = {}

    for source in listed:
        for edge in _edges_of(source, modules):
            if edge.imported != edge.importer:
                first.setdefault((edge.importer, edge.imported, edge.kind), edge)

    return sorted(first.values())


def _edges_of(source: Source, modules: set[str]) -> Iterator[Edge]:
    for node, kind in _placed(source.tree, "top"):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for target in _targets(node, source, modules):
                yield Edge(source.module, target, kind, node.lineno)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            for target in _string_targets(node.value, modules):
                yield Edge(source.module, target, "string", node.lineno)


def _placed(node: ast.AST, kind: Kind) -> Iterator[tuple[ast.AST, Kind]]:
    for child in ast.iter_child_nodes(node):
        inner = kind
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            inner = "late"
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            inner = "types"
        yield child, inner
        yield from _placed(child, inner)


def _targets(node: ast.Import | ast.ImportFrom, source: Source, modules: set[str]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if alias.name in modules]

    start = _absolute(node, source)
    found = []
    for alias in node.names:
        longer = f"{start}.{alias.name}"
        if longer in modules:
            found.append(longer)
        elif start in modules:
            found.append(start)
    return found


def _absolute(node: ast.ImportFrom, source: Source) -> str:
    if node.level == 0:
        return node.module or ""
    parts = source.package.split(".")
    parent = parts[: len(parts) - node.level + 1]
    return ".".join([*parent, *([node.module] if node.module else [])])


def _string_targets(text: str, modules: set[str]) -> list[str]:
    if not LAZY_STRING.fullmatch(text):
        return []
    module = text.partition(":")[0]
    return [module] if module in modules else []


def read_foreign(source: Source) -> list[tuple[str, int]]:
    """Return the absolute imports of a file as (module, line)."""
    found = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.append((node.module, node.lineno))
    return found


def find_cycles(edges: Iterable[Edge]) -> list[list[str]]:
    """Return each group of modules that import each other in a circle, by Tarjan's algorithm.

    Imports by a string do not count: the importer does not need the other file to be loaded itself.
    """
    graph: dict[str, list[str]] = {}
    for edge in edges:
        if edge.kind != "string":
            graph.setdefault(edge.importer, []).append(edge.imported)
    return _Tarjan(graph).cycles()


class _Tarjan:
    """Strongly connected components of a small graph (Tarjan 1972)."""

    def __init__(self, graph: dict[str, list[str]]) -> None:
        self._graph = graph
        self._index: dict[str, int] = {}
        self._low: dict[str, int] = {}
        self._stack: list[str] = []
        self._found: list[list[str]] = []

    def cycles(self) -> list[list[str]]:
        for module in sorted(self._graph):
            if module not in self._index:
                self._visit(module)
        return self._found

    def _visit(self, module: str) -> None:
        self._index[module] = self._low[module] = len(self._index)
        self._stack.append(module)

        for other in self._graph.get(module, []):
            if other not in self._index:
                self._visit(other)
                self._low[module] = min(self._low[module], self._low[other])
            elif other in self._stack:
                self._low[module] = min(self._low[module], self._index[other])

        if self._low[module] == self._index[module]:
            start = self._stack.index(module)
            group = sorted(self._stack[start:])
            del self._stack[start:]
            if len(group) > 1:
                self._found.append(group)
