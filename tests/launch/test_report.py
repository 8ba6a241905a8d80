"""Percentiles, the Wilson interval and the files that a report leaves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatort.launch.report import (
    percentile_record,
    require_writable,
    wilson_95,
    write_json,
)
from gatort.runtime.errors import ConfigError
from gatort.runtime.telemetry import Percentiles


def test_the_wilson_interval_is_the_published_one() -> None:
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3, to its four decimals.
    for successes, episodes, interval in [
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
    ]:
        assert wilson_95(successes, episodes) == pytest.approx(interval, abs=5e-5)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_wilson_interval_holds_the_rate_and_stays_inside_zero_and_one(
    case: tuple[int, int],
) -> None:
    low, high = wilson_95(*case)
    assert 0.0 <= low <= case[0] / case[1] + 1e-12
    assert case[0] / case[1] - 1e-12 <= high <= 1.0


def test_percentiles_are_written_in_milliseconds() -> None:
    latency = Percentiles.of_ns(np.array([1_000_000] * 98 + [80_000_000] * 2, np.int64))
    record = percentile_record(latency)
    # A histogram of three digits.
    assert record == pytest.approx({"p50": 1.0, "p99": 80.0, "p99.9": 80.0, "max": 80.0}, rel=1e-3)


def test_an_output_that_cannot_be_written_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no directory"):
        require_writable(tmp_path / "missing" / "t.json")
    with pytest.raises(ConfigError, match="found a directory"):
        require_writable(tmp_path)
    require_writable(None, tmp_path / "t.json")


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    report = tmp_path / "t.json"
    write_json(report, {"episodes": 3})
    with pytest.raises(ValueError, match="JSON"):
        write_json(report, {"episodes": float("nan")})
    assert json.loads(report.read_text()) == {"episodes": 3}
    assert list(tmp_path.iterdir()) == [report]
