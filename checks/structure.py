"""Check the structure of the package (`make structure`), and print it.

Every rule returns sentences, one per breach. `tests/test_structure.py` calls the same rules.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .imports import Edge, find_cycles, read_edges, read_foreign
from .sources import FOLDERS, PACKAGE, ROOT, Source, read_sources
from .walks import WALKS, broken_hops, rooms

LAUNCH_LINES = 9_000
"""Upper bound of the lines of Python in launch/."""
WALK_DIFFERENCE = 3
"""The walk of a bundle may pass this many more files than the walk of an observation."""
TABLE_ROW = re.compile(r"^\| `(?P<folder>\w+)/` \|.*\| (?P<allowed>[^|]+) \|$", re.MULTILINE)
CAPITALISED = re.compile(r"[A-Z]\w*[a-z]\w*")
"""Name of a public class or type alias, as against a constant."""
COMMANDS = f"{PACKAGE}.launch.commands."
COMMAND_LINE = f"{PACKAGE}.launch.cli"


@dataclass(frozen=True)
class Structure:
    """A checkout, read once."""

    root: Path
    """Folder of the checkout."""
    sources: list[Source]
    """Python files of the package."""
    edges: list[Edge]
    """Imports between those files."""

    @classmethod
    def read(cls, root: Path) -> Structure:
        """Read a checkout."""
        sources = read_sources(root)
        return cls(root, sources, read_edges(sources))

    def lines(self) -> dict[str, int]:
        """Return the number of lines of Python in each folder."""
        counted: Counter[str] = Counter()
        for source in self.sources:
            counted[source.folder] += source.lines
        return dict(counted)

    def edges_per_file(self) -> float:
        """Return the mean number of the package's own files that a file imports."""
        pairs = {(edge.importer, edge.imported) for edge in self.edges if edge.kind != "string"}
        return len(pairs) / max(1, len(self.sources))


def read_table(text: str) -> dict[str, set[str]]:
    """Return the folders that each folder may import, from the table in CONTRIBUTING.md.

    The last column holds "nothing of ours", "all; nobody imports it", or folders between commas.
    """
    rows = {row["folder"]: row["allowed"].strip() for row in TABLE_ROW.finditer(text)}
    allowed: dict[str, set[str]] = {}
    for folder, words in rows.items():
        if words.startswith("nothing"):
            allowed[folder] = set()
        elif words.startswith("all"):
            allowed[folder] = set(rows) - {folder}
        else:
            allowed[folder] = {word.strip("` /") for word in re.split(r",|;", words)} & set(rows)
    return allowed


def _folder(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def _place(edge: Edge) -> str:
    where = {"late": ", in a function", "types": ", for types", "string": ", by a string"}
    return f"{edge.importer} imports {edge.imported} (line {edge.line}{where.get(edge.kind, '')})"


def check_arrows(structure: Structure) -> list[str]:
    """Check that each import follows the last column of the table in CONTRIBUTING.md."""
    table = read_table((structure.root / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    breaches = []
    for edge in structure.edges:
        importer = _folder(edge.importer)
        imported = _folder(edge.imported)
        if imported == PACKAGE:
            breaches.append(f"{_place(edge)}; its names are for users, so name their module.")
        if PACKAGE in (importer, imported) or importer == imported:
            continue
        if imported not in table.get(importer, set()):
            allowed = ", ".join(sorted(table.get(importer, set()))) or "nothing of ours"
            breaches.append(f"{_place(edge)}; {importer}/ may import {allowed}.")
    return breaches


def check_table(structure: Structure) -> list[str]:
    """Check that the table in CONTRIBUTING.md names each folder and allows no circle."""
    table = read_table((structure.root / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    folders = {source.folder for source in structure.sources} - {PACKAGE}
    breaches = [
        f"{folder}/ has no row in the table of CONTRIBUTING.md."
        for folder in sorted(folders - set(table))
    ]
    arrows = [Edge(folder, other, "top", 0) for folder, others in table.items() for other in others]
    breaches += [
        f"The table of CONTRIBUTING.md lets {', '.join(cycle)} import each other."
        for cycle in find_cycles(arrows)
    ]
    return breaches


def check_cycles(structure: Structure) -> list[str]:
    """Check that no files import each other in a circle. Late and typing imports count."""
    return [
        f"These files import each other in a circle: {', '.join(cycle)}."
        for cycle in find_cycles(structure.edges)
    ]


def check_launch(structure: Structure) -> list[str]:
    """Check that nothing outside launch/ imports it, and that it stays below its bound in lines."""
    breaches = [
        f"{_place(edge)}; nobody imports launch/."
        for edge in structure.edges
        if _folder(edge.imported) == "launch" and _folder(edge.importer) != "launch"
    ]
    lines = structure.lines().get("launch", 0)
    if lines >= LAUNCH_LINES:
        breaches.append(f"launch/ has {lines:,} lines; expected fewer than {LAUNCH_LINES:,}.")
    return breaches


def check_commands(structure: Structure) -> list[str]:
    """Check that only the command line names a command module, and only by an import string."""
    return [
        f"{_place(edge)}; only {COMMAND_LINE} may name a command, by an import string."
        for edge in structure.edges
        if edge.imported.startswith(COMMANDS)
        and not (edge.importer == COMMAND_LINE and edge.kind == "string")
    ]


def check_prefix(structure: Structure) -> list[str]:
    """Check that imports name the folders by the package, which they also do once installed."""
    return [
        f"{source.name} imports {module} (line {line}); write {PACKAGE}.{module}."
        for source in structure.sources
        for module, line in read_foreign(source)
        if module.partition(".")[0] in FOLDERS
    ]


def check_names(structure: Structure) -> list[str]:
    """Check that a public class or type alias has one meaning. Equal aliases may repeat."""
    homes: dict[str, dict[str, str]] = {}
    for source in structure.sources:
        for name, meaning in _public_types(source).items():
            homes.setdefault(name, {})[source.name] = meaning
    return [
        f"The name {name} has {len(files)} meanings, in {' and '.join(files)}; rename all but one."
        for name, files in sorted(homes.items())
        if len(set(files.values())) > 1
    ]


def _public_types(source: Source) -> dict[str, str]:
    found = {}
    for node in source.tree.body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = source.name
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = ast.unparse(node.value)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            found[node.target.id] = ast.unparse(node.value)
    return {name: meaning for name, meaning in found.items() if CAPITALISED.fullmatch(name)}


def check_walks(structure: Structure) -> list[str]:
    """Check that each hop of the walks is a real call, and compare the lengths of the walks."""
    breaches = [sentence for walk in WALKS for sentence in broken_hops(walk, structure.sources)]
    bundle, observation = (len(rooms(walk)) for walk in WALKS)
    if bundle > observation + WALK_DIFFERENCE:
        breaches.append(
            f"A bundle passes {bundle} files in compile, an observation {observation} in the loop; "
            f"expected at most {WALK_DIFFERENCE} more."
        )
    return breaches


RULES: tuple[Callable[[Structure], list[str]], ...] = (
    check_table,
    check_arrows,
    check_cycles,
    check_prefix,
    check_launch,
    check_commands,
    check_names,
    check_walks,
)


def report(structure: Structure) -> str:
    """Return the structure as text: folders, imports and walks."""
    kinds = Counter(edge.kind for edge in structure.edges)
    lines = [f"{'folder':<10} {'files':>6} {'lines':>7}"]
    for folder, count in structure.lines().items():
        files = sum(source.folder == folder for source in structure.sources)
        lines.append(f"{folder:<10} {files:>6} {count:>7,}")

    lines.append("")
    lines.append(
        f"import edges: {kinds['top']} at the top, {kinds['late']} in functions, "
        f"{kinds['types']} for types, {kinds['string']} by a string; "
        f"{structure.edges_per_file():.2f} per file"
    )
    for walk in WALKS:
        passed = rooms(walk)
        lines.append("")
        lines.append(f"{walk.name}: {len(passed)} files")
        lines += [f"  {room}" for room in passed]
    return "\n".join(lines)


def record(structure: Structure, breaches: Sequence[str]) -> dict[str, object]:
    """Return the structure as a JSON object."""
    return {
        "lines": structure.lines(),
        "edges_per_file": round(structure.edges_per_file(), 3),
        "edges": [
            {"from": edge.importer, "to": edge.imported, "kind": edge.kind, "line": edge.line}
            for edge in structure.edges
        ],
        "cycles": find_cycles(structure.edges),
        "walks": {walk.name: rooms(walk) for walk in WALKS},
        "breaches": list(breaches),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the structure and each breach. Return 1 if there is a breach."""
    parser = argparse.ArgumentParser(prog="checks.structure", description=__doc__)
    parser.add_argument("root", nargs="?", type=Path, default=ROOT, help="checkout to read")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of text")
    options = parser.parse_args(arguments)

    structure = Structure.read(options.root)
    breaches = [sentence for rule in RULES for sentence in rule(structure)]

    if options.json:
        print(json.dumps(record(structure, breaches), indent=2))
    else:
        print(report(structure))
        print()
        print("\n".join(breaches) or "no breach")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
