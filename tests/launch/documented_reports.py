"""Keys of each kind of report, as docs/reports.md lists them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "reports.md"
KIND = re.compile(r"[Kk]ind `(?P<kind>\w+)`, version (?P<version>\d+)")
ROW = re.compile(r"^\| (?P<keys>`[^|]*) \|[^|]*\| (?P<meaning>.*) \|$", re.MULTILINE)


@dataclass(frozen=True)
class Documented:
    """One kind of report on the page."""

    version: int
    keys: frozenset[str]
    optional: frozenset[str]
    """Those of the keys that some reports of the kind lack."""


@cache
def documented() -> dict[str, Documented]:
    """Read the first table after each line that names a kind."""
    page = PAGE.read_text(encoding="utf-8")
    found = {}
    for match in KIND.finditer(page):
        table = page[match.end() :].lstrip(".:\n").partition("\n\n")[0]
        rows = {
            key: row for row in ROW.finditer(table) for key in re.findall(r"`(\w+)`", row["keys"])
        }
        optional = {key for key, row in rows.items() if row["meaning"].startswith("only with")}
        found[match["kind"]] = Documented(
            int(match["version"]), frozenset(rows), frozenset(optional)
        )
    return found


def require_documented(report: dict[str, Any]) -> None:
    """Check that a report has exactly the keys that the page gives its kind."""
    origin = report["report"]
    known = documented()[origin["kind"]]
    assert origin["schema"] == known.version
    keys = report.keys() - {"report"}
    assert keys - known.optional == known.keys - known.optional, origin["kind"]
    assert keys <= known.keys, origin["kind"]
