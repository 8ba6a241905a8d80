"""Counts in sentences."""

from __future__ import annotations

import re

from checks.sources import ROOT, read_sources
from gatort.runtime.wording import counted


def test_one_thing_has_no_plural() -> None:
    assert [counted(n, "miss", "misses") for n in (0, 1, 2)] == ["0 misses", "1 miss", "2 misses"]
    assert [counted(n, "tick") for n in (1, 1200)] == ["1 tick", "1200 ticks"]


def test_no_sentence_counts_things_by_a_fixed_plural() -> None:
    nouns = "misses|retries|rollouts|trials|episodes|requests|answers|deadlines|cores|good frames"
    fixed = re.compile(rf"\}} ({nouns})\b")
    found = [
        f"{source.name}: {line.strip()}"
        for source in read_sources(ROOT)
        for line in source.text.splitlines()
        if fixed.search(line)
    ]
    assert found == []
