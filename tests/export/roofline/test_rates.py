"""A machine's rates are measured, and its caches are found."""

from __future__ import annotations

import pytest

from gatort.export.roofline import rates


def test_a_cpu_is_measured_with_one_thread_and_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "LARGEST_SHARE", 0.0005)
    monkeypatch.setattr(rates, "SIDE", 64)
    monkeypatch.setattr(rates, "REPEATS", 1)
    found = rates.measure_cpu()
    assert found.rates.read_bytes_s >= (found.one_thread_read_bytes_s or 0) > 0
    assert found.rates.flop_s > 0
    assert found.cache_bytes == rates.last_level_cache_bytes() >= 0
