"""Counts in sentences."""

from __future__ import annotations

from gatort.runtime.wording import counted


def test_one_thing_has_no_plural() -> None:
    assert [counted(n, "miss", "misses") for n in (0, 1, 2)] == ["0 misses", "1 miss", "2 misses"]
    assert [counted(n, "tick") for n in (1, 1200)] == ["1 tick", "1200 ticks"]
