"""Every report that a test lets a command write has the keys that docs/reports.md lists."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.launch.documented_reports import require_documented


@pytest.fixture(autouse=True)
def _reports_are_documented(tmp_path: Path) -> Iterator[None]:
    yield
    for path in tmp_path.rglob("*.json"):
        with suppress(ValueError):  # A test may have damaged the file.
            found = json.loads(path.read_bytes())
            if isinstance(found, dict) and "report" in found:
                require_documented(found)
