"""MkDocs hooks: API pages from the source tree, and the root's pages beside those of docs/.

MkDocs reads Markdown from one folder. CONTRIBUTING.md and CHANGELOG.md stay at the root, where
people look for them, and become pages of the site here. The API reference has one page per folder
of `src/gatort` and lists its modules, so that a new module appears without an edit.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "gatort"
PACKAGES = ("runtime", "policies", "sim", "studies", "export", "testing")
"""Folders with an API reference. `launch` and `datasets` are commands, which `--help` documents."""
FROM_ROOT = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Page at the root → its name in the site."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the root's pages and one API page per folder."""
    for source, page in FROM_ROOT.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_seen_from_docs(text)))

    for folder in _folders():
        files.append(File.generated(config, _page(folder), content=_reference(folder)))
    return files


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the API pages to the navigation."""
    pages = [{_import_name(folder): _page(folder)} for folder in _folders()]
    config.nav = [*(config.nav or []), {"API reference": pages}]
    return config


def on_page_markdown(markdown: str, **_: object) -> str:
    """Point links to the root's pages at their copies in the site."""
    for source, page in FROM_ROOT.items():
        markdown = markdown.replace(f"(../{source}", f"({page}")
    return markdown


def _seen_from_docs(text: str) -> str:
    """Rewrite the links of a page at the root: `docs/wire.md` becomes `wire.md`."""
    for source, page in FROM_ROOT.items():
        text = text.replace(f"({source}", f"({page}")
    return re.sub(r"\]\(docs/", "](", text)


def _folders() -> list[Path]:
    """Return the folders that hold modules, in the order of `PACKAGES`, parents first."""
    return [
        folder
        for package in PACKAGES
        for folder in sorted([SOURCE / package, *(SOURCE / package).rglob("*/")])
        if _modules(folder)
    ]


def _modules(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.py") if path.stem not in ("__init__", "__main__"))


def _import_name(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)


def _page(folder: Path) -> str:
    return f"api/{_import_name(folder)}.md"


def _reference(folder: Path) -> str:
    """Return the page of one folder: a heading and one block per module."""
    blocks = [f"# {_import_name(folder)}"]
    blocks += [f"::: {_import_name(module)}" for module in _modules(folder)]
    return "\n\n".join(blocks) + "\n"
