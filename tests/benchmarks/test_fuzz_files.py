"""Some hundred mutated files of each format are read, or refused in gatort's own words."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from benchmarks.fuzz_files import fuzz

INPUTS = 300


def test_mutated_files_are_read_or_refused_and_nothing_else() -> None:
    results = fuzz(INPUTS, seed=1, shown=False)
    assert len(results) == 6
    for each in results:
        assert not each.findings, each
        assert each.outcomes["refused"] > 0 < each.outcomes["read"], each
